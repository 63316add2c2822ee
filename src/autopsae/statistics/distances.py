"""Distances of tokens from a point, in float64 also of float32 tokens."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.kernels.dispatch import row_loops, threads_for
from autopsae.statistics.moments import ROWS

_SAFE = 1e-140, 1e150  # lengths whose squares float64 holds


def distances(
    x: Float[Tensor, "tokens d_in"], point: Float[Tensor, "d_in"], unit: float
) -> tuple[Float[Tensor, "tokens"], Float[Tensor, "d_in"]]:
    """||unit x - point|| of each token, and the sum of the unit vectors from the point to those not on it."""
    if not (loops := row_loops(x, point)):
        each, direction = [], torch.zeros_like(point)
        for rows in x.split(ROWS):
            away = torch.add(-point, rows, alpha=unit)
            r = lengths(away)
            direction += torch.where(r > 0, 1 / r, 0) @ away
            each.append(r)
        return torch.cat(each), direction
    threads = threads_for(x.numel())
    r, sums = point.new_empty(len(x)), point.new_zeros(threads, len(point))
    loops.distances(x.numpy(), point.numpy(), unit, *_SAFE, r.numpy(), sums.numpy(), threads)
    direction = sums.sum(dim=0)
    odd = (~_is_safe(r)).nonzero()[:, 0]
    if len(odd):
        away = torch.add(-point, x[odd], alpha=unit)
        r_odd = r[odd] = lengths(away)
        # A unit vector by two divisions: 1 / r would overflow for the smallest r.
        direction += (away[r_odd > 0] / r_odd[r_odd > 0, None]).sum(dim=0)
    return r, direction


def lengths(away: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens"]:
    """The norm of each row, also of rows whose squares overflow or vanish."""
    r: Tensor = torch.linalg.vector_norm(away, dim=1)
    odd = (~_is_safe(r)).nonzero()[:, 0]
    if len(odd):
        largest = away[odd].abs().amax(dim=1, keepdim=True)
        scaled = away[odd] / largest.clamp_min(torch.finfo(r.dtype).smallest_normal)
        r[odd] = largest[:, 0] * torch.linalg.vector_norm(scaled, dim=1)
    return r


def _is_safe(r: Float[Tensor, "tokens"]) -> Bool[Tensor, "tokens"]:
    """Lengths whose squares neither overflow nor vanish."""
    shortest, longest = _SAFE
    return (r > shortest) & (r < longest)
