"""Which dimensions are the outliers: those that hold the mean of the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from autopsae.statistics.moments import Moments
from autopsae.tables import Result

HELD = 0.9
"""Share of ||mu||^2 that is accounted for, dimension by dimension from the largest."""
MOST = 10
"""Dimensions that are named at most."""
_ROUNDING = 1e-20
"""gamma^2 under which a mean is nothing but rounding."""


@dataclass(frozen=True, kw_only=True, repr=False)
class OutlierDimension(Result):
    """One dimension of the tokens after per-token LayerNorm, as `gamma` sees them."""

    index: int
    """Which one, from 0."""
    mean: float
    """Its mean mu_i; after LayerNorm the typical size of a dimension is 1."""
    std: float
    """Its standard deviation."""
    share: float
    """mu_i^2 / ||mu||^2."""

    def __str__(self) -> str:
        return f"dimension {self.index}: {self.mean:+.3g} +- {self.std:.2g}, {self.share:.0%} of ||mu||^2"


def outlier_dimensions(normed: Moments) -> tuple[OutlierDimension, ...]:
    """As many dimensions as hold 90 % of ||mu||^2, at most ten, the largest first; none where the mean is zero.

    normed: moments after per-token LayerNorm.
    """
    square = normed.mean.square()
    total = float(square.sum())
    if total <= _ROUNDING * float(normed.std.square().sum()):
        return ()
    dimensions, held = [], 0.0
    for index in square.argsort(descending=True, stable=True)[:MOST].tolist():
        share = float(square[index]) / total
        dimensions.append(
            OutlierDimension(index=index, mean=float(normed.mean[index]), std=float(normed.std[index]), share=share)
        )
        held += share
        if held >= HELD:
            break
    return tuple(dimensions)


def total_share(dimensions: Sequence[OutlierDimension]) -> float:
    """The share of ||mu||^2 that they hold together."""
    return sum((dimension.share for dimension in dimensions), 0.0)
