"""What a trial expects at the end of the training: death goes on, errors fall on, and slow biases get there too."""

import pytest
import torch

from autopsae.remedies.remedy import center, untouched
from autopsae.training.bias import BIASES, Bias
from autopsae.trial.budget import Budget
from autopsae.trial.candidate import Candidate, slower_of
from autopsae.trial.later import FLATTENING, LEAST, Curve, Slower, expect_later
from autopsae.trial.result import Point

pytestmark = pytest.mark.quick


def budget(doublings: int, *, age: float = 1.0) -> Budget:
    """Of a trial of 100 steps."""
    steps = round(100 * age * 2**doublings)
    return Budget(candidates=1, steps=100, batch_tokens=10, age=age, for_steps=steps, for_batch_tokens=10)


def point(step: int, dead: float, fvu: float | None = 0.1, typical: float | None = 0.2) -> Point:
    return Point(step=step, tokens=100, dead=dead, fvu_raw=fvu, fvu_typical=typical)


def curve(half_way: Point, at_end: Point, end: Point | None = None) -> Curve:
    early = point(25, 0.5, 9.0, 9.0)
    return Curve(points=(early, half_way, point(75, 0.9, 8.0, 8.0), at_end), end=end or at_end)


@pytest.mark.parametrize(
    ("end", "half_way", "at_end", "doublings", "expected"),
    [
        (0.04, 0.01, 0.03, 2, 0.04 * 9),
        (0.04, 0.01, 0.03, 0, 0.04),
        (0.04, 0.03, 0.01, 2, 0.04),  # it fell
        (0.04, 0.0, 2 * LEAST, 1, 0.08),  # chance, not from nothing
        (0.4, 0.1, 0.4, 3, 1.0),
        (0.0, 0.0, 0.0, 3, 0.0),
    ],
)
def test_death_is_expected_to_grow_as_fast_as_in_the_last_doubling(
    end: float, half_way: float, at_end: float, doublings: int, expected: float
) -> None:
    measured = curve(point(50, half_way), point(100, at_end), point(100, end))
    later = expect_later({"a": measured}, {}, budget(doublings))["a"]
    assert (later.step, later.tokens) == (100 * 2**doublings, 100)
    assert later.dead == pytest.approx(expected)


def test_an_error_is_expected_to_fall_on_with_a_flatter_slope_and_never_to_rise() -> None:
    now, before = point(100, 0.0, 0.1, 0.2), point(50, 0.0, 0.4, 0.25)
    later = expect_later({"a": curve(before, now)}, {}, budget(2))["a"]
    assert later.fvu_raw == pytest.approx(0.1 * 0.25 ** (2 * FLATTENING))
    assert later.fvu_typical == pytest.approx(0.2 * 0.8 ** (2 * FLATTENING))
    risen = expect_later({"a": curve(point(50, 0.0, 0.05, 0.1), now)}, {}, budget(2))["a"]
    assert (risen.fvu_raw, risen.fvu_typical) == (0.1, 0.2)
    unknown = curve(point(50, 0.0, None), now, point(100, 0.0, 0.1, None))
    later = expect_later({"a": unknown}, {}, budget(2))["a"]
    assert (later.fvu_raw, later.fvu_typical) == (0.1, None)


def test_what_is_measured_once_is_expected_to_stay() -> None:
    once = point(100, 0.03)
    assert expect_later({"a": Curve(points=(once,), end=once)}, {}, budget(2))["a"].dead == 0.03


def test_a_slow_bias_kills_at_least_as_many_as_the_full_rate_in_that_fraction_of_the_steps() -> None:
    full = Curve(
        points=tuple(point(step, dead) for step, dead in ((25, 0.1), (50, 0.2), (75, 0.3), (100, 0.4))),
        end=point(100, 0.2),  # on all held-out tokens, half as many seem dead
    )
    slow = curve(point(50, 0.0), point(100, 0.0))
    curves, slower = {"full": full, "slow": slow}, {"slow": Slower(than="full", fraction=0.1)}

    def dead(doublings: int, age: float = 1.0) -> float:
        return expect_later(curves, slower, budget(doublings, age=age))["slow"].dead

    assert dead(1) == 0.0  # a tenth of 200 steps, and nothing was measured so early
    assert dead(2) == pytest.approx(0.05)  # of 400 steps
    assert dead(3) == pytest.approx(0.15)  # of 800
    assert dead(3, age=3.0) == pytest.approx(0.15)  # of 2,400, but a step of the trial counts for three
    assert dead(6) == pytest.approx(0.2)
    # What it does by itself counts too, and so does a twin that diverged: not at all.
    curves["slow"] = curve(point(50, 0.5), point(100, 0.5))
    assert dead(2) == 0.5
    del curves["full"]
    assert dead(6) == 0.5


def test_a_slow_candidate_is_told_with_the_one_that_differs_in_the_rate_alone() -> None:
    median = center(torch.ones(3, dtype=torch.float64), "median")
    candidates = [
        Candidate(remedy=median),
        Candidate(remedy=median, bias=BIASES["slow"]),
        Candidate(remedy=median, bias=BIASES["frozen"]),
        Candidate(remedy=median, bias=Bias(lr_fraction=0.5, from_step=3)),
        Candidate(remedy=median, bias=BIASES["slow"], fit_encoder=True),
        Candidate(remedy=untouched(3), bias=BIASES["slow"]),
    ]
    assert slower_of(candidates) == {"median_slow": Slower(than="median", fraction=0.1)}
