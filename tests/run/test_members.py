"""The rules for the members of a run: combinations and names, penalties, starts."""

import re

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.remedies.remedy import center
from autopsae.run.choices import Choice, combinations
from autopsae.run.members import LEAST_TOKENS, Layer, penalty_for, resampling_for
from autopsae.run.start import start_from
from autopsae.sae.init import born
from autopsae.sae.sparsity import SPARSITIES, BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.moments import layer_norm
from autopsae.training.objective import L1, L0Target

X = torch.randn(600, 8, generator=torch.Generator().manual_seed(3)) + 2
ALL = [TopK(k=3), BatchTopK(k=3), GroupMax(k=2), ReLU(), JumpReLU()]


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    # BatchTopK has not learned a threshold: it is NaN.
    return {*mine} == {*other} and all(
        torch.equal(mine[name].nan_to_num(7), other[name].nan_to_num(7)) for name in mine
    )


def test_a_single_member_has_no_name_and_the_default_choices() -> None:
    assert combinations() == {"": Choice(start="median", alpha=0.3, lr=3e-4, l1=None, seed=0)}


def test_names_say_in_what_members_differ_and_only_whitening_has_an_exponent() -> None:
    found = combinations(starts=("zero", "whiten"), alphas=(0.3, 1.0), lrs=(1e-4, 1e-3))
    assert [*found] == [
        "zero_lr0.0001",
        "zero_lr0.001",
        "whiten_alpha0.3_lr0.0001",
        "whiten_alpha0.3_lr0.001",
        "whiten_alpha1.0_lr0.0001",
        "whiten_alpha1.0_lr0.001",
    ]
    assert [*combinations(l1s=(0.1, 1.0), seeds=(4, 5))] == [
        "l10.1_seed4",
        "l10.1_seed5",
        "l11.0_seed4",
        "l11.0_seed5",
    ]
    assert [*combinations(biases=("learned", "frozen"), seeds=(4, 5))] == [
        "biaslearned_seed4",
        "biaslearned_seed5",
        "biasfrozen_seed4",
        "biasfrozen_seed5",
    ]
    assert found["whiten_alpha1.0_lr0.001"] == Choice(start="whiten", alpha=1.0, lr=1e-3, l1=None, seed=0)


@pytest.mark.parametrize("sparsity", ALL, ids=lambda sparsity: sparsity.name)
def test_each_sparsity_says_which_penalty_keeps_it_sparse(sparsity: Sparsity) -> None:
    expected = {"l1": L1(coefficient=0.5), "l0": L0Target(l0=3.0), None: None}[sparsity.usual_penalty]
    found = penalty_for(sparsity, l0=3.0, l1=0.5 if sparsity.usual_penalty == "l1" else None)
    assert found == expected
    sae = born(center(torch.zeros(8), "mean"), d_sae=16, sparsity=sparsity, scaled=False)
    if found is not None:
        found.check(sae)
    # An L0 target moves thresholds: the sparsity must have some that are learned.
    assert sparsity.gated == (sparsity.usual_penalty == "l0")


def test_every_sparsity_of_the_library_was_tried() -> None:
    assert {type(sparsity) for sparsity in ALL} == {
        kind for kind in SPARSITIES.values() if kind.__module__.startswith("autopsae.")
    }


@pytest.mark.parametrize(
    ("sparsity", "l1", "got"), [(ReLU(), None, "relu and None"), (TopK(k=3), 0.1, "topk and 0.1")]
)
def test_a_price_that_is_missing_or_without_effect_is_refused(
    sparsity: Sparsity, l1: float | None, got: str
) -> None:
    message = f"penalty: expected an L1 coefficient (--l1) with the sparsity relu and with no other, got {got}"
    with pytest.raises(InputError, match=re.escape(message)):
        penalty_for(sparsity, l0=3.0, l1=l1)


@pytest.mark.parametrize(("steps", "until"), [(1000, 900), (1005, 904), (10_000, 9000)])
def test_no_latents_are_drawn_afresh_in_the_last_tenth(steps: int, until: int) -> None:
    method = resampling_for(steps)
    assert (method.every_steps, method.until_step) == (1000, until)
    assert max((done for done in range(steps + 1) if method.due(done - 1)), default=0) <= until


@pytest.mark.parametrize("sparsity", ALL, ids=lambda sparsity: sparsity.name)
@pytest.mark.parametrize("normed", [False, True])
def test_an_sae_of_a_layer_is_born_on_its_sample_under_the_start_of_what_it_sees(
    sparsity: Sparsity, normed: bool
) -> None:
    layer = Layer(X, layer_norm=normed)
    start = layer.start("mean", seed=1)
    seen = layer_norm(X) if normed else X
    assert torch.allclose(start.affine.center, seen.mean(dim=0).to(start.affine.center), atol=1e-5)
    found = layer.born(start, d_sae=16, sparsity=sparsity, l0=2.0, seed=1)
    expected = born(
        start,
        d_sae=16,
        sparsity=sparsity,
        sample=collect(X, seed=1).sample,
        generator=torch.Generator().manual_seed(1),
        firing_rate=2 / 16 if sparsity.usual_penalty == "l0" else None,
        layer_norm=normed,
    )
    assert same(found, expected)


def test_an_sae_of_a_layer_is_fitted_on_its_sample_if_asked() -> None:
    layer, settings = Layer(X), {"d_sae": 16, "sparsity": TopK(k=2), "fit_encoder": True}
    found = layer.born(layer.start("mean"), l0=2.0, **settings)  # type: ignore[arg-type]
    assert same(found, born(layer.start("mean"), sample=collect(X).sample, **settings))  # type: ignore[arg-type]


def test_jumprelu_starts_where_its_target_is_met_or_at_the_least_rate_that_the_sample_can_tell() -> None:
    layer = Layer(X)
    start = layer.start("median")
    for l0, rate in ((4.0, 4 / 32), (0.001, LEAST_TOKENS / 600)):
        sae = layer.born(start, d_sae=32, sparsity=JumpReLU(start=1e-6), l0=l0)
        fired = (sae.encode(X) > 0).double().mean(dim=0)
        assert torch.allclose(fired, torch.full_like(fired, rate), atol=1.5 / 600)
    given = layer.born(start, d_sae=32, sparsity=JumpReLU(start=1e-6), l0=4.0, firing_rate=0.25)
    assert float((given.encode(X) > 0).double().mean()) == pytest.approx(0.25, abs=1.5 / 600)


def test_statistics_are_read_once_for_each_seed_and_starts_computed_once() -> None:
    class Counted:
        passes = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            self.passes += 1
            return iter(X.split(200))

    tokens = Counted()
    layer = Layer(tokens)
    first = layer.start("whiten", alpha=0.5)
    before = tokens.passes
    assert layer.start("whiten", alpha=0.5) is first
    layer.born(first, d_sae=16, sparsity=TopK(k=2), l0=2.0)
    assert tokens.passes == before
    layer.start("whiten", alpha=0.5, seed=1)
    assert tokens.passes > before
    expected = start_from("whiten", collect(X, seed=0), alpha=0.5, rank=64)
    assert torch.equal(first.affine.center, expected.affine.center)


def test_a_prescription_is_for_tokens_as_they_are_and_refused_with_layer_norm() -> None:
    saved = Prescription(
        remedy=center(X.mean(dim=0), "mean"), reason="", layer="hs3", d_sae=16, sparsity=TopK(k=2), scale=1.0
    )
    assert Layer(X).born(saved, d_sae=16, sparsity=TopK(k=2), l0=2.0).d_sae == 16
    with pytest.raises(
        InputError, match=r"layer_norm: expected a start by its name \(--init\), got a prescription"
    ):
        Layer(X, layer_norm=True).born(saved, d_sae=16, sparsity=TopK(k=2), l0=2.0)
