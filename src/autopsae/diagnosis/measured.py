"""All that was measured on a layer, and what explains the latents that are born dead on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from autopsae.diagnosis.prescribe import LOPSIDED, Prescription
from autopsae.diagnosis.severity import Severity
from autopsae.statistics.repeats import Repeats
from autopsae.survival.birth import Birth
from autopsae.survival.closed_form import Prediction
from autopsae.survival.forecast import Outlook
from autopsae.survival.revival import Revival

SEVERE_GAMMA = 1.0
STRAY_SQUARE = 0.5
REPEATED = 0.2
"""Share of the tokens that one vector may have before it looks like padding."""
FEW_DISTINCT = 0.5
"""Distinct vectors, as a share of the tokens, under which their number is the sample size."""
UNEVEN_RANK = 0.5
"""Effective rank / d_in under which the directions differ in spread enough to be a reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What the findings of a layer are judged by; the verdict is among it, and they must agree with it."""

    tokens: int
    """Tokens that were diagnosed."""
    severity: Severity
    repeats: Repeats
    """Of the tokens read, before any copies were left out."""
    birth: Mapping[str, Birth]
    """Death counted on the tokens, by remedy."""
    expected: Mapping[str, Outlook]
    """Death expected on as many tokens as was asked, by remedy."""
    predicted: Prediction
    """The paper's closed forms on the tokens."""
    revival: Revival | None
    """What training would leave of the dead-by-ReLU, where that was asked."""
    prescription: Prescription
    acceptable: float
    """Fraction of latents that may be dead."""

    @property
    def sample_size(self) -> int:
        """Tokens that the numbers rest on: see `sample_size`."""
        return min(self.tokens, sample_size(self.repeats))

    @property
    def cure(self) -> str:
        """The prescription with what it leaves dead; "" where nothing is to be changed."""
        name = self.prescription.remedy
        if name == "none":
            return ""
        counted, expected = self.birth[name].dead, self.expected[name].dead.value
        return f"{self.prescription.advice} ({counted:.1%} dead as counted, {expected:.1%} as expected)"

    @property
    def born_dead(self) -> str:
        """Death without a remedy, the count and the expectation told apart."""
        expected = self.expected["none"]
        return (
            f"{self.birth['none'].dead:.1%} of {self.prescription.d_sae:,} latents are born dead, counted on "
            f"{self.tokens:,} tokens, and {expected.dead.value:.1%} are expected to be on {expected.tokens:,}"
        )


def sample_size(repeats: Repeats) -> int:
    """The number of distinct vectors where one vector is many of the tokens, or most tokens are copies; else of
    tokens.
    """
    few = repeats.distinct_estimate < FEW_DISTINCT * repeats.tokens
    return repeats.distinct_estimate if few or repeats.largest_share > REPEATED else repeats.tokens


def why_dead(measured: Measured) -> str:
    """Why latents are born dead where gamma is under 1, from the reason that would hold whatever the geometry to
    those that only hold in the absence of others.

    1. So few tokens that latents which all fire equally often would be missed too. 2. Stray tokens: they own the
    spread, so gamma_raw and rank describe them and not the others. 3. A mean that LayerNorm takes away. 4. A mean
    that repeated tokens hide, as they pull mean and spread towards themselves. 5. gamma itself, by the closed form.
    6. A spread that differs between directions, now that nothing else is left that would make it look so.
    """
    severity, none = measured.severity, measured.birth["none"]
    chances = measured.sample_size * measured.prescription.k / measured.prescription.d_sae
    typical = severity.gamma_typical or 0.0
    hidden = f"among the other tokens, one of each, the mean outweighs the spread {typical:.3g} times"
    if exp(-chances) >= none.dead / 2:
        return (
            f"{measured.sample_size:,} different tokens with {measured.prescription.k} places each are too few for "
            f"{measured.prescription.d_sae:,} latents"
        )
    if severity.stray_square > STRAY_SQUARE:
        strays = f"{severity.stray_tokens:.2%} of the tokens hold {severity.stray_square:.1%} of the squared norm"
        return f"{strays}, and {hidden}" if typical > SEVERE_GAMMA else f"{strays}, and own the spread"
    if severity.gamma_raw > SEVERE_GAMMA:
        return f"the mean outweighs the spread {severity.gamma_raw:.3g} times, but LayerNorm hides it from gamma"
    if typical > SEVERE_GAMMA and measured.repeats.largest_share > REPEATED:
        return f"{measured.repeats.largest_share:.0%} of the tokens are one vector, and {hidden}"
    if measured.predicted.dead >= none.dead / 2:
        return (
            f"a mean of {severity.gamma:.2f} times the spread is enough on so few tokens: the closed form says "
            f"{measured.predicted.dead:.1%}"
        )
    return _uneven(measured)


def _uneven(measured: Measured) -> str:
    severity, dominance = measured.severity, measured.expected["none"].dominance
    uneven = f"gamma is only {severity.gamma:.2f}, but the directions differ in spread"
    if dominance > LOPSIDED:
        return f"{uneven}: one holds {dominance:.0%} of the variance"
    if severity.effective_rank_fraction < UNEVEN_RANK:
        d_in = measured.prescription.d_in
        return f"{uneven}: as if {severity.effective_rank:.0f} of {d_in:,} carried it"
    return f"gamma is only {severity.gamma:.2f}; neither stray or repeated tokens nor the rank explain it"
