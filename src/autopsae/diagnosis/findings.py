"""The findings of a layer: a sentence for each number that is past its threshold. No finding means all is well.

Findings are written after the prescription and agree with it: if it changes nothing, no finding advises a remedy.
"""

from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.measured import SEVERE_GAMMA, STRAY_SQUARE, Measured, why_dead
from autopsae.diagnosis.outliers import total_share
from autopsae.diagnosis.prescribe import SHORT
from autopsae.diagnosis.repetition import repeat_findings
from autopsae.statistics.groups import DOCUMENT
from autopsae.statistics.strays import STRAY

MEAN_MEDIAN = "mean-median distance"
"""The finding of layers where centering by the arithmetic mean does harm."""
CLOSED_FORM = "distance of the closed form from the forecast"
"""The finding of layers on which the paper's formula is far off."""
LOW_RANK = 0.10
HEAVY_TAILS = 0.5
DRAGGED_MEAN = 0.5
FEW_HOLD = 0.5
"""Share of ||mu||^2 over which at most ten dimensions are what the layer's severity comes from."""
SAID = 4
"""Outlier dimensions that a sentence names."""
OFF = 0.01  # two dead fractions that differ by less count as equal
FAR_OFF = 0.10  # over this difference between closed form and forecast, the closed form misleads
TOKENS_PER_DIMENSION = 10.0
EFFECTIVE_TOKENS = 500.0


def findings(measured: Measured) -> tuple[Finding, ...]:
    """The findings of a layer, the most consequential first."""
    candidates = [
        *repeat_findings(measured),
        _outlier_severity(measured),
        _outlier_dimensions(measured),
        _born_dead(measured),
        _beyond_training(measured),
        _dragged_mean(measured),
        _stray_tokens(measured),
        _low_rank(measured),
        _closed_form(measured),
        _heavy_tails(measured),
        _few_tokens(measured),
        _few_documents(measured),
        _short_training(measured),
    ]
    return tuple(finding for finding in candidates if finding)


def _outlier_severity(measured: Measured) -> Finding | None:
    severity = measured.severity
    if severity.gamma <= SEVERE_GAMMA:
        return None
    return Finding(
        name="gamma",
        value=severity.gamma,
        threshold=SEVERE_GAMMA,
        tokens=measured.sample_size,
        meaning=f"the mean outweighs the spread: {measured.born_dead}",
        advice=measured.cure,
        source="paper Sec. 4; death measured",
    )


def _outlier_dimensions(measured: Measured) -> Finding | None:
    """Which dimensions make up the mean of a severe layer, where a few do."""
    named, severity = measured.outlier_dimensions, measured.severity
    held = total_share(named)
    if severity.gamma <= SEVERE_GAMMA or held <= FEW_HOLD:
        return None
    few = ", ".join(f"{d.index} ({d.mean:+.3g} +- {d.std:.2g})" for d in named[:SAID])
    rest = f" and {len(named) - SAID} more" if len(named) > SAID else ""
    verb = "holds" if len(named) == 1 else "hold"
    return Finding(
        name="outlier dimensions",
        value=held,
        threshold=FEW_HOLD,
        tokens=measured.sample_size,
        meaning=f"{len(named)} of {measured.prescription.d_in:,} dimensions {verb} {held:.0%} of ||mu||^2, where "
        f"the typical size is 1: {few}{rest}",
        advice="",
        source="paper Sec. 3, Fig. 2b",
    )


def _born_dead(measured: Measured) -> Finding | None:
    """More dead latents than accepted although gamma is small. Without a remedy prescribed, they lack tokens."""
    none = measured.birth["none"]
    if measured.severity.gamma > SEVERE_GAMMA or none.dead <= measured.acceptable:
        return None
    silent = measured.prescription.remedy.name == "none"
    ways = f"{none.dead_by_relu:.1%} never positive, {none.dead_by_topk:.1%} positive but never selected"
    return Finding(
        name="silent so far" if silent else "dead at birth",
        value=none.dead,
        threshold=measured.acceptable,
        tokens=measured.sample_size,
        meaning=f"{measured.born_dead} ({ways}: {why_dead(measured)})",
        advice=measured.cure,
        source="measured; the threshold is the accepted death",
    )


def _beyond_training(measured: Measured) -> Finding | None:
    """Latents that training is not expected to bring back."""
    recovery = measured.recovery
    if recovery is None or recovery.dead_by_relu <= measured.acceptable:
        return None
    start = "start b_dec at the geometric median instead of waiting for it"
    return Finding(
        name="dead-by-ReLU after training",
        value=recovery.dead_by_relu,
        threshold=measured.acceptable,
        tokens=measured.sample_size,
        meaning=f"without a remedy, {recovery.born:.1%} are expected to be born dead-by-ReLU, and "
        f"{recovery.steps:,} steps at lr {recovery.lr:g} move b_dec by at most {recovery.travel:.3g} per "
        f"coordinate, and the mean is up to {recovery.distance:.3g} away: {recovery.at_least:.1%} cannot recover, "
        f"{recovery.unrecovered:.1%} are not expected to recover, and {recovery.collateral:.1%} more may become "
        "dead-by-ReLU while the features learn the mean",
        advice="" if measured.prescription.remedy.name == "none" else start,
        source="autopsae, fitted to synthetic recovery (docs/forecast.md); paper Sec. 5.2",
    )


def _dragged_mean(measured: Measured) -> Finding | None:
    severity, mean, median = measured.severity, measured.birth["mean"].dead, measured.birth["median"].dead
    distance = severity.mean_median_distance
    if distance is None or distance <= DRAGGED_MEAN or mean <= median + OFF:
        return None
    instead = f"never center by the mean here; the geometric median leaves {median:.1%} ({measured.how})"
    return Finding(
        name=MEAN_MEDIAN,
        value=distance,
        threshold=DRAGGED_MEAN,
        tokens=measured.sample_size,
        meaning=f"a few tokens drag the arithmetic mean away from the typical token (it points "
        f"{severity.mean_median_angle:.0f} degrees off the geometric median): centering by it leaves "
        f"{mean:.1%} dead",
        advice="" if measured.prescription.remedy.name == "none" else instead,
        source="paper App. D.5, Table S7; the unit is the typical token's distance from the median",
    )


def _stray_tokens(measured: Measured) -> Finding | None:
    severity = measured.severity
    if severity.stray_square <= STRAY_SQUARE:
        return None
    return Finding(
        name="stray tokens' share of the squared norm",
        value=severity.stray_square,
        threshold=STRAY_SQUARE,
        tokens=measured.sample_size,
        meaning=f"{severity.stray_tokens:.2%} of the tokens, each over {STRAY:.0f} times the median norm, dominate "
        "any squared error",
        advice="train with --strays leave_out or weigh_down, and judge the error without them (fvu_typical)",
        source="autopsae; attention sinks and registers, paper App. D.5",
    )


def _low_rank(measured: Measured) -> Finding | None:
    """A remedy is advised only if one that changes more than the centre is prescribed."""
    severity, prescription = measured.severity, measured.prescription
    if severity.effective_rank_fraction >= LOW_RANK:
        return None
    only_centered = prescription.remedy.affine.linear is None and prescription.remedy.subspace is None
    return Finding(
        name="effective rank / d_in",
        value=severity.effective_rank_fraction,
        threshold=LOW_RANK,
        tokens=measured.sample_size,
        meaning=f"about {severity.effective_rank:.0f} directions carry the variance: more latents may die in "
        f"training than at birth (after centering {measured.birth['median'].dead:.1%} are {measured.how} dead, "
        f"after full whitening {measured.birth['whiten'].dead:.1%})",
        advice="watch the dead fraction in training" if only_centered else measured.cure,
        source="paper App. E: death at birth under 1.5 %; Gemma 3 270M died in training at up to 9 %",
    )


def _closed_form(measured: Measured) -> Finding | None:
    """A closed form that is far from the forecast. The forecast is the same whether or not death is counted."""
    said, forecast = measured.predicted.dead, measured.forecast
    if said is None or abs(said - forecast) <= FAR_OFF:
        return None
    return Finding(
        name=CLOSED_FORM,
        value=abs(said - forecast),
        threshold=FAR_OFF,
        tokens=measured.sample_size,
        meaning=f"the paper's formula, which knows gamma only, says that {said:.1%} are dead on "
        f"{measured.birth['none'].tokens:,} tokens, but {forecast:.1%} are forecast from the sample",
        advice="use the count and the forecast",
        source="paper Sec. 4.2: it assumes Gaussian tokens with the same variance in all directions",
    )


def _heavy_tails(measured: Measured) -> Finding | None:
    """Heavy tails, if the closed form predicts too many dead-by-ReLU latents because of them."""
    kurtosis, predicted, by_relu = (
        measured.severity.kurtosis,
        measured.predicted.dead_by_relu,
        measured.birth["none"].dead_by_relu,
    )
    if kurtosis is None or kurtosis <= HEAVY_TAILS or predicted <= by_relu + OFF:
        return None
    return Finding(
        name="excess kurtosis",
        value=kurtosis,
        threshold=HEAVY_TAILS,
        tokens=measured.sample_size,
        meaning=f"heavy tails make more latents positive than the closed form assumes: it predicts "
        f"{predicted:.1%} dead-by-ReLU, but {by_relu:.1%} are {measured.how}",
        advice="use the count and the forecast",
        source="paper App. B.9",
    )


def _few_tokens(measured: Measured) -> Finding | None:
    n, d_in = measured.sample_size, measured.prescription.d_in
    if n >= TOKENS_PER_DIMENSION * d_in:
        return None
    return Finding(
        name="tokens per dimension",
        value=n / d_in,
        threshold=TOKENS_PER_DIMENSION,
        tokens=n,
        meaning="too few different tokens to estimate a covariance: the effective rank is too low, the dead "
        "fraction under whitening is too low, and the other dead fractions are too high",
        advice=f"use at least {TOKENS_PER_DIMENSION * d_in:,.0f} tokens",
        source="autopsae; a covariance of d_in dimensions needs several tokens for each",
    )


def _few_documents(measured: Measured) -> Finding | None:
    """A sample that is worth few independent tokens although it has many."""
    n, effective = measured.sample_size, measured.expected["none"].effective_tokens
    if effective >= EFFECTIVE_TOKENS or n < EFFECTIVE_TOKENS:
        return None
    told = (
        f"pass the document of each token: they are unknown here, so that documents of {DOCUMENT} tokens are "
        "assumed; or harvest more documents or images, and fewer tokens of each"
    )
    return Finding(
        name="effective tokens",
        value=effective,
        threshold=EFFECTIVE_TOKENS,
        tokens=n,
        meaning=f"tokens of one document make the same latents fire: the sample is worth {effective:,.0f} "
        "independent tokens, and the expected dead fraction may be many percentage points off",
        advice=told if measured.documents_assumed else "harvest more documents or images, and fewer tokens of each",
        source="docs/forecast.md: 64 images of DINOv2 were worth 165 tokens, and the forecast 14 points off",
    )


def _short_training(measured: Measured) -> Finding | None:
    """What is prescribed because the training is short, and only then."""
    length = measured.prescription.encoder_scale
    if length == 1:
        return None
    return Finding(
        name="lr x steps",
        value=measured.travel,
        threshold=SHORT,
        tokens=measured.sample_size,
        meaning="so short a training would spend much of itself on making the codes smaller, and on most "
        f"layers ends lower after whitening with encoder rows of length {length:.2g} at birth",
        advice="for a longer training, diagnose with its own --steps and --lr: there it may end higher",
        source="docs/trial.md: 25 real layers after 1,000 steps at 3e-4, and others up to 1",
    )
