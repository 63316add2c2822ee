"""The remedies that a diagnosis goes through."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten
from autopsae.statistics.spectrum import Spectrum

ESCALATION = (0.15, 0.3, 0.5)
"""Exponents of partial whitening that are considered where centering is not enough."""


def remedy_ladder(
    spectrum: Spectrum,
    median: Float[Tensor, "d_in"],
    effective_rank: float,
    alphas: Sequence[float],
    ranks: Sequence[int],
) -> tuple[list[Remedy], set[str]]:
    """The remedies from the least intrusive to the most, and the names of those that were asked for."""
    rank = max(1, round(effective_rank))
    whitened = {alpha: whiten(spectrum, median, alpha=alpha) for alpha in sorted({*alphas, *ESCALATION, 1.0})}
    subspaces = [active_subspace(spectrum, median, rank=rank) for rank in ranks or (rank,)]
    ladder = [untouched(len(median)), center(median, "median"), *whitened.values(), *subspaces]
    asked = {whitened[alpha].name for alpha in alphas} | {remedy.name for remedy in subspaces if ranks}
    return ladder, asked
