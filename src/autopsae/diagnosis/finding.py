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
        tiny = 1e-12  # a threshold may be zero (no death accepted), and so may a value
        larger, smaller = max(self.value, self.threshold), min(self.value, self.threshold)
        return max(larger, tiny) / max(smaller, tiny)

    def __str__(self) -> str:
        side = "over" if self.value > self.threshold else "under"
        head = f"{self.name} {self.value:.3g} ({side} {self.threshold:.3g}, n = {self.tokens:,} tokens)"
        return f"{head}: {self.meaning}" + (f"; {self.advice}" if self.advice else "")
