"""All that was measured on a layer, and what explains the latents that are born dead on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from autopsae.diagnosis.outliers import OutlierDimension
from autopsae.diagnosis.prescribe import LOPSIDED
from autopsae.diagnosis.prescription import Prescription
from autopsae.diagnosis.severity import Severity
from autopsae.statistics.repeats import Repeats
from autopsae.survival.birth import Birth
from autopsae.survival.closed_form import Prediction
from autopsae.survival.outlook import Outlook
from autopsae.survival.recovery import Recovery

SEVERE_GAMMA = 1.0
STRAY_SQUARE = 0.5
REPEATED = 0.2
"""Share of the tokens that one vector may have before it looks like padding."""
FEW_DISTINCT = 0.5
"""Distinct vectors, as a share of the tokens, under which their number is the sample size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What the findings of a layer are judged by; the verdict is among it, and they must agree with it."""

    tokens: int
    """Tokens that were diagnosed."""
    severity: Severity
    outlier_dimensions: tuple[OutlierDimension, ...]
    repeats: Repeats
    """Of the tokens read, before any copies were left out."""
    birth: Mapping[str, Birth]
    """Death counted on the tokens, by remedy."""
    expected: Mapping[str, Outlook]
    """Death expected on as many tokens as was asked, by remedy."""
    predicted: Prediction
    """The paper's closed forms on the tokens."""
    forecast: float
    """Fraction forecast dead without a remedy on as many tokens, from the sample also where death is counted."""
    recovery: Recovery | None
    """What training would leave of the dead-by-ReLU, where that was asked."""
    prescription: Prescription
    travel: float
    """Learning rate times steps of the training that was asked about."""
    acceptable: float
    """Fraction of latents that may be dead."""
    documents_assumed: bool
    """Whether documents of a usual size are assumed, because neither the documents nor the order of the tokens
    tells how many there are (`statistics.groups`)."""

    @property
    def sample_size(self) -> int:
        """Tokens that the numbers rest on: see `sample_size`."""
        return min(self.tokens, sample_size(self.repeats))

    @property
    def how(self) -> str:
        """Whether death at birth was "counted" or "estimated"."""
        return self.birth["none"].how

    @property
    def cure(self) -> str:
        """The prescription with what it leaves dead; "" where nothing is to be changed."""
        name = self.prescription.remedy.name
        if name == "none":
            return ""
        counted, expected = self.birth[name].dead, self.expected[name].dead.value
        return f"{self.prescription.instruction} ({counted:.1%} dead as {self.how}, {expected:.1%} as expected)"

    @property
    def born_dead(self) -> str:
        """Death without a remedy, the count and the expectation told apart."""
        none, expected = self.birth["none"], self.expected["none"]
        return (
            f"{none.dead:.1%} of {self.prescription.d_sae:,} latents are born dead, {self.how} on "
            f"{none.tokens:,} tokens, and {expected.dead.value:.1%} are expected to be on {expected.tokens:,}"
        )


def sample_size(repeats: Repeats) -> int:
    """The number of distinct vectors where one vector is many of the tokens, or most tokens are copies; else of
    tokens.
    """
    few = repeats.distinct_estimate < FEW_DISTINCT * repeats.tokens
    return repeats.distinct_estimate if few or repeats.largest_share > REPEATED else repeats.tokens


def why_dead(measured: Measured) -> str:
    """Why latents are born dead where gamma is under 1: the first of these that holds.

    1. So few tokens that latents which all fire equally often would be missed too, whatever the geometry. 2. Stray
    tokens: gamma_raw and rank describe them and not the others, so nothing below can be read off. 3. The mean, if
    half of the dead fire without it; it can be hidden from gamma by LayerNorm, or by a repeated token, which pulls
    mean and spread towards itself. 4. The spread, if half of the dead fire once it is the same in all directions.
    """
    severity, none = measured.severity, measured.birth["none"].dead
    size, d_sae = measured.sample_size, measured.prescription.d_sae
    if size == measured.tokens:  # all differ, and so do those of the stream that they are from
        size = measured.birth["none"].tokens
    places = measured.prescription.sparsity.pairs_per_token(d_sae)
    if exp(-size * places / d_sae) >= none / 2:
        return f"{size:,} different tokens with {places} places each are too few for {d_sae:,} latents"
    if severity.stray_square > STRAY_SQUARE:
        strays = f"{severity.stray_tokens:.2%} of the tokens hold {severity.stray_square:.1%} of the squared norm"
        typical = severity.gamma_typical or 0.0
        return f"{strays}, and {_others(typical)}" if typical > SEVERE_GAMMA else f"{strays}, and own the spread"
    centered, whitened = measured.birth["median"].dead, measured.birth["whiten"].dead
    if centered <= none / 2:
        return f"{_mean(measured)}; without it {centered:.1%} are"
    if whitened <= none / 2:
        return f"{_uneven(measured)}; if they did not, {whitened:.1%} would be"
    return f"gamma is only {severity.gamma:.2f}; neither strays nor the mean nor the spread explains it"


def _others(typical: float) -> str:
    return f"among the other tokens, one of each, the mean outweighs the spread {typical:.3g} times"


def _mean(measured: Measured) -> str:
    severity, repeats = measured.severity, measured.repeats
    typical = severity.gamma_typical or 0.0
    if severity.gamma_raw > SEVERE_GAMMA:
        return f"the mean outweighs the spread {severity.gamma_raw:.3g} times, but LayerNorm hides it from gamma"
    if typical > SEVERE_GAMMA and repeats.largest_share > REPEATED:
        return f"{repeats.largest_share:.0%} of the tokens are one vector, and {_others(typical)}"
    return f"a mean of {severity.gamma_raw:.2f} times the spread is enough on so few tokens"


def _uneven(measured: Measured) -> str:
    severity, dominance = measured.severity, measured.expected["none"].dominance
    uneven = f"gamma is only {severity.gamma:.2f}, but the directions differ in spread"
    if dominance > LOPSIDED:
        return f"{uneven}: one holds {dominance:.0%} of the variance"
    return f"{uneven}: as if {severity.effective_rank:.0f} of {measured.prescription.d_in:,} carried it"
