"""What is expected of each candidate at the end of the training that a trial is made for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autopsae.trial.budget import Budget
from autopsae.trial.result import Point

LEAST = 0.001
"""Dead fractions below it count as this when their growth is told: a few latents are chance."""

FLATTENING = 0.75
"""Share of its last fall, as a power of the steps, with which an error is expected to go on falling. docs/trial.md
says on which layers it was chosen."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What was measured of a candidate in the trial."""

    points: tuple[Point, ...]
    """After rising numbers of steps, the last one at the end; all on the same held-out tokens."""
    end: Point
    """At the end, on all held-out tokens, of which the others may be a part."""

    def at(self, steps: float) -> Point | None:
        """The last point that is no older; None where there is none."""
        return next((point for point in reversed(self.points) if point.step <= steps), None)

    def dead_at(self, steps: float) -> float:
        """The dead fraction at this point, on all held-out tokens: on some of them more latents seem dead."""
        point, last = self.at(steps), self.points[-1].dead
        if point is None:
            return 0.0
        return point.dead * (self.end.dead / last if last else 1.0)


@dataclass(frozen=True, kw_only=True)
class Slower:
    """How a candidate whose `b_dec` learns slowly is related to one that differs in this alone."""

    than: str
    """The name of the other, whose `b_dec` learns at the full rate."""
    fraction: float
    """The rate of `b_dec`, as a fraction of that of the other: `Bias.lr_fraction`."""


def expect_later(curves: Mapping[str, Curve], slower: Mapping[str, Slower], budget: Budget) -> dict[str, Point]:
    """What is expected of each candidate at the end of the training, if it goes on as in the trial's second half.

    With n doublings of the steps from the end of the trial to that of the training:

        dead (dead at the end / dead half-way)^n, at most 1;
        fvu (fvu at the end / fvu half-way)^(FLATTENING n), for both errors.

    A dead fraction that fell and an error that rose count as ones that stay.

    slower: candidates whose `b_dec` learns at a fraction of the rate. It moves as far in the whole training as one
    at the full rate in that fraction of the steps, and so at least as many latents are expected dead.
    """
    later = {name: _expect(curve, budget) for name, curve in curves.items()}
    for name, how in slower.items():
        if name in later and how.than in curves:
            least = curves[how.than].dead_at(how.fraction * budget.for_steps / budget.age)
            later[name] = replace(later[name], dead=max(later[name].dead, least))
    return later


def _expect(curve: Curve, budget: Budget) -> Point:
    end, at_end = curve.end, curve.points[-1]
    half_way = curve.at(at_end.step / 2) or at_end
    growth = max(1.0, at_end.dead / max(half_way.dead, LEAST))
    power = FLATTENING * budget.doublings
    return Point(
        step=budget.for_steps,
        tokens=end.tokens,
        dead=min(1.0, end.dead * float(growth**budget.doublings)),
        fvu_raw=_error_later(end.fvu_raw, half_way.fvu_raw, at_end.fvu_raw, power),
        fvu_typical=_error_later(end.fvu_typical, half_way.fvu_typical, at_end.fvu_typical, power),
    )


def _error_later(fvu: float | None, half_way: float | None, at_end: float | None, power: float) -> float | None:
    if fvu is None or not half_way or at_end is None:
        return fvu
    return fvu * float(min(1.0, at_end / half_way) ** power)
