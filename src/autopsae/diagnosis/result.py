"""What a diagnosis found: its numbers, as a dictionary, a data frame, HTML and text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.outliers import OutlierDimension
from autopsae.diagnosis.prescription import Prescription
from autopsae.diagnosis.profile import profile_landscape, thin_spectrum
from autopsae.diagnosis.severity import Severity
from autopsae.sae.sparsity import Sparsity
from autopsae.statistics.repeats import Repeats
from autopsae.survival.birth import Birth
from autopsae.survival.closed_form import Prediction
from autopsae.survival.outlook import Outlook
from autopsae.survival.recovery import Recovery
from autopsae.tables import Result, flatten, html_table, import_pandas
from autopsae.words import printable


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Diagnosis(Result):
    """How a freshly drawn SAE fares on one layer."""

    layer: str
    """The layer's name."""
    tokens: int
    """Tokens that were measured, without copies where these were left out."""
    d_in: int
    """Width of the tokens."""
    d_sae: int
    """Latents of the SAE that was asked about."""
    sparsity: Sparsity
    """Which of them fire on a token."""
    severity: Severity
    """The geometry."""
    outlier_dimensions: tuple[OutlierDimension, ...]
    """The dimensions that hold 90 % of ||mu||^2 after LayerNorm, at most ten, the largest first."""
    repeats: Repeats
    """How many of the tokens read are copies, before any were left out."""
    predicted: Prediction
    """The paper's closed forms."""
    birth: Mapping[str, Birth]
    """Death counted on the tokens, under each remedy by name."""
    expected: Mapping[str, Outlook]
    """Death on as many tokens as was asked, forecast for the remedies up to the one prescribed."""
    recovery: Recovery | None
    """What training would leave of the dead-by-ReLU if nothing were changed; None where no more are born than
    accepted."""
    prescription: Prescription
    """What to change."""
    paper: str
    """The remedy that the paper's rule would choose."""
    findings: tuple[Finding, ...]
    """What the numbers mean, in agreement with the prescription."""
    landscape: Float[Tensor, "shown d_in"]
    """A few sampled tokens after per-token LayerNorm, for the eye (the paper's Fig. 2b); `to_dict`: a profile."""
    variance_shares: Float[Tensor, "d_in"]
    """Shares of the variance along the principal directions, largest first; `to_dict` has some of them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, as in the JSON of the command line."""
        recovery = self.recovery
        return {
            "layer": self.layer,
            "tokens": self.tokens,
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "k": self.sparsity.l0,
            "sparsity": self.sparsity.to_dict(),
            **asdict(self.severity),
            "outlier_dimensions": [asdict(dimension) for dimension in self.outlier_dimensions],
            "repeated": {**asdict(self.repeats), "left_out": self.repeats.tokens - self.tokens},
            "predicted": asdict(self.predicted),
            "birth": {name: asdict(birth) for name, birth in self.birth.items()},
            "expected": {name: asdict(outlook) for name, outlook in self.expected.items()},
            "recovery": recovery and {**asdict(recovery), "dead_by_relu": recovery.dead_by_relu},
            "prescription": {
                "remedy": self.prescription.remedy.name,
                "instruction": self.prescription.instruction,
                "encoder_scale": self.prescription.encoder_scale,
                "reason": self.prescription.reason,
                "paper": self.paper,
            },
            "spectrum": thin_spectrum(self.variance_shares),
            "landscape": profile_landscape(self.landscape),
            "findings": [{**asdict(finding), "text": str(finding)} for finding in self.findings],
        }

    def to_frame(self) -> Any:
        """A pandas frame with one row; nested names are joined by dots (`birth.median.dead`).

        Raises InputError where pandas is missing.
        """
        return import_pandas().DataFrame([flatten(self.to_dict())])

    def _html_table(self) -> str:
        rows = [
            [name, f"{b.dead:.1%}", f"{b.dead_by_relu:.1%}", f"{b.dead_by_topk:.1%}", self._show_expected(name)]
            for name, b in self.birth.items()
        ]
        head, *notes = str(self).split("\n")
        at = next(iter(self.expected.values())).tokens
        header = ["remedy", "born dead", "never positive", "never selected", f"expected on {at:,} tokens"]
        return html_table(header, rows, notes, [head])

    def _show_expected(self, name: str) -> str:
        if name not in self.expected:
            return ""
        dead = self.expected[name].dead
        return f"{dead.value:.1%} ({dead.low:.1%} to {dead.high:.1%})"

    def __str__(self) -> str:
        head = f"{printable(self.layer)}: {self.prescription.instruction}"
        why = f"{self.prescription.reason}. The paper's rule: {self.paper}"
        return "\n  ".join([head, why, *map(str, self.findings)])
