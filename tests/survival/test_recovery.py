from dataclasses import replace

import pytest
import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born, draw_rows
from autopsae.sae.sparsity import TopK
from autopsae.survival.closed_form import predicted_dead_by_relu
from autopsae.survival.recovery import Recovery, recovery
from autopsae.training.config import TrainConfig
from autopsae.training.one import train

D_IN, D_SAE, TOKENS, LR = 32, 256, 4096, 3e-3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


Y = gaussian_tokens(TOKENS, D_IN, 8.0, generator=generator(1))
W = draw_rows(D_SAE, D_IN, generator=generator())


def said(lr: float = LR, steps: int = 300, **options: object) -> Recovery:
    return recovery(Y, W, lr=lr, steps=steps, **options)  # type: ignore[arg-type]


def test_the_bound_is_the_best_bias_in_the_box_latent_by_latent() -> None:
    lost = 0
    for row in W.double():
        # |b_j| <= travel: the best b for this row is -travel * sign(row), whatever it does to others.
        best = Y.double() + 0.9 * row.sign()
        lost += bool((best @ row).max() <= 0)
    assert 0 < lost < said().born * D_SAE
    assert said().at_least == pytest.approx(lost / D_SAE)


@pytest.mark.parametrize("steps", [100, 1000])
def test_no_latent_past_the_bound_lives_after_training(steps: int) -> None:
    generator_ = generator(2)
    sae = born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=8), scaled=False, generator=generator_)
    lr = 1e-3
    highest = (Y @ sae.W_enc.detach().T).amax(dim=0)
    beyond = highest + lr * steps * sae.W_enc.detach().abs().sum(dim=1) <= 0
    foretold = recovery(Y, sae.W_enc, lr=lr, steps=steps)
    train(sae, Y, TrainConfig(steps=steps, lr=lr, batch_tokens=256))
    after = sae.pre_activations(Y).amax(dim=0)
    assert bool((after[beyond] <= 0).all())
    mean = Y.mean(dim=0)
    assert float(sae.b_dec.detach() @ mean / mean.square().sum()) <= foretold.captured_at_most
    assert bool(beyond.any())
    assert float(beyond.float().mean()) == pytest.approx(foretold.at_least)


def test_what_does_not_move_revives_nobody() -> None:
    still = [said(lr=0.0), said(steps=0)]
    for foretold in still:
        assert (foretold.unrecovered, foretold.at_least, foretold.dead_by_relu) == (foretold.born,) * 3
    frozen = said(frozen=("b_dec",))
    assert frozen.captured == pytest.approx(0, abs=1e-6)
    assert frozen.unrecovered == frozen.born
    assert frozen.collateral > 0  # the features still collapse


def test_a_bias_alone_takes_over_the_mean_and_revives_all() -> None:
    alone = said(steps=20_000, frozen=("W_enc", "W_dec"))
    assert alone.captured == pytest.approx(1)
    assert alone.dead_by_relu == 0
    assert alone.at_least == 0


def test_the_bias_alone_goes_at_nine_tenths_of_the_rate() -> None:
    mean = torch.zeros(D_IN)
    mean[3] = 50.0
    y = Y - Y.mean(dim=0) + mean
    half = recovery(y, W, lr=0.01, steps=2500, frozen=("W_enc", "W_dec"))
    assert half.captured == pytest.approx(0.9 * 25 / 50, rel=1e-3)
    assert half.captured_at_most == pytest.approx(25 / 50, rel=1e-3)
    assert half.distance == pytest.approx(50)


def test_a_longer_way_revives_more_and_a_faster_rate_drowns_more() -> None:
    ways = [said(steps=steps).unrecovered for steps in (0, 10_000, 100_000)]
    assert ways == sorted(ways, reverse=True)
    assert ways[0] > ways[-1]
    drowned = [said(lr=lr, steps=round(60 / lr), frozen=("b_dec",)).collateral for lr in (1e-4, 1e-3, 1e-2)]
    assert drowned == sorted(drowned)
    assert drowned[0] < drowned[-1]


def test_on_more_tokens_fewer_are_dead() -> None:
    here, later = said(), said(tokens=10_000_000)
    assert later.born < here.born
    assert later.born == pytest.approx(predicted_dead_by_relu(8.0, 10_000_000), abs=0.03)


def test_centered_tokens_have_nothing_to_revive() -> None:
    calm = recovery(Y - Y.mean(dim=0), W, lr=LR, steps=1000)
    assert (calm.born, calm.at_least) == (0, 0)
    assert calm.dead_by_relu == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("wrong", [{"lr": -1e-3}, {"steps": -1}, {"lr": float("nan")}])
def test_a_rate_or_number_of_steps_under_zero_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected lr and steps of at least 0"):
        said(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("frozen", [("bdec",), "b_dec", ("W_enc", "b_pre")])
def test_a_parameter_that_cannot_be_frozen_is_refused(frozen: tuple[str, ...] | str) -> None:
    with pytest.raises(InputError, match="expected frozen as a collection of W_enc, W_dec, b_dec, b_enc, got"):
        said(frozen=frozen)


def test_relu_is_the_sum_of_its_parts() -> None:
    foretold = said()
    assert replace(foretold, unrecovered=0.25, collateral=0.5).dead_by_relu == 0.75
