"""Death at birth under each remedy: counted on all tokens, or estimated for them from the sample."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from autopsae.arrays import Tokens
from autopsae.diagnosis.parameters import Asked
from autopsae.progress import Progress
from autopsae.remedies.view import View
from autopsae.seeds import stream
from autopsae.statistics.collect import Statistics
from autopsae.survival.birth import Birth, measure_birth
from autopsae.survival.forecast import Forecast

DRAW = "diagnosis"
"""The purpose of the seed: the same rows for forecasts and counts, under every remedy."""


@runtime_checkable
class Forecaster(Protocol):
    """`forecast_views` of one SAE."""

    def __call__(self, views: Mapping[str, View], *, if_silent: Collection[str] = ()) -> dict[str, Forecast]:
        """The forecasts by name; those of `if_silent` only where a latent is silent on the sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """Of which SAE death at birth is wanted, and what is known of it."""

    asked: Asked
    statistics: Statistics
    stream_tokens: int
    """Number of tokens that those of the statistics are spread over."""
    views: Mapping[str, View]
    """What the SAE sees under each remedy."""
    forecast: Forecaster
    """Makes the forecasts for it under further remedies."""
    forecasts: Mapping[str, Forecast]
    """Those that were made, for some remedies."""


Births = Callable[[Question], dict[str, Birth]]


def count_births(tokens: Tokens, progress: Progress | None = None) -> Births:
    """Births that are counted on `tokens`, of which the statistics are."""

    def count(question: Question) -> dict[str, Birth]:
        births = measure_birth(
            tokens,
            question.views,
            d_sae=question.asked.d_sae,
            sparsity=question.asked.sparsity,
            generator=stream(question.asked.seed, DRAW),
            device=question.statistics.raw.mean.device,
            progress=progress,
        )
        # A remedy under which all have fired is not counted to the end, and none can be dead there.
        return {name: replace(birth, tokens=question.statistics.tokens) for name, birth in births.items()}

    return count


def estimate_births(question: Question) -> dict[str, Birth]:
    """Births as expected on all tokens of the stream, from forecasts. They are made where there is none yet and a
    latent is silent on the sample.
    """
    missing = {name: view for name, view in question.views.items() if name not in question.forecasts}
    forecasts = {**question.forecasts, **question.forecast(missing, if_silent=missing.keys())}
    return {name: _as_birth(forecasts.get(name), question.stream_tokens) for name in question.views}


def _as_birth(forecast: Forecast | None, tokens: int) -> Birth:
    if forecast is None or forecast.fires.silent_on_sample == 0:  # whatever fires on the sample fires on all tokens
        return Birth(dead=0.0, dead_by_relu=0.0, dead_by_topk=0.0, tokens=tokens, dead_interval=(0.0, 0.0))
    dead, by_relu = forecast.dead(tokens), forecast.dead_by_relu(tokens).value
    return Birth(
        dead=dead.value,
        dead_by_relu=by_relu,
        dead_by_topk=dead.value - by_relu,
        tokens=tokens,
        dead_interval=(dead.low, dead.high),
    )
