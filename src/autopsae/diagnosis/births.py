"""Death at birth under each remedy: counted on all tokens, or estimated for them from the sample."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """Of which SAE death at birth is wanted, and what is known of it."""

    asked: Asked
    statistics: Statistics
    stream_tokens: int
    """Number of tokens that those of the statistics are spread over."""
    views: Mapping[str, View]
    """What the SAE sees under each remedy."""
    forecast: Callable[[View], Forecast]
    """The forecast for it under a remedy."""
    forecasts: Mapping[str, Forecast]
    """Those that were made, for some remedies."""


Births = Callable[[Question], dict[str, Birth]]


def count_births(tokens: Tokens, progress: Progress | None = None) -> Births:
    """Births that are counted on `tokens`, of which the statistics are."""

    def count(question: Question) -> dict[str, Birth]:
        births = _count(tokens, question, progress)
        # A remedy under which all have fired is not counted to the end, and none can be dead there.
        return {name: replace(birth, tokens=question.statistics.tokens) for name, birth in births.items()}

    return count


def estimate_births(question: Question) -> dict[str, Birth]:
    """Births as expected on all tokens of the stream, from a sample of them. A latent that fires on the sample
    fires on all tokens too; for the others the forecast is made where there is none.
    """
    without = {name: view for name, view in question.views.items() if name not in question.forecasts}
    tokens = question.stream_tokens
    on_sample = _count(question.statistics.sample, replace(question, views=without), None) if without else {}
    births = {}
    for name, view in question.views.items():
        if name in on_sample and on_sample[name].dead == 0:
            births[name] = replace(on_sample[name], tokens=tokens, dead_interval=(0.0, 0.0))
            continue
        forecast = question.forecasts.get(name) or question.forecast(view)
        births[name] = _as_birth(forecast, tokens)
    return births


def _as_birth(forecast: Forecast, tokens: int) -> Birth:
    dead, by_relu = forecast.dead(tokens), forecast.dead_by_relu(tokens).value
    return Birth(
        dead=dead.value,
        dead_by_relu=by_relu,
        dead_by_topk=dead.value - by_relu,
        tokens=tokens,
        dead_interval=(dead.low, dead.high),
    )


def _count(tokens: Tokens, question: Question, progress: Progress | None) -> dict[str, Birth]:
    device = question.statistics.raw.mean.device
    return measure_birth(
        tokens,
        question.views,
        d_sae=question.asked.d_sae,
        sparsity=question.asked.sparsity,
        generator=stream(question.asked.seed, DRAW),
        device=device,
        progress=progress,
    )
