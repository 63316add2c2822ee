"""What the JSON of a diagnosis keeps of a layer's spectrum and landscape: a few numbers that a picture needs."""

from math import log10
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

DIRECTIONS = 100
"""Principal directions that are kept at most, at equal steps of the logarithm of their number."""
BINS = 128
"""Groups of neighbouring dimensions that are kept at most."""
_ROUNDING = 1e-12
"""Shares of the largest variance under which an eigenvalue is rounding."""


def variance_shares(eigenvalues: Float[Tensor, "d_in"]) -> Float[Tensor, "d_in"]:
    """The share of each principal direction in all variance, in float64; 0 where an eigenvalue is rounding, and for
    all where nothing varies. Shares have no scale: those of tokens of any size are finite.
    """
    kept = torch.where(eigenvalues > _ROUNDING * eigenvalues.max(), eigenvalues, 0.0).double()
    return kept / kept.sum().clamp_min(torch.finfo(torch.float64).tiny)


def thin_spectrum(shares: Float[Tensor, "d_in"]) -> dict[str, list[Any]]:
    """{"directions": numbers from 1, "variances": the shares of all variance along them}, the first and the last
    direction among them.
    """
    d_in = len(shares)
    steps = torch.logspace(0, log10(d_in), DIRECTIONS, dtype=torch.float64, device="cpu")
    numbers = sorted({min(d_in, max(1, round(step))) for step in steps.tolist()} | {1, d_in})
    return {"directions": numbers, "variances": [_short(float(shares[n - 1])) for n in numbers]}


def profile_landscape(landscape: Float[Tensor, "shown d_in"]) -> dict[str, list[Any]]:
    """{"dimensions": the first of each group of neighbours, "sizes": of each group the largest |activation| after
    LayerNorm, as the median over the tokens shown}. Up to 128 dimensions, each is a group of its own.
    """
    d_in = landscape.shape[1]
    first = sorted({int(n * d_in / BINS) for n in range(BINS)})
    groups = zip(first, [*first[1:], d_in], strict=True)
    sizes = [_short(float(landscape[:, low:high].abs().amax(dim=1).median())) for low, high in groups]
    return {"dimensions": first, "sizes": sizes}


def _short(value: float) -> float:
    """Five digits: no picture shows more."""
    return float(f"{value:.5g}")
