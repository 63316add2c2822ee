"""Geometric median, the point with the least summed distance to the tokens: robust where up to half are outliers.

Each iteration reads the tokens once for the exact gradient and then takes a Newton step whose curvature comes from
a sample, so a whole stream converges in a few passes. The curvature is damped by a share of Weiszfeld's, less as
long as steps descend, for tokens on a line or in two heaps have hardly any along it. Where a step does not descend,
Weiszfeld's does (Vardi and Zhang 2000, which is also safe when the iterate meets a token).

Distances have a kink at each token, and where the median is a token, or near one that is repeated often, such steps
stall. Then every distance r is replaced by sqrt(r^2 + s^2), which is smooth, and the minimum is followed as s falls
to zero, with the curvature of all tokens (the path of Cohen et al. 2016, "Geometric median in nearly linear time").
"""

from dataclasses import dataclass
from math import frexp, inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import InputError, Tokens, chunks, matrix
from autopsae.passes import same_passes
from autopsae.statistics.distances import distances, lengths
from autopsae.statistics.moments import gram
from autopsae.statistics.repeats import row_hashes

_QUICK_PASSES = 25
_DAMPING = 1e-3  # of Weiszfeld's curvature, at first
_CURVATURE_TOKENS = 2048
_REPEATED = 0.02  # share of the sample from which on a repeated token is tried as the median
_TRIED = 4  # repeated tokens that are tried, at most
_SHARPER = 0.2  # factor by which the smoothing falls
_SHARPEST = 1e-13  # smoothing, in typical distances, that rounding errors drown
_STEPS = 12  # Newton steps per smoothing, at most
_BEND = 1e-15  # least curvature, relative to the largest, along any direction


@dataclass(frozen=True)
class _Pull:
    """How the tokens pull at a point: the slope of the mean distance, and what bends it."""

    point: Tensor
    direction: Tensor
    """Mean unit vector to the tokens that do not lie on the point: the mean distance's slope downhill."""
    weight: float
    """Mean of 1 / distance of the same tokens."""
    coincident: float
    """Share of the tokens that lie on the point."""
    nearest: Tensor
    """The token nearest to the point, but not on it; the point itself where there is none."""

    @property
    def excess(self) -> float:
        """Length of the shortest subgradient of the mean distance: tokens on the point hold it by their share."""
        return max(0.0, float(self.direction.norm()) - self.coincident)


def geometric_median(
    tokens: Tokens,
    *,
    sample: Float[Tensor, "sample d_in"] | NDArray[Any] | None = None,
    tolerance: float = 1e-7,
) -> Float[Tensor, "d_in"]:
    """argmin_m of sum_j ||x_j - m||, in float64 (paper Sec. 6, App. D.5); where that is not unique, one of them.

    tokens: a matrix, or a re-iterable stream together with `sample`, a uniform sample of it: then the sample's
    median is refined by passes over the whole stream. tolerance: the length of the shortest subgradient at the
    result: the mean unit vector to the tokens, less the share of those that lie on the result. Where tokens lie all
    around, this is the result's error over their mean distance; in any case the summed distance is within
    2 * tolerance of the least one (it is convex, and the median no further away than twice the mean distance).

    Any finite tokens have an answer, at any scale and with any number of copies. Should float64 be too coarse for
    the tolerance (two tokens apart by less than a rounding error of the others), it is the best of all points that
    were tried, and the summed distance is within twice the length of its subgradient.

    Raises InputError as `chunks`, for passes over a stream that differ, and for a stream without a sample.
    """
    if sample is None:
        if not isinstance(tokens, (Tensor, np.ndarray)):
            raise InputError(
                "geometric_median: expected `sample` beside a stream of tokens; see statistics.collect"
            )
        sample = tokens = torch.cat(list(chunks(tokens, dtype=torch.float64)))
        starts = [*_frequent_vectors(sample), sample.median(dim=0).values]
    else:
        sample = matrix(sample).double()
        # The sample's mean unit vector is that of all tokens to 1 / sqrt(n): a finer start would be no nearer.
        starts = [geometric_median(sample, tolerance=max(tolerance, len(sample) ** -0.5))]
        sample, tokens = sample.to(starts[0].device), same_passes(tokens)
    # Squares of numbers like 1e200 overflow, and those of 1e-200 vanish. A power of two costs no digit.
    cloud = _Cloud(tokens, unit=_unit(sample))
    best = _descend(cloud, [start * cloud.unit for start in starts], sample * cloud.unit, tolerance)
    return best / cloud.unit


def _descend(
    cloud: "_Cloud", starts: list[Tensor], sample: Float[Tensor, "sample d_in"], tolerance: float
) -> Float[Tensor, "d_in"]:
    """A point of a subgradient under the tolerance: one of the starts, or from there by quick steps, or by sure."""
    best: _Pull | None = None
    for start in starts:
        pull = cloud.pull(start)
        best = pull if best is None or pull.excess < best.excess else best
        if best.excess <= tolerance:
            return best.point
    best = _quickly(cloud, pull, sample[:: max(1, len(sample) // _CURVATURE_TOKENS)], tolerance)
    if best.excess > tolerance:
        best = min(best, _surely(cloud, best.point, tolerance), key=lambda pull: pull.excess)
    return best.point


def _quickly(cloud: "_Cloud", pull: _Pull, sample: Float[Tensor, "some d_in"], tolerance: float) -> _Pull:
    """Damped Newton steps with the sample's curvature, as long as they help."""
    best, damping = pull, _DAMPING
    for _ in range(_QUICK_PASSES):
        if best.excess <= tolerance:
            break
        step = _newton_step(sample, pull, damping)
        ahead = cloud.pull(pull.point + step)
        damping = max(damping / 10, 1e-9)
        # A convex function has fallen if it still falls at the end of the step. Nothing is known where it rises
        # there, but a smaller slope is as good a sign.
        if float(ahead.direction @ step) < 0 and ahead.excess > pull.excess:
            step, damping = _weiszfeld_step(pull), min(damping * 1000, 1.0)
            ahead = cloud.pull(pull.point + step)
        pull = ahead
        best = min(best, pull, key=lambda pull: pull.excess)
    return best


def _surely(cloud: "_Cloud", point: Float[Tensor, "d_in"], tolerance: float) -> _Pull:
    """The minimum of the smoothed distance, followed as the smoothing falls; the token nearest to it is tried too,
    as the median may be that token.
    """
    pull = cloud.pull(point)
    best, typical = pull, 1 / pull.weight if pull.weight else 0.0
    smoothing = typical
    while smoothing > _SHARPEST * typical:
        point = _minimize_smoothed(cloud, point, smoothing)
        pull = cloud.pull(point)
        for candidate in (pull, cloud.pull(pull.nearest)):
            best = min(best, candidate, key=lambda pull: pull.excess)
            if best.excess <= tolerance:
                return best
        smoothing *= _SHARPER
    return best


def _minimize_smoothed(cloud: "_Cloud", point: Float[Tensor, "d_in"], smoothing: float) -> Float[Tensor, "d_in"]:
    """argmin of the mean of sqrt(r^2 + smoothing^2) by Newton's steps, shortened until they do not overshoot."""
    slope, bend = cloud.slope_and_curvature(point, smoothing)
    for _ in range(_STEPS):
        step = _solve(bend, slope)
        length, falls = 1.0, float(slope @ step)
        for _ in range(_STEPS):
            ahead = point + length * step
            slope_ahead, bend_ahead = cloud.slope_and_curvature(ahead, smoothing)
            rises = -float(slope_ahead @ step)
            if rises <= 0.5 * falls:
                break
            length *= falls / (falls + rises)  # where the slope would be zero if it changed evenly
        point, slope, bend = ahead, slope_ahead, bend_ahead
        if length * float(step.norm()) <= 0.01 * smoothing:
            break
    return point


def _solve(bend: Float[Tensor, "d_in d_in"], slope: Float[Tensor, "d_in"]) -> Float[Tensor, "d_in"]:
    """bend^-1 slope; directions of hardly any curvature get the least that rounding errors allow."""
    bend = bend.clone()
    least = _BEND * float(bend.diagonal().max())
    while True:
        bend.diagonal().add_(least)
        factor, failed = torch.linalg.cholesky_ex(bend)
        if not failed:
            return torch.cholesky_solve(slope[:, None], factor).squeeze(1)
        least *= 10


class _Cloud:
    """The tokens in another unit, and passes over them."""

    def __init__(self, tokens: Tokens, *, unit: float) -> None:
        self._tokens, self.unit = tokens, unit

    def pull(self, point: Float[Tensor, "d_in"]) -> _Pull:
        """One pass."""
        weight, shortest = 0.0, inf
        coincident = count = 0
        direction, nearest = torch.zeros_like(point), point
        for x in chunks(self._tokens, dtype=None, device=point.device):
            r, directions = distances(x, point, self.unit)
            inverse = torch.where(r > 0, 1 / r, 0)
            weight += float(inverse.sum())
            direction += directions
            coincident += int((r == 0).sum())
            count += len(x)
            closest = int(inverse.argmax())
            if 0 < float(r[closest]) < shortest:
                shortest, nearest = float(r[closest]), x[closest].double() * self.unit
        return _Pull(point, direction / count, weight / count, coincident / count, nearest)

    def slope_and_curvature(
        self, point: Float[Tensor, "d_in"], smoothing: float
    ) -> tuple[Float[Tensor, "d_in"], Float[Tensor, "d_in d_in"]]:
        """Downhill slope and curvature of the mean of rho = sqrt(r^2 + smoothing^2): the mean of away / rho, and of
        (I - away away^T / rho^2) / rho.
        """
        slope, count = torch.zeros_like(point), 0
        bend = torch.zeros(len(point), len(point), dtype=point.dtype, device=point.device)
        for x in chunks(self._tokens, dtype=torch.float64, device=point.device):
            away = torch.add(-point, x, alpha=self.unit)
            r = lengths(away)
            rho = torch.hypot(r, torch.full_like(r, smoothing))
            scaled = away / rho.sqrt()[:, None]
            slope += rho.rsqrt() @ scaled
            scaled /= rho[:, None]
            bend -= gram(scaled)
            bend.diagonal().add_((1 / rho).sum())
            count += len(x)
        return slope / count, bend / count


def _unit(sample: Float[Tensor, "sample d_in"]) -> float:
    """The power of two that brings the largest of the sample's numbers to about 1."""
    _, exponent = frexp(float(sample.abs().max()))
    return 2.0 ** -max(-1000, min(1000, exponent))


def _frequent_vectors(sample: Float[Tensor, "tokens d_in"]) -> list[Tensor]:
    """The vectors that are many of the tokens, the most frequent first: each may be the median, which steps only
    approach.
    """
    _, first, counts = np.unique(row_hashes(sample), return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_TRIED]
    often = [int(first[i]) for i in order if counts[i] > max(1, _REPEATED * len(sample))]
    return [sample[i] for i in often]


def _weiszfeld_step(pull: _Pull) -> Tensor:
    """Vardi and Zhang's step: Weiszfeld's, shortened by the share of tokens that lie on the iterate."""
    return pull.direction * (_length_factor(pull) / pull.weight)


def _newton_step(sample: Tensor, pull: _Pull, damping: float) -> Tensor:
    """Solve H step = direction with H = mean of (I - u u^T) / r over the sample, damped."""
    away = sample - pull.point
    r = lengths(away)[:, None]
    scaled = torch.where(r > 0, away / r.pow(1.5), 0)
    hessian = gram(scaled) / -len(sample)
    hessian.diagonal().add_(pull.weight * (1 + damping))
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if failed:
        return _weiszfeld_step(pull)
    return torch.cholesky_solve((_length_factor(pull) * pull.direction)[:, None], factor)[:, 0]


def _length_factor(pull: _Pull) -> float:
    return max(0.0, 1 - pull.coincident / float(pull.direction.norm()))
