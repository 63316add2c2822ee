"""Numbers that say how hard a layer's geometry is on an SAE: outlier severity, rank, tails, stray tokens."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.statistics.collect import Statistics
from autopsae.statistics.groups import Groups, sample_groups
from autopsae.statistics.intervals import gamma_influence, precision, rank_influence, rank_without_bias
from autopsae.statistics.moments import Moments, layer_norm
from autopsae.statistics.repeats import row_hashes
from autopsae.statistics.spectrum import Spectrum, effective_rank
from autopsae.statistics.strays import STRAY
from autopsae.tables import Result


@dataclass(frozen=True, kw_only=True, repr=False)
class Severity(Result):
    """The geometry of a layer.

    gamma, effective_rank, kurtosis are taken after per-token LayerNorm (paper Sec. 4, App. E, App. B.9); names
    with `raw`, and all norms, on the activations as they are. Fractions in [0, 1], the angle in degrees. In 9 cases
    of 10 an interval contains what the number is on unlimited tokens of the same kind.
    """

    gamma: float
    """||mu|| / ||sigma||: how far the mean outweighs the spread."""
    gamma_interval: tuple[float, float]
    """Lower and upper end of the interval of gamma."""
    gamma_raw: float
    """The same ratio on the activations as they are."""
    gamma_raw_interval: tuple[float, float]
    """Lower and upper end of the interval of gamma_raw."""
    effective_rank: float
    """Number of directions that carry the variance, in [1, d_in]."""
    effective_rank_interval: tuple[float, float]
    """Lower and upper end of the interval of effective_rank. The rank of few tokens is too low, so that it can lie
    near the lower end."""
    effective_rank_fraction: float
    """effective_rank / d_in."""
    effective_rank_fraction_interval: tuple[float, float]
    """Lower and upper end of the interval of effective_rank_fraction."""
    effective_rank_raw: float
    """effective_rank of the activations as they are."""
    kurtosis: float | None
    """Mean over dimensions of the excess kurtosis (0 for Gaussian); None if every dimension is constant."""
    mean_norm: float
    """Norm of the arithmetic mean."""
    median_norm: float
    """Norm of the geometric median."""
    mean_median_distance: float | None
    """||mean - median|| over the median token's distance from the geometric median; None where over half of the
    sample is one vector, which is the median, and the mean is elsewhere."""
    mean_median_angle: float
    """Angle between the two, in degrees."""
    token_norm_median: float
    """Median of the tokens' norms."""
    token_norm_p99: float
    """99th percentile of the tokens' norms."""
    token_norm_max: float
    """Largest of the tokens' norms."""
    gamma_typical: float | None
    """gamma_raw of the sample's typical tokens, which are those that are not stray, one of each vector; None where
    these do not differ."""
    stray_tokens: float
    """Fraction of tokens with over 10 times the median norm of those that are not zero."""
    stray_square: float
    """Fraction of the summed squared norm that those tokens hold."""

    def __str__(self) -> str:
        rank = f"effective rank {self.effective_rank:.1f} ({self.effective_rank_fraction:.1%} of d_in)"
        return f"gamma {self.gamma:.2f}, {rank}, {self.stray_tokens:.2%} stray tokens"


def gamma(moments: Moments) -> float:
    """Outlier severity ||mu|| / ||sigma|| (paper Sec. 4). Raises InputError if the tokens do not differ."""
    spread = float(moments.std.norm())
    norm = float(moments.mean.norm())
    if spread <= 1e-12 * norm or spread == 0:
        raise InputError(
            f"expected tokens that differ, got {moments.tokens:,} without spread (raw, or after LayerNorm, which "
            "leaves only the signs of two dimensions); check the hook point, the mask and the scale"
        )
    return norm / spread


def severity(
    statistics: Statistics,
    median: Float[Tensor, "d_in"],
    groups: Groups | None = None,
) -> Severity:
    """The geometry of a layer from its statistics and its geometric median.

    groups: of the sample's tokens, for the intervals (`sample_groups`; default: guessed).

    Raises InputError if all tokens are the same.
    """
    raw, normed, norms = statistics.raw, statistics.normed, statistics.norms
    sample = statistics.sample  # a copy is made each time that it is asked for
    normed_sample = layer_norm(sample)
    groups = groups or sample_groups(sample, None, statistics.tokens)
    if statistics.tokens < 2:
        raise InputError("expected at least 2 tokens, got 1; the spread of one token is not defined")
    gamma_raw = gamma(raw)
    spectrum = Spectrum.of(normed.covariance)
    rank = _rank(spectrum.eigenvalues, statistics)
    low, high = _rank_interval(normed_sample, statistics, spectrum, rank, groups)
    kurtosis = normed.excess_kurtosis
    kurtosis = kurtosis[kurtosis.isfinite()]
    typical = (sample - median).norm(dim=1).median()
    cosine = torch.nn.functional.cosine_similarity(raw.mean, median, dim=0, eps=0).clamp(-1, 1)
    middle = norms.quantile(0.5)
    limit = STRAY * norms.typical
    stray_tokens, stray_square = norms.above(limit)
    return Severity(
        gamma=gamma(normed),
        gamma_interval=_gamma_interval(normed_sample, normed, groups),
        gamma_raw=gamma_raw,
        gamma_raw_interval=_gamma_interval(sample, raw, groups),
        effective_rank=rank,
        effective_rank_interval=(low, high),
        effective_rank_fraction=rank / statistics.d_in,
        effective_rank_fraction_interval=(low / statistics.d_in, high / statistics.d_in),
        effective_rank_raw=_rank(statistics.spectrum.eigenvalues, statistics),
        kurtosis=float(kurtosis.mean()) if len(kurtosis) else None,
        mean_norm=float(raw.mean.norm()),
        median_norm=float(median.norm()),
        mean_median_distance=_distance_in(float(typical), float((raw.mean - median).norm())),
        mean_median_angle=float(cosine.arccos().rad2deg().nan_to_num(0.0)),
        token_norm_median=middle,
        token_norm_p99=norms.quantile(0.99),
        token_norm_max=norms.largest,
        gamma_typical=_gamma_typical(sample, limit),
        stray_tokens=stray_tokens,
        stray_square=stray_square,
    )


def _distance_in(unit: float, distance: float) -> float | None:
    """distance / unit, None where that is infinite."""
    return distance / unit if unit > 0 else (None if distance > 0 else 0.0)


def _gamma_interval(sample: Float[Tensor, "sample d_in"], moments: Moments, groups: Groups) -> tuple[float, float]:
    """sample: tokens of which `moments` are the moments."""
    influence = gamma_influence(sample, moments.mean, float(moments.std.norm()))
    precise, value = precision(influence, groups, moments.tokens), gamma(moments)
    # The squared norm of the mean of n independent tokens is too high by their variance / n.
    return precise.interval(value, sqrt(max(0.0, value**2 - 1 / precise.effective_tokens)))


def _rank(eigenvalues: Float[Tensor, "d_in"], statistics: Statistics) -> float:
    """The effective rank of all tokens. Where the covariance is from n of N tokens, the rank is too low by as much
    as that of n tokens is, less what that of N tokens is; the bias goes by 1 / tokens.
    """
    rank, n, total = effective_rank(eigenvalues), statistics.covariance_tokens, statistics.tokens
    return rank if n == total else rank_without_bias(rank, eigenvalues, 1 / (1 / n - 1 / total))


def _rank_interval(
    sample: Float[Tensor, "sample d_in"], statistics: Statistics, spectrum: Spectrum, rank: float, groups: Groups
) -> tuple[float, float]:
    """sample: after LayerNorm."""
    influence = rank_influence(sample, statistics.normed.mean, spectrum.eigenvalues, spectrum.directions)
    precise = precision(influence, groups, statistics.covariance_tokens)
    # The rank without any bias: more than that of all tokens where these are few or alike.
    plain = effective_rank(spectrum.eigenvalues)
    unlimited = rank_without_bias(plain, spectrum.eigenvalues, precise.effective_tokens)
    low, high = precise.interval(rank, unlimited)
    return max(1.0, low), min(float(statistics.d_in), high)


def _gamma_typical(sample: Float[Tensor, "sample d_in"], limit: float) -> float | None:
    _, first = np.unique(row_hashes(sample), return_index=True)
    kept = sample[torch.from_numpy(first).to(sample.device)]
    kept = kept[kept.norm(dim=1) <= limit]
    try:
        return gamma(Moments.of(kept))
    except InputError:
        return None
