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

    def __str__(self) -> str:
        side = "over" if self.value > self.threshold else "under"
        head = f"{self.name} {self.value:.3g} ({side} {self.threshold:.3g}, n = {self.tokens:,} tokens)"
        return f"{head}: {self.meaning}" + (f"; {self.advice}" if self.advice else "")
