"""The remedies that a diagnosis goes through."""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor

from autopsae.remedies.remedy import Remedy, active_subspace, center, name_of_whitening, untouched, whiten, z_score
from autopsae.statistics.moments import Moments
from autopsae.statistics.spectrum import Spectrum

ESCALATION = (0.15, 0.3, 0.5)
"""Exponents of partial whitening that are considered where centering is not enough."""

Ladder = dict[str, Callable[[], Remedy]]
"""What makes each remedy, by its name: the matrices of a whitening take long on wide layers, and few are needed."""


def remedy_ladder(
    spectrum: Spectrum,
    median: Float[Tensor, "d_in"],
    effective_rank: float,
    alphas: Sequence[float],
    ranks: Sequence[int],
) -> tuple[Ladder, set[str]]:
    """The remedies from the least intrusive to the most, and the names of those that were asked for."""
    rank = max(1, round(effective_rank))
    whitened: Ladder = {
        name_of_whitening(alpha): partial(whiten, spectrum, median, alpha=alpha)
        for alpha in sorted({*alphas, *ESCALATION, 1.0})
    }
    subspaces: Ladder = {
        f"asi_{rank}": partial(active_subspace, spectrum, median, rank=rank) for rank in ranks or (rank,)
    }
    ladder: Ladder = {
        "none": partial(untouched, len(median)),
        "median": partial(center, median, "median"),
        **whitened,
        **subspaces,
    }
    return ladder, {*map(name_of_whitening, alphas), *(subspaces if ranks else ())}


def ladder_beside(raw: Moments, median: Float[Tensor, "d_in"]) -> Ladder:
    """Remedies that are measured for comparison, and never prescribed. raw: moments of the raw tokens."""
    return {"mean": partial(center, raw.mean, "mean"), "zscore": partial(z_score, raw.std, median)}
