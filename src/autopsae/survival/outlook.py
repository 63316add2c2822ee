"""What a forecast says: fractions with intervals, on a number of tokens."""

from dataclasses import dataclass

from autopsae.tables import Result


@dataclass(frozen=True, repr=False)
class Expected(Result):
    """A fraction of latents that is expected to be dead, and the interval that holds it in 9 cases of 10."""

    value: float
    """The expected fraction, in [0, 1]."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Outlook(Result):
    """Death expected on some number of tokens."""

    tokens: int
    """Number of tokens that death is asked for."""
    dead: Expected
    """Fraction of the latents that never fire on them, the dead-by-ReLU included."""
    dead_by_relu: Expected
    """Fraction of the latents that are never positive on them."""
    usage: float
    """How evenly the latents share the firings at birth: exp(entropy of their shares) / latents, in [0, 1]; 1 if
    all fire equally often."""
    dominance: float
    """Share of the variance that lies in one direction, as the encoder sees the tokens. Stray tokens are included,
    since they weigh in the loss."""
    effective_tokens: float
    """Number of independent tokens that would have told as much as the sample, as those of one document are alike.
    Where it is less than some hundred, the intervals can be too narrow."""

    def __str__(self) -> str:
        return f"expected dead on {self.tokens:,} tokens: {self.dead}; never positive: {self.dead_by_relu}"
