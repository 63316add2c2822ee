"""Verdicts on a result, on both sides of each threshold, and their sentences."""

from dataclasses import replace
from math import inf, nan

import pytest
import torch

from autopsae.evaluation.reconstruction import Evaluation
from autopsae.run.members import resampling_for
from autopsae.run.verdict import Resampled, divergence, idle_resampling, warnings_of
from autopsae.sae.death import Fates
from autopsae.training.config import TrainConfig
from autopsae.training.revival import Resampling, resampling_until
from autopsae.words import fvu_text

pytestmark = pytest.mark.quick

FATES = Fates(tokens=500, fired=torch.ones(4, dtype=torch.int64), positive=torch.ones(4, dtype=torch.bool))
GOOD = Evaluation(
    tokens=500, fvu_raw=0.2, fvu_typical=0.3, strays=0.01, mse_raw=0.1, l0=4.0, bias_captured=1.0, fates=FATES
)


def end(**changes: float | None) -> Evaluation:
    return replace(GOOD, **changes)  # type: ignore[arg-type]


def verdict(result: Evaluation, *, birth: float | None = 0.9) -> str | None:
    return divergence(result, {"fvu_raw": birth}, steps=20, lr=3e-4)


@pytest.mark.parametrize(
    ("fvu", "birth", "diverged"),
    [
        (1e4, 0.9, False),
        (1.0001e4, 0.9, True),
        (6e26, 0.9, True),
        # An SAE that starts far off (b_dec = 0 at a large gamma) may still be as far off.
        (2e4, 2e4, False),
        (1.9e8, 2e4, False),
        (2.1e8, 2e4, True),
        (2e4, None, True),
    ],
)
def test_a_result_ten_thousand_times_worse_than_the_mean_and_birth_has_diverged(
    fvu: float, birth: float | None, diverged: bool
) -> None:
    said = verdict(end(fvu_raw=fvu), birth=birth)
    assert (said is not None) == diverged
    if said is not None:
        before = "not finite" if birth is None else fvu_text(birth)
        assert said == (
            f"step 19: the raw FVU on 500 held-out tokens is {fvu_text(fvu)} (predicting their mean gives 1, and "
            f"at birth it was {before}): training has diverged; lower the learning rate (0.0003)"
        )


@pytest.mark.parametrize("changes", [{"mse_raw": inf}, {"mse_raw": nan}, {"fvu_raw": inf}, {"fvu_raw": nan}])
def test_a_result_that_is_not_finite_has_diverged(changes: dict[str, float]) -> None:
    assert verdict(end(**changes)) == (
        "step 19: the error on held-out tokens is not finite; lower the learning rate (0.0003)"
    )


def warned(result: Evaluation, *, birth: float | None = 2.5, resampled: Resampled | None = None) -> list[str]:
    return warnings_of(result, {"fvu_raw": birth}, resampled, lr=3e-4)


@pytest.mark.parametrize(
    ("fvu", "birth", "cure"),
    [
        (1.0, 2.5, None),
        (1.001, 2.5, "train longer"),
        (2.5, 2.5, "train longer"),
        (2.6, 2.5, "lower the learning rate (0.0003)"),
    ],
)
def test_a_result_worse_than_the_mean_is_said_and_what_to_do(fvu: float, birth: float, cure: str | None) -> None:
    found = warned(end(fvu_raw=fvu), birth=birth)
    expected = (
        f"raw FVU {fvu_text(fvu)} on 500 held-out tokens (at birth: 2.5000): worse than predicting their mean, "
        f"which gives 1; {cure}"
    )
    assert found == ([] if cure is None else [expected])


def test_a_large_error_is_said_with_all_its_digits() -> None:
    [warning] = warned(end(fvu_raw=35740.2), birth=41200.0)
    assert warning.startswith("raw FVU 35,740 on 500 held-out tokens (at birth: 41,200): ")


def test_held_out_tokens_that_do_not_differ_are_said_and_are_no_divergence() -> None:
    assert verdict(end(fvu_raw=None, fvu_typical=None, mse_raw=1e9)) is None
    assert warned(end(fvu_raw=None, fvu_typical=None)) == [
        "no FVU: the 500 held-out tokens do not differ, so that there is no variance to explain; hold out more "
        "(--held-out), and check the source"
    ]


def test_a_result_that_serves_the_strays_alone_is_said() -> None:
    assert warned(end(fvu_typical=1.0)) == []
    [said] = warned(end(fvu_typical=1.2))
    assert said.startswith("FVU 1.2000 on the held-out tokens without the 1.00% of over ten times the median norm:")
    assert said.endswith("leave the latter out of training, or weigh them down (`without_strays`, --strays)")


@pytest.mark.parametrize("steps", [10, 20, 1005, 10_000])
def test_latents_drawn_in_the_last_tenth_are_said_and_the_rule_of_the_command_line_draws_none_there(
    steps: int,
) -> None:
    until = resampling_until(steps)
    assert 0 <= (steps - until) - steps / 10 < 1
    assert Resampled.of((until, 5), steps=steps) is None
    assert Resampled.of((0, 0), steps=steps) is None
    late = Resampled.of((steps, 5), steps=steps)
    assert late == Resampled(latents=5, steps_before_end=0)
    after = Resampled.of((until + 1, 5), steps=steps)
    assert after == Resampled(latents=5, steps_before_end=steps - until - 1)
    [said] = warned(GOOD, resampled=after)
    assert said.startswith(f"5 latents were drawn afresh {steps - until - 1:,} steps before the end, in the last")
    assert said.endswith("train on, or stop resampling earlier (Resampling(until_step=...))")


@pytest.mark.parametrize(
    ("steps", "until", "idle"),
    [(1112, None, False), (1111, None, True), (1112, 1000, False), (1112, 999, True), (5000, 1000, False)],
)
def test_resampling_that_no_step_was_for_is_said(steps: int, until: int | None, idle: bool) -> None:
    config = TrainConfig(steps=steps, lr=1e-3, resampling=Resampling(every_steps=1000, until_step=until))
    said = idle_resampling(config, steps=steps)
    expected = (
        f"resampling: no latent could be drawn afresh in {steps:,} steps, as it is done every 1,000 steps, while "
        "no more than 999 are done; train longer, or choose another revival"
    )
    assert said == ([expected] if idle else [])
    assert idle_resampling(replace(config, resampling=None), steps=steps) == []


@pytest.mark.parametrize(("steps", "idle"), [(1111, True), (1112, False)])
def test_the_shortest_run_in_which_the_command_line_resamples(steps: int, idle: bool) -> None:
    config = TrainConfig(steps=steps, lr=1e-3, resampling=resampling_for(steps))
    assert bool(idle_resampling(config, steps=steps)) == idle


def test_of_a_good_result_nothing_is_said() -> None:
    assert warned(GOOD) == []
    assert verdict(GOOD) is None
