"""A finding: a number that says what it means, against what threshold, from how much data, and what to do."""

from dataclasses import dataclass

from autopsae.tables import Result


@dataclass(frozen=True, kw_only=True, repr=False)
class Finding(Result):
    """One statement of a diagnosis or an autopsy."""

    name: str
    """The value's name."""
    value: float
    """In the value's unit; fractions in [0, 1]."""
    threshold: float
    """In the same unit: what the value is compared with."""
    tokens: int
    """Sample size."""
    meaning: str
    """What it says of this layer or SAE."""
    advice: str
    """What to do; "" where nothing is to be done."""
    source: str
    """Where threshold and claim come from."""

    @property
    def gravity(self) -> float:
        """How many times the value is past its threshold, on whichever side; 1 at the threshold."""
        tiny = 1e-12  # a threshold may be zero (no death accepted), and so may a value
        larger, smaller = max(self.value, self.threshold), min(self.value, self.threshold)
        return max(larger, tiny) / max(smaller, tiny)

    def __str__(self) -> str:
        side = "over" if self.value > self.threshold else "under"
        # Three digits, or as many as tell the two apart.
        digits = (d for d in range(3, 18) if f"{self.value:.{d}g}" != f"{self.threshold:.{d}g}")
        form = f".{next(digits, 3)}g"
        head = f"{self.name} {self.value:{form}} ({side} {self.threshold:{form}}, n = {self.tokens:,} tokens)"
        return f"{head}: {self.meaning}" + (f"; {self.advice}" if self.advice else "")
