"""Dead latents re-centred through their own biases: what wakes, what stays as it was, what it costs."""

import pytest
import torch
from torch import Tensor

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.evaluation.autopsy import autopsy
from autopsae.evaluation.recentre import cost_of_recentring, recentre
from autopsae.evaluation.reconstruction import evaluate
from autopsae.remedies.remedy import center, untouched
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK

SPARSITIES = [TopK(k=8), BatchTopK(k=8), ReLU(), JumpReLU()]


def tokens(gamma: float, seed: int = 0) -> Tensor:
    return gaussian_tokens(3000, 24, gamma, generator=torch.Generator().manual_seed(seed))


def baseline(x: Tensor, sparsity: Sparsity, *, encoder_bias: bool = False) -> SAE:
    generator = torch.Generator().manual_seed(1)
    sae = born(
        untouched(24), d_sae=200, sparsity=sparsity, sample=x, generator=generator, encoder_bias=encoder_bias
    )
    if isinstance(sparsity, BatchTopK):
        with torch.no_grad():
            assert sae.owned["learned_threshold"] is not None
            sae.owned["learned_threshold"].fill_(0.5)
    return sae.eval()


@pytest.mark.parametrize("encoder_bias", [False, True])
@pytest.mark.parametrize("sparsity", SPARSITIES, ids=lambda s: s.name)
def test_dead_latents_see_the_centre_and_the_living_what_they_saw(sparsity: Sparsity, encoder_bias: bool) -> None:
    x = tokens(4.0)
    sae = baseline(x, sparsity, encoder_bias=encoder_bias)
    found = autopsy(sae, x)
    after = recentre(sae, center=found.center, is_dead=found.is_dead)
    y, _ = sae.enter(x)
    with torch.no_grad():
        centered = (y.double() - found.center) @ sae.W_enc.double().T
        old, new = sae.pre_activations(y), after.pre_activations(y)
    assert torch.equal(old[:, ~found.is_dead], new[:, ~found.is_dead])
    assert torch.allclose(new[:, found.is_dead].double(), centered[:, found.is_dead], atol=1e-4)
    assert torch.equal(after.b_dec, sae.b_dec)
    assert after.sparsity == sae.sparsity


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=lambda s: s.name)
def test_the_livings_codes_do_not_change_where_no_woken_latent_takes_a_place(sparsity: Sparsity) -> None:
    x = tokens(4.0)
    sae = baseline(x, sparsity)
    found = autopsy(sae, x)
    after = recentre(sae, center=found.center, is_dead=found.is_dead)
    with torch.no_grad():
        old, new = sae.encode(x), after.encode(x)
    undisturbed = (new[:, found.is_dead] == 0).all(dim=1) | (not isinstance(sparsity, TopK))
    assert torch.equal(old[undisturbed][:, ~found.is_dead], new[undisturbed][:, ~found.is_dead])


def test_with_a_threshold_every_dead_latent_wakes_that_the_autopsy_says_wakes() -> None:
    x = tokens(4.0)
    sae = baseline(x, ReLU())
    found = autopsy(sae, x)
    after = recentre(sae, center=found.center, is_dead=found.is_dead)
    assert int(found.is_dead.sum()) > 20
    assert torch.equal(fates(after, x).fired[found.is_dead] > 0, found.wakes[found.is_dead])
    assert bool(found.wakes[found.is_dead].all())


@pytest.mark.parametrize("sparsity", [TopK(k=8), ReLU()], ids=lambda s: s.name)
def test_the_cost_is_what_two_evaluations_say(sparsity: Sparsity) -> None:
    x, held_out = tokens(2.0), tokens(2.0)[::2]
    sae = baseline(x, sparsity)
    found = autopsy(sae, x)
    after = recentre(sae, center=found.center, is_dead=found.is_dead)
    cost, old, new = cost_of_recentring(sae, after, held_out), evaluate(sae, held_out), evaluate(after, held_out)
    assert (cost.fvu_before, cost.fvu_after) == (old.fvu_raw, new.fvu_raw)
    assert (cost.l0_before, cost.l0_after) == (old.l0, new.l0)
    silent, firing = old.fates.fired == 0, new.fates.fired > 0
    assert cost.n_dead == int(silent.sum())
    assert cost.n_woken == int((silent & firing).sum()) > 0
    assert cost.n_displaced == int((~silent & ~firing).sum())
    assert cost.n_dead - cost.n_woken + cost.n_displaced == int((~firing).sum())
    assert cost.firings_of_woken == pytest.approx(float(new.fates.fired[silent].sum() / new.fates.fired.sum()))
    assert cost.to_dict()["n_woken"] == cost.n_woken


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=lambda s: s.name)
def test_doing_it_twice_is_doing_it_once(sparsity: Sparsity) -> None:
    x = tokens(6.0)
    sae = baseline(x, sparsity)
    found = autopsy(sae, x)
    once = recentre(sae, center=found.center, is_dead=found.is_dead)
    twice = recentre(once, center=found.center, is_dead=found.is_dead)
    assert once.b_enc is not None
    assert twice.b_enc is not None
    assert torch.allclose(once.b_enc, twice.b_enc, atol=1e-5)
    again = autopsy(once, x)
    assert not (again.wakes & found.is_dead).any()


def test_nothing_dead_nothing_changed() -> None:
    x = tokens(0.0)
    generator = torch.Generator().manual_seed(1)
    sae = born(center(torch.zeros(24), "mean"), d_sae=40, sparsity=TopK(k=20), sample=x, generator=generator).eval()
    found = autopsy(sae, x)
    assert not found.is_dead.any()
    cost = cost_of_recentring(sae, recentre(sae, center=found.center, is_dead=found.is_dead), x)
    assert (cost.n_dead, cost.n_woken, cost.n_displaced, cost.firings_of_woken) == (0, 0, 0, 0)
    assert cost.fvu_after == cost.fvu_before


def test_a_centre_or_mask_of_another_size_is_refused() -> None:
    sae = baseline(tokens(1.0), ReLU())
    with pytest.raises(InputError, match=r"center: expected shape \(24,\), got \(7,\)"):
        recentre(sae, center=torch.zeros(7), is_dead=torch.zeros(200, dtype=torch.bool))
