"""Geometric median, the point with the least summed distance to the tokens: robust where up to half are outliers.

Each iteration reads the tokens once for the exact gradient and then takes a Newton step whose curvature comes from
a sample, so a whole stream converges in a few passes. Where that step does not descend, Weiszfeld's step does
(Vardi and Zhang 2000, which is also safe when the iterate meets a token).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens, chunks

_MOST_PASSES = 200
_DAMPING = 1e-3  # of Weiszfeld's curvature: tokens on a line have none along it
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
    median is refined by passes over the whole stream. tolerance: the last step's length over the mean distance
    of the tokens to the median.

    Raises InputError as `chunks`, for a stream without a sample, or where the tolerance is not reached.
    """
    if sample is None:
        if not isinstance(tokens, Tensor):
            raise InputError(
                "geometric_median: expected `sample` beside a stream of tokens; see statistics.collect"
            )
        sample, point = tokens, tokens.double().median(dim=0).values
    else:
        point = geometric_median(sample, tolerance=max(tolerance, 1e-4))
    curvature_sample = sample[:: max(1, len(sample) // _CURVATURE_TOKENS)].double().to(point.device)
    pull = _pull(tokens, point)
    for _ in range(_MOST_PASSES):
        if float(pull.direction.norm()) <= pull.coincident:  # a token that outweighs all others is the median
            return point
        step = _newton_step(curvature_sample, point, pull)
        ahead = _pull(tokens, point + step)
        if ahead.distance > pull.distance:
            step = _weiszfeld_step(pull)
            ahead = _pull(tokens, point + step)
        point, pull = point + step, ahead
        if float(step.norm()) <= tolerance * max(pull.distance, torch.finfo(torch.float64).tiny):
            return point
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


def _newton_step(sample: Tensor, point: Tensor, pull: _Pull) -> Tensor:
    """Solve H step = direction with H = mean of (I - u u^T) / r over the sample, damped."""
    away = sample - point
    r = torch.linalg.vector_norm(away, dim=1, keepdim=True)
    scaled = torch.where(r > 0, away / r.pow(1.5), 0)
    hessian = scaled.T @ scaled / -len(sample)
    hessian.diagonal().add_(pull.weight * (1 + _DAMPING))
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if failed:
        return _weiszfeld_step(pull)
    shortening = max(0.0, 1 - pull.coincident / float(pull.direction.norm()))
    return torch.cholesky_solve((shortening * pull.direction)[:, None], factor)[:, 0]
