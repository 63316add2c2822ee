"""Geometric median, the point with the least summed distance to the tokens: robust where up to half are outliers.

Each iteration reads the tokens once for the exact gradient and then takes a Newton step whose curvature comes from
a sample, so a whole stream converges in a few passes. The curvature is damped by a share of Weiszfeld's, less as
long as steps descend, for tokens on a line or in two heaps have hardly any along it. Where a step does not descend,
Weiszfeld's does (Vardi and Zhang 2000, which is also safe when the iterate meets a token).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens, chunks

_MOST_PASSES = 200
_DAMPING = 1e-3  # of Weiszfeld's curvature, at first
_CURVATURE_TOKENS = 2048


@dataclass(frozen=True)
class _Pull:
    """The objective and its slope at a point: mean distance, mean unit vector to the tokens, mean 1 / distance,
    and the share of tokens that lie on the point itself."""

    distance: float
    direction: Tensor
    weight: float
    coincident: float


def geometric_median(
    tokens: Tokens,
    *,
    sample: Float[Tensor, "sample d_in"] | None = None,
    tolerance: float = 1e-7,
) -> Float[Tensor, "d_in"]:
    """argmin_m of sum_j ||x_j - m||, in float64 (paper Sec. 6, App. D.5).

    tokens: a matrix, or a re-iterable stream together with `sample`, a uniform sample of it: then the sample's
    median is refined by passes over the whole stream. tolerance: the length of the mean unit vector from the result
    to the tokens. Where tokens lie all around, this is the result's error over their mean distance; in any case
    the summed distance is within 2 * tolerance of the least one (it is convex, and the median no further away than
    twice the mean distance).

    Raises InputError as `chunks`, for a stream without a sample, or where the tolerance is not reached.
    """
    if sample is None:
        if not isinstance(tokens, (Tensor, np.ndarray)):
            raise InputError(
                "geometric_median: expected `sample` beside a stream of tokens; see statistics.collect"
            )
        sample = tokens = torch.cat(list(chunks(tokens, dtype=torch.float64)))
        point = sample.median(dim=0).values
    else:
        point = geometric_median(sample, tolerance=max(tolerance, 1e-4))
    curvature_sample = sample[:: max(1, len(sample) // _CURVATURE_TOKENS)].double().to(point.device)
    pull, damping = _pull(tokens, point), _DAMPING
    for _ in range(_MOST_PASSES):
        # Tokens on the point itself hold it by their share: if they outweigh the others' pull, it is the median.
        if float(pull.direction.norm()) <= pull.coincident + tolerance:
            return point
        step = _newton_step(curvature_sample, point, pull, damping)
        ahead = _pull(tokens, point + step)
        damping = max(damping / 10, 1e-9)
        if ahead.distance > pull.distance:
            step, damping = _weiszfeld_step(pull), min(damping * 1000, 1.0)
            ahead = _pull(tokens, point + step)
        point, pull = point + step, ahead
    raise InputError(
        f"geometric_median: not within {tolerance:g} after {_MOST_PASSES} passes; pass a larger tolerance"
    )


def _pull(tokens: Tokens, point: Tensor) -> _Pull:
    distance = weight = 0.0
    coincident = count = 0
    direction = torch.zeros_like(point)
    for x in chunks(tokens, dtype=torch.float64, device=point.device):
        away = x - point
        r = torch.linalg.vector_norm(away, dim=1)
        inverse = torch.where(r > 0, 1 / r, 0)
        distance += float(r.sum())
        weight += float(inverse.sum())
        direction += inverse @ away
        coincident += int((r == 0).sum())
        count += len(x)
    return _Pull(distance / count, direction / count, weight / count, coincident / count)


def _weiszfeld_step(pull: _Pull) -> Tensor:
    """Vardi and Zhang's step: Weiszfeld's, shortened by the share of tokens that lie on the iterate."""
    shortening = max(0.0, 1 - pull.coincident / float(pull.direction.norm()))
    return pull.direction * (shortening / pull.weight)


def _newton_step(sample: Tensor, point: Tensor, pull: _Pull, damping: float) -> Tensor:
    """Solve H step = direction with H = mean of (I - u u^T) / r over the sample, damped."""
    away = sample - point
    r = torch.linalg.vector_norm(away, dim=1, keepdim=True)
    scaled = torch.where(r > 0, away / r.pow(1.5), 0)
    hessian = scaled.T @ scaled / -len(sample)
    hessian.diagonal().add_(pull.weight * (1 + damping))
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if failed:
        return _weiszfeld_step(pull)
    shortening = max(0.0, 1 - pull.coincident / float(pull.direction.norm()))
    return torch.cholesky_solve((shortening * pull.direction)[:, None], factor)[:, 0]
