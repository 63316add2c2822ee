"""The start of an SAE, told from its present weights, and latents that a start away from the centre kept silent."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.evaluation.autopsy import autopsy
from autopsae.evaluation.births import Births, began_away, likely_births
from autopsae.evaluation.causes import CAUSES, counterfactuals
from autopsae.evaluation.result import Autopsy
from autopsae.evaluation.space import Space, shift_to
from autopsae.remedies.remedy import center, untouched
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.statistics.median import geometric_median
from autopsae.training.config import TrainConfig
from autopsae.training.one import train

D_IN, D_SAE = 32, 256


def drawn(gamma: float, seed: int = 0, **options: float) -> Tensor:
    return gaussian_tokens(4000, D_IN, gamma, generator=torch.Generator().manual_seed(seed), **options)  # type: ignore[arg-type]


def birth(x: Tensor, *, centered: bool, k: int = 8, bias: bool = False) -> SAE:
    remedy = center(geometric_median(x), "median") if centered else untouched(D_IN)
    generator = torch.Generator().manual_seed(1)
    return born(remedy, d_sae=D_SAE, sparsity=TopK(k=k), sample=x, generator=generator, encoder_bias=bias)


def trained(x: Tensor, *, centered: bool, lr: float, steps: int = 80) -> SAE:
    sae = birth(x, centered=centered, bias=True)
    train(sae, x, TrainConfig(steps=steps, lr=lr, batch_tokens=512))
    return sae.eval()


def share(found: Autopsy, cause: str, among: Tensor) -> float:
    assert int(among.sum()) > 20
    return float((found.cause[among] == CAUSES.index(cause)).double().mean())


@pytest.mark.parametrize("gamma", [3.0, 4.0])
@pytest.mark.parametrize("lr", [1e-3, 1e-2, 5e-2])
def test_the_dead_of_a_start_at_zero_died_of_the_shift_wherever_b_dec_has_got_to(gamma: float, lr: float) -> None:
    x = drawn(gamma, spectrum=0.5)
    sae = trained(x, centered=False, lr=lr)
    found = autopsy(sae, x)
    same_rows = fates(birth(x, centered=True), x).fired > 0
    assert share(found, "shift", found.is_dead & same_rows) >= 0.95


def test_the_dead_of_a_start_at_zero_died_of_the_shift_when_b_dec_has_arrived_at_the_centre() -> None:
    x = drawn(4.0, spectrum=0.5)
    sae = trained(x, centered=False, lr=1e-3)
    dead = autopsy(sae, x).is_dead
    with torch.no_grad():  # as if b_dec had been trained far faster than all else
        sae.b_dec.copy_(sae.affine(geometric_median(x)[None].float())[0])
        # The living as strong as they get: re-centring wakes no one any more.
        sae.W_enc[~dead] *= 50
        sae.W_dec[~dead] /= 50
    found = autopsy(sae, x)
    assert int(found.wakes.sum()) == 0
    assert share(found, "shift", found.is_dead & dead) >= 0.95


@pytest.mark.parametrize("gamma", [3.0, 4.0])
@pytest.mark.parametrize("lr", [0.1, 0.3])
def test_a_rate_that_kills_from_the_centre_is_blamed_and_not_the_shift(gamma: float, lr: float) -> None:
    x = drawn(gamma, spectrum=0.5)
    found = autopsy(trained(x, centered=True, lr=lr), x)
    assert share(found, "died_in_training", found.is_dead) >= 0.95


def test_other_deaths_keep_their_cause_in_an_sae_that_began_at_zero() -> None:
    eigenvalues = torch.cat([torch.ones(24), torch.full((8,), 1e-3)]).double()
    x = drawn(3.0, spectrum=eigenvalues)  # type: ignore[arg-type]
    low = torch.linalg.eigh((x - x.mean(dim=0)).T @ (x - x.mean(dim=0))).eigenvectors.T[:8]
    sae = trained(x, centered=False, lr=1e-3)
    living = (~autopsy(sae, x).is_dead).nonzero()[:, 0]
    silenced, turned = living[:30], living[30:60]
    with torch.no_grad():
        assert sae.b_enc is not None
        sae.b_enc[silenced] = -100 * sae.W_enc[silenced].norm(dim=1)
        rows = normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(2)) @ low, dim=1)
        sae.W_enc[turned] = rows * sae.W_enc[turned].norm(dim=1, keepdim=True)
    found = autopsy(sae, x)
    for made, cause in ((silenced, "died_in_training"), (turned, "low_variance")):
        mask = torch.zeros(D_SAE, dtype=torch.bool)
        mask[made] = True
        assert share(found, cause, mask & found.is_dead) >= 0.95


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("strong", [True, False])
def test_latents_that_stronger_ones_beat_were_outcompeted_also_where_the_mean_is_heavy(
    strong: bool, centered: bool
) -> None:
    x = drawn(3.0)
    sae = birth(x, centered=centered, k=4)
    few = torch.arange(D_SAE) < 64
    with torch.no_grad():
        sae.W_enc[few if strong else ~few] *= 8 if strong else 1 / 8
        if strong:
            sae.W_dec[few] /= 8
    found = autopsy(sae, x)
    beaten = found.is_dead & ~few & (found.max_pre > 0)
    assert share(found, "outcompeted", beaten) >= 0.95


def test_a_start_at_a_mean_that_strays_drag_away_is_blamed_though_it_is_not_at_zero() -> None:
    x = drawn(3.0, outlier_fraction=0.02)
    dragged = center(x.double().mean(dim=0), "mean")
    sae = born(dragged, d_sae=D_SAE, sparsity=TopK(k=8), sample=x, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alive = fates(sae, x).fired > 0
        sae.W_enc[alive] *= 100  # so strong that re-centring alone wakes no one
        sae.W_dec[alive] /= 100
        # Trained weights are not tied.
        sae.W_enc[alive] += 20 * torch.randn(int(alive.sum()), D_IN, generator=torch.Generator().manual_seed(2))
    found = autopsy(sae, x)
    assert share(found, "shift", found.is_dead & ~alive) >= 0.95


def test_births_here_at_zero_and_at_the_centre_are_counted_apart() -> None:
    x = drawn(3.0)
    sae = trained(x, centered=False, lr=3e-2)
    space, fired = Space.of(sae, x), fates(sae, x).fired
    signal = space.spread(sae.W_enc).float()
    births = likely_births(sae, signal, fired=fired)
    shift = shift_to(sae, space.center).float()
    with torch.no_grad():
        asked = counterfactuals(sae, space, births=births, shift=shift, share=torch.ones(D_SAE))
    places = {
        "born_here": sae.b_dec,
        "born_at_zero": torch.zeros(D_IN),
        "born_at_center": space.center.float(),
    }
    counted = {}
    for name, place in places.items():
        as_born = SAE(
            W_enc=births.rows, W_dec=births.rows, b_dec=place.detach(), sparsity=sae.sparsity, affine=sae.affine
        )
        counted[name] = fates(as_born, x).fired > 0
        assert torch.equal(getattr(asked, name), counted[name]), name
    assert len({int(mask.sum()) for mask in counted.values()}) == 3


def test_only_training_that_moved_the_living_hides_the_lengths_of_a_birth() -> None:
    sae = birth(drawn(0.0), centered=True)
    fired, signal = torch.ones(D_SAE, dtype=torch.long), torch.ones(D_SAE)
    with torch.no_grad():
        sae.W_enc[:10] *= 3
        births = likely_births(sae, signal, fired=fired)
        assert torch.allclose(births.rows, sae.W_enc)
        assert bool(births.untouched.all())
        sae.W_enc.add_(0.1 * torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(0)))
        births = likely_births(sae, signal, fired=fired)
        assert torch.allclose(births.rows, sae.W_dec, atol=1e-6)
        assert torch.allclose((births.length * sae.W_enc.norm(dim=1)), torch.ones(D_SAE))
        assert not bool(births.untouched.any())


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_an_autopsy_does_not_depend_on_the_length_with_which_an_encoder_was_born(scale: float) -> None:
    """Latents that compete for k places do so in the same way whatever the common length of the rows is."""
    x = drawn(3.0)
    sae = trained(x, centered=False, lr=1e-2)
    assert sae.b_enc is not None
    W_enc, b_enc = (scale * weight.detach() for weight in (sae.W_enc, sae.b_enc))
    same: dict[str, Any] = {"W_dec": sae.W_dec, "b_dec": sae.b_dec, "sparsity": sae.sparsity, "affine": sae.affine}
    one, other = autopsy(sae, x), autopsy(SAE(W_enc=W_enc, b_enc=b_enc, **same), x)
    assert torch.equal(one.cause, other.cause)
    assert one.to_dict() == other.to_dict()
    assert len({*one.cause.tolist()}) > 1


@pytest.mark.parametrize(
    ("b_dec", "length", "remember", "expected"),
    [
        (0.49, 1.01, 0, True),  # nearer to zero than half of the way
        (0.51, 1.01, 0, False),
        (0.49, 0.99, 0, False),  # a light mean
        (0.99, 1.01, 2, True),  # more than 1 % of 100 latents remember
        (0.99, 1.01, 1, False),
        (0.99, 0.99, 2, False),
    ],
)
def test_an_sae_began_away_where_b_dec_is_still_near_zero_or_untouched_latents_remember_it(
    b_dec: float, length: float, remember: int, expected: bool
) -> None:
    far = torch.tensor([1.0, 0.0]) * length
    latents = torch.arange(100)
    births = Births(
        rows=torch.ones(100, 2),
        length=torch.ones(100),
        moved=torch.zeros(100, dtype=torch.bool),
        untouched=latents < 50,
    )
    said = began_away(
        births,
        at_zero=torch.zeros(100, dtype=torch.bool),
        at_center=(latents < remember) | (latents >= 50),
        dead=torch.ones(100, dtype=torch.bool),
        b_dec=b_dec * far,
        center=far,
        spread=1.0,
    )
    assert said is expected
