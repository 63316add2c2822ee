"""What a layer's numbers mean, one finding per number that has something to say; silence means all is well."""

from collections.abc import Mapping

from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.prescribe import Prescription
from autopsae.diagnosis.severity import Severity
from autopsae.statistics.strays import STRAY
from autopsae.survival.birth import Birth
from autopsae.survival.revival import Revival

SEVERE_GAMMA = 1.0
LOW_RANK = 0.10
HEAVY_TAILS = 0.5
STRAY_SQUARE = 0.5
DRAGGED_MEAN = 0.5
OFF = 0.01  # difference of two dead fractions that is worth a word
TOKENS_PER_DIMENSION = 10.0
EFFECTIVE_TOKENS = 500.0


def findings(
    severity: Severity,
    birth: Mapping[str, Birth],
    prescription: Prescription,
    predicted_relu: float,
    *,
    tokens: int,
    effective_tokens: float,
    revival: Revival | None,
    acceptable: float,
) -> tuple[Finding, ...]:
    """The findings of a layer, the most consequential first; `predicted_relu` is the closed form's dead-by-ReLU,
    `effective_tokens` how many independent tokens the sample is worth, `revival` what training would change.
    """
    cure = f"{prescription.advice} ({birth[prescription.remedy].dead:.1%})"
    candidates = [
        _outlier_severity(severity, birth, cure, tokens, prescription.d_sae),
        _born_dead(severity, birth, cure, tokens, prescription.d_sae, acceptable),
        _beyond_training(revival, tokens, acceptable),
        _dragged_mean(severity, birth, tokens),
        _stray_tokens(severity, tokens),
        _low_rank(severity, birth, tokens),
        _heavy_tails(severity, birth, predicted_relu, tokens),
        _few_tokens(tokens, prescription.d_in),
        _few_documents(effective_tokens, tokens),
    ]
    return tuple(finding for finding in candidates if finding)


def _outlier_severity(
    severity: Severity, birth: Mapping[str, Birth], cure: str, tokens: int, d_sae: int
) -> Finding | None:
    if severity.gamma <= SEVERE_GAMMA:
        return None
    return Finding(
        name="gamma",
        value=severity.gamma,
        threshold=SEVERE_GAMMA,
        tokens=tokens,
        meaning=f"the mean outweighs the spread: {birth['none'].dead:.1%} of {d_sae:,} latents would be born dead",
        advice=cure,
        source="paper Sec. 4; death measured",
    )


def _born_dead(
    severity: Severity, birth: Mapping[str, Birth], cure: str, tokens: int, d_sae: int, acceptable: float
) -> Finding | None:
    """Death that gamma does not explain."""
    none = birth["none"]
    if severity.gamma > SEVERE_GAMMA or none.dead <= acceptable:
        return None
    why = f"gamma is only {severity.gamma:.2f}, but the directions differ in spread"
    if severity.gamma_raw > SEVERE_GAMMA:
        why = f"the mean outweighs the spread {severity.gamma_raw:.3g} times, but LayerNorm hides it from gamma"
    return Finding(
        name="dead at birth",
        value=none.dead,
        threshold=acceptable,
        tokens=tokens,
        meaning=f"{none.relu:.1%} of {d_sae:,} latents would never be positive and {none.topk:.1%} never among the "
        f"k largest ({why})",
        advice=cure,
        source="measured; the threshold is the accepted death",
    )


def _beyond_training(revival: Revival | None, tokens: int, acceptable: float) -> Finding | None:
    """Will training revive them?"""
    if revival is None or revival.relu <= acceptable:
        return None
    return Finding(
        name="dead-by-ReLU after training",
        value=revival.relu,
        threshold=acceptable,
        tokens=tokens,
        meaning=f"untreated, {revival.born:.1%} are born dead-by-ReLU, and {revival.steps:,} steps at lr "
        f"{revival.lr:g} move b_dec by at most {revival.travel:.3g} per coordinate where the mean is up to "
        f"{revival.distance:.3g} away: {revival.at_least:.1%} are out of its reach, {revival.unrevived:.1%} are "
        f"not expected to be, and {revival.collateral:.1%} more may fall under zero as features carry the mean",
        advice="start b_dec at the geometric median instead of waiting for it",
        source="autopsae, fitted to synthetic recovery (docs/forecast.md); paper Sec. 5.2",
    )


def _dragged_mean(severity: Severity, birth: Mapping[str, Birth], tokens: int) -> Finding | None:
    mean, median = birth["mean"].dead, birth["median"].dead
    if severity.mean_median_distance <= DRAGGED_MEAN or mean <= median + OFF:
        return None
    return Finding(
        name="mean-median distance",
        value=severity.mean_median_distance,
        threshold=DRAGGED_MEAN,
        tokens=tokens,
        meaning=f"a few tokens drag the arithmetic mean away from the typical token (it points "
        f"{severity.mean_median_angle:.0f} degrees off the geometric median): centering by it leaves "
        f"{mean:.1%} dead",
        advice=f"never center by the mean here; the geometric median leaves {median:.1%}",
        source="paper App. D.5, Table S7; in units of the typical token's distance from the median",
    )


def _stray_tokens(severity: Severity, tokens: int) -> Finding | None:
    if severity.stray_square <= STRAY_SQUARE:
        return None
    return Finding(
        name="stray tokens' share of the squared norm",
        value=severity.stray_square,
        threshold=STRAY_SQUARE,
        tokens=tokens,
        meaning=f"{severity.stray_tokens:.2%} of the tokens, each over {STRAY:.0f} times the median norm, dominate "
        "any squared error",
        advice="train with --strays leave_out or weigh_down, and judge the error without them (fvu_typical)",
        source="autopsae; attention sinks and registers, paper App. D.5",
    )


def _low_rank(severity: Severity, birth: Mapping[str, Birth], tokens: int) -> Finding | None:
    if severity.effective_rank_fraction >= LOW_RANK:
        return None
    return Finding(
        name="effective rank / d_in",
        value=severity.effective_rank_fraction,
        threshold=LOW_RANK,
        tokens=tokens,
        meaning=f"{severity.effective_rank:.0f} directions carry the variance: centering leaves "
        f"{birth['median'].dead:.1%} dead at birth, and more may die in training",
        advice=f"try whitening with a small alpha too (full whitening: {birth['whiten'].dead:.1%} at birth)",
        source="paper App. E: death at birth under 1.5 %; Gemma 3 270M died in training at up to 9 %",
    )


def _heavy_tails(
    severity: Severity, birth: Mapping[str, Birth], predicted_relu: float, tokens: int
) -> Finding | None:
    """Of interest only where the closed form does predict too many dead-by-ReLU."""
    if severity.kurtosis is None or severity.kurtosis <= HEAVY_TAILS or predicted_relu <= birth["none"].relu + OFF:
        return None
    return Finding(
        name="excess kurtosis",
        value=severity.kurtosis,
        threshold=HEAVY_TAILS,
        tokens=tokens,
        meaning=f"heavy tails lift latents over zero: the closed form predicts {predicted_relu:.1%} dead-by-ReLU, "
        f"where {birth['none'].relu:.1%} are",
        advice="trust the measured death",
        source="paper App. B.9",
    )


def _few_tokens(tokens: int, d_in: int) -> Finding | None:
    if tokens >= TOKENS_PER_DIMENSION * d_in:
        return None
    return Finding(
        name="tokens per dimension",
        value=tokens / d_in,
        threshold=TOKENS_PER_DIMENSION,
        tokens=tokens,
        meaning="too few tokens for a covariance: the effective rank is too low, whitening flatters itself, and "
        "death is over-counted",
        advice=f"use at least {TOKENS_PER_DIMENSION * d_in:,.0f} tokens",
        source="autopsae; a covariance of d_in dimensions needs several tokens for each",
    )


def _few_documents(effective_tokens: float, tokens: int) -> Finding | None:
    """Only where there are more tokens than that."""
    if effective_tokens >= EFFECTIVE_TOKENS or tokens < EFFECTIVE_TOKENS:
        return None
    return Finding(
        name="effective tokens",
        value=effective_tokens,
        threshold=EFFECTIVE_TOKENS,
        tokens=tokens,
        meaning=f"firings come in heaps: the sample is worth {effective_tokens:,.0f} independent tokens, and the "
        "death expected on more tokens may be tens of points too high",
        advice="harvest more documents or images, and fewer tokens of each",
        source="docs/forecast.md: 64 images of DINOv2 were worth 165 tokens, and the forecast 14 points off",
    )
