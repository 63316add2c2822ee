"""The results of a forecast: expected dead fractions with their intervals, for a given number of tokens."""

from dataclasses import dataclass
from typing import Any

from autopsae.tables import Result


@dataclass(frozen=True, repr=False)
class Expected(Result):
    """An expected fraction of latents, with an interval that contains the true fraction in 9 cases of 10."""

    value: float
    """The expected fraction, in [0, 1]."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True, repr=False)
class DeadForecast(Expected):
    """The fraction of a trained SAE's latents that are expected to fire on none of `tokens` tokens."""

    tokens: int
    """The number of tokens that the forecast is for. Those on which dead latents were counted are among them."""

    def __str__(self) -> str:
        return f"{super().__str__()} expected dead on {self.tokens:,} tokens"


def numbers_of_forecast(forecast: DeadForecast | None) -> dict[str, Any]:
    """The numbers of a forecast under their names in JSON files; None everywhere if there is none."""
    return {
        "dead_forecast": forecast and forecast.value,
        "dead_forecast_interval": forecast and (forecast.low, forecast.high),
        "dead_forecast_tokens": forecast and forecast.tokens,
    }


@dataclass(frozen=True, kw_only=True, repr=False)
class Outlook(Result):
    """The fractions of latents expected to be dead on `tokens` tokens, and how far to trust them."""

    tokens: int
    """The number of tokens that the forecast is for."""
    dead: Expected
    """Fraction of the latents that fire on none of them: dead-by-ReLU and dead-by-TopK together."""
    dead_by_relu: Expected
    """Fraction of the latents that are positive on none of them."""
    usage: float
    """How evenly the latents share the firings at birth: exp(entropy of their shares) / number of latents. It is in
    [0, 1], and 1 if all fire equally often."""
    dominance: float
    """Share of the variance that lies in the first principal direction of the tokens, after any remedy. It includes
    stray tokens, because the loss does too."""
    effective_tokens: float
    """Number of independent tokens that the sample is worth: its size over the design effect. It is less than the
    sample, because tokens of one document are alike. In a shuffled stream whose documents are unknown, it is what
    documents of 512 tokens would make it. Under a few hundred, the intervals can be too narrow."""

    def __str__(self) -> str:
        return f"expected dead on {self.tokens:,} tokens: {self.dead}; never positive: {self.dead_by_relu}"
