"""Intervals that hold in 9 cases of 10, for numbers that are computed from many tokens, such as gamma.

By how much a token moves a number is its *influence* (influence function; Hampel 1974). Influences of a sample's
tokens are summed by groups of tokens, such as documents, and the spread of the sums gives the standard error: a
delete-one-group jackknife to first order, which computes the number only once.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.statistics.groups import Groups

_NORMAL = 1.6449  # the 95 % quantile of the normal distribution: 5 % of the cases are left out on each side


def jackknife(without: Float[Tensor, "groups"]) -> tuple[float, float]:
    """(variance of a number, standard errors on each side of an interval that holds in 9 cases of 10).

    without: the number computed without each of at least 2 groups of tokens. The variance is (n - 1) / n times the
    summed squared deviations, for n groups. It is estimated itself, the worse the more a few groups decide it, so
    the standard errors are those of Student's t distribution. Its degrees of freedom are those of a variance with
    the deviations' kurtosis (Satterthwaite's approximation).
    """
    groups, squares = len(without), (without.double() - without.double().mean()).square()
    total = float(squares.sum())
    kurtosis = groups * float((squares / total).square().sum()) if total > 0 else 1.0
    freedom = groups - 1.0
    if kurtosis > 1:
        freedom = min(freedom, max(2.0, 2 * groups / (kurtosis - 1) - 1))
    return (groups - 1) / groups * total, _student(freedom)


def _student(freedom: float) -> float:
    """The 95 % quantile of Student's t distribution (Cornish-Fisher expansion)."""
    z = _NORMAL
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How precise a number is."""

    half: float
    """Half the width of the interval that holds in 9 cases of 10."""
    effective_tokens: float
    """Number of independent tokens that the tokens are worth."""

    def interval(self, *ends: float) -> tuple[float, float]:
        """The interval around a number, or around a number and what it is without its bias. It is not negative."""
        return max(0.0, min(ends) - self.half), max(ends) + self.half


def precision(influence: Float[Tensor, "sample"], groups: Groups, tokens: int) -> Precision:
    """The precision of a number that is the same if computed from `tokens` tokens, of which these are a sample.

    groups: of the sample's tokens (`autopsae.statistics.groups`). Of several guesses, the least favourable counts.
        The groups are those of all tokens too: a document is in one group.
    """
    sample = len(influence)
    centered = (influence - influence.mean()).double()
    independent = float(centered.square().mean()) / sample
    effect, errors = max(_design_effect(centered, group, independent) for group in groups.guesses)
    effect = max(effect, groups.least_effect)
    # A design effect grows with the number of tokens of each document: 1 + (effect - 1) tokens / sample for all.
    factor = sample / tokens + effect - 1
    return Precision(half=errors * sqrt(independent * factor), effective_tokens=sample / factor)


def _design_effect(
    centered: Float[Tensor, "sample"], group: Int[Tensor, "sample"], independent: float
) -> tuple[float, float]:
    """(by how much the jackknife's variance exceeds that of independent tokens, at least 1; its `errors`)."""
    sizes = torch.bincount(group)
    sums = torch.zeros(len(sizes), dtype=centered.dtype, device=centered.device).index_add_(0, group, centered)
    # Without a group, the number moves by the group's sum over the number of the other tokens.
    variance, errors = jackknife(sums / (len(centered) - sizes))
    return (max(1.0, variance / independent) if independent else 1.0), errors


def gamma_influence(
    x: Float[Tensor, "sample d_in"], mean: Float[Tensor, "d_in"], spread: float
) -> Float[Tensor, "sample"]:
    """The influence of each token on gamma = ||mean|| / spread, where spread^2 is the summed variance."""
    # In units of the spread, so that no power of it leaves the range of float64.
    away, mean = (x - mean) / spread, mean / spread
    norm = mean.norm()
    of_norm = away @ (mean / norm.clamp_min(torch.finfo(mean.dtype).tiny))
    influence: Tensor = of_norm - norm * (away.square().sum(dim=1) - 1) / 2
    return influence


def rank_influence(
    x: Float[Tensor, "sample d_in"],
    mean: Float[Tensor, "d_in"],
    eigenvalues: Float[Tensor, "d_in"],
    directions: Float[Tensor, "d_in d_in"],
) -> Float[Tensor, "sample"]:
    """The influence of each token on the effective rank exp(H), H = -sum p log p, p = eigenvalues / their sum.

    A token adds (v . (x - mean))^2 - eigenvalue to the eigenvalue of direction v, to first order. So it adds
    -(sum over v of (v . (x - mean))^2 (log p + H)) / (sum of eigenvalues) to H. directions: a row for each v.
    """
    eigenvalues = eigenvalues.clamp_min(0)
    total = eigenvalues.sum()
    p = eigenvalues / total
    entropy = torch.special.entr(p).sum()
    weight = torch.where(p > 0, p.log() + entropy, 0.0)
    squares = ((x - mean) @ directions.T).square()
    influence: Tensor = -entropy.exp() * (squares @ weight) / total
    return influence


def rank_without_bias(rank: float, eigenvalues: Float[Tensor, "d_in"], tokens: int | float) -> float:
    """The effective rank as it would be from unlimited tokens. From few, a covariance looks more uneven than it is.

    tokens: the number of independent tokens. To second order in 1 / tokens, and for Gaussian tokens, the entropy H
    is too low by (1 + sum over i < j of p_i p_j (log p_i - log p_j) / (p_i - p_j) - sum of p_i^2
    - 2 sum of p_i^2 (log p_i + H)) / tokens.
    """
    p = eigenvalues[eigenvalues > 1e-12 * eigenvalues.max()].double()
    p = p / p.sum()
    ratio = p[:, None] / p
    # With r = p_i / p_j the terms of the pairs are p_i log r / (r - 1), which is p_i at r = 1.
    same = (ratio - 1).abs() < 1e-6
    terms = p[:, None] * torch.where(same, 1.0, ratio.log() / torch.where(same, 1.0, ratio - 1))
    pairs = (terms.sum() - terms.diagonal().sum()) / 2
    entropy, squares = torch.special.entr(p).sum(), p.square()
    too_low = 1 + pairs - squares.sum() - 2 * (squares * (p.log() + entropy)).sum()
    return min(rank * float((too_low / tokens).exp()), float(len(eigenvalues)))
