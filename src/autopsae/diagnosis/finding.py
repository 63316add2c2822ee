"""A finding: a number that says what it means, against what threshold, from how much data, and what to do."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement of a diagnosis.

    name: the value's name; value, threshold: in the value's unit (fractions in [0, 1]); tokens: sample size;
    meaning: what it says of this layer; advice: what to do, or "" where nothing is to be done;
    source: where threshold and claim come from.
    """

    name: str
    value: float
    threshold: float
    tokens: int
    meaning: str
    advice: str
    source: str

    @property
    def gravity(self) -> float:
        """How many times the value is past its threshold, on whichever side; 1 at the threshold."""
        ratio = self.value / self.threshold
        return ratio if ratio >= 1 else 1 / max(ratio, 1e-12)

    def __str__(self) -> str:
        side = "over" if self.value > self.threshold else "under"
        head = f"{self.name} {self.value:.3g} ({side} {self.threshold:.3g}, n = {self.tokens:,} tokens)"
        return f"{head}: {self.meaning}" + (f"; {self.advice}" if self.advice else "")
