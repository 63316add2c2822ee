"""Figures of counted and expected latents: fates, births, forecasts, evaluations."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from autopsae.evaluation.loss_recovered import LossRecovered
from autopsae.evaluation.recentre import RecentringCost
from autopsae.evaluation.reconstruction import Evaluation
from autopsae.report.plots import COLORS, draw_grid, draw_legend, fit_percent, new_canvas, whiskers
from autopsae.report.text import DEAD_BY
from autopsae.sae.death import Fates
from autopsae.survival.birth import Birth
from autopsae.survival.closed_form import Prediction
from autopsae.survival.forecast import Forecast
from autopsae.survival.outlook import Expected, Outlook
from autopsae.survival.recovery import Recovery
from autopsae.survival.trained import TrainedForecast
from autopsae.words import fvu_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Interval = tuple[float, float] | None
_FURTHER = 10_000  # times the tokens of its sample, up to which a forecast is drawn
_STEPS = 40


def fractions_figure(
    fractions: Mapping[str, float],
    title: str,
    intervals: Mapping[str, Interval] | None = None,
    unit: str = "latents, %",
) -> "Figure":
    """A bar for each fraction, with its interval where there is one, and its value beside it."""
    figure = new_canvas(7.2, 1.5 + 0.36 * len(fractions))
    axis = figure.subplots()
    values = [100 * value for value in fractions.values()]
    known = [(intervals or {}).get(name) for name in fractions]
    between: list[Interval] = [None if one is None else (100 * one[0], 100 * one[1]) for one in known]
    places = list(range(len(values)))
    axis.barh(places, values, color=COLORS[6], height=0.62)
    ends = [max(value, one[1]) if one else value for value, one in zip(values, between, strict=True)]
    some = [n for n, one in enumerate(between) if one is not None]
    if some:
        at, reach = [values[n] for n in some], whiskers([values[n] for n in some], [between[n] for n in some])
        axis.errorbar(at, some, xerr=reach, linestyle="", color="0.2", capsize=3, linewidth=1)
    top = max([*ends, 1e-9])
    for place, value, end in zip(places, values, ends, strict=True):
        axis.text(max(end, 0) + 0.015 * top, place, f"{value:.1f} %", va="center", fontsize=9)
    axis.set_xlim(min([0.0, *values]), 1.16 * top)
    axis.set_yticks(places, [*fractions])
    axis.invert_yaxis()
    axis.set_xlabel(unit)
    axis.set_title(title, loc="left", fontsize=10)
    draw_grid(axis)
    return figure


def birth_figure(birth: Birth) -> "Figure":
    """The fractions that are born dead, by pathway."""
    parts = {"dead": birth.dead, **{DEAD_BY[name]: getattr(birth, name) for name in DEAD_BY}}
    title = f"Latents born dead, {birth.how} on {birth.tokens:,} tokens"
    return fractions_figure(parts, title, {"dead": birth.dead_interval})


def interval_figure(expected: Expected) -> "Figure":
    """An expected fraction with its interval."""
    return fractions_figure({"expected": expected.value}, "Expected", {"expected": (expected.low, expected.high)})


def outlook_figure(outlook: Outlook) -> "Figure":
    """The fractions expected dead, with their intervals."""
    parts = {"dead": outlook.dead, "dead, never positive": outlook.dead_by_relu}
    return fractions_figure(
        {name: one.value for name, one in parts.items()},
        f"Expected on {outlook.tokens:,} tokens",
        {name: (one.low, one.high) for name, one in parts.items()},
    )


def prediction_figure(prediction: Prediction) -> "Figure":
    """What the paper's closed forms say."""
    parts = {"dead": prediction.dead, "dead, never positive": prediction.dead_by_relu}
    return fractions_figure(
        {name: one for name, one in parts.items() if one is not None}, "Dead by the closed forms"
    )


def recovery_figure(recovery: Recovery) -> "Figure":
    """The dead-by-ReLU at birth and as expected after training."""
    parts = {
        "born": recovery.born,
        "stay dead, at least": recovery.at_least,
        "stay dead, expected": recovery.unrecovered,
        "pushed under zero": recovery.collateral,
        "at the end": recovery.dead_by_relu,
    }
    return fractions_figure(parts, f"Never positive, after {recovery.steps:,} steps at {recovery.lr:g}")


def forecast_figure(forecast: Forecast | TrainedForecast) -> "Figure":
    """The fraction expected dead against the number of tokens, from the sample on, with its interval."""
    figure = new_canvas(7.2, 4.4)
    axis = figure.subplots()
    tokens = np.unique(np.geomspace(forecast.tokens, _FURTHER * forecast.tokens, _STEPS).astype(int)).tolist()
    tops = _draw_expected(axis, tokens, [forecast.dead(n) for n in tokens], "dead", COLORS[2])
    if isinstance(forecast, Forecast):
        by_relu = [forecast.dead_by_relu(n) for n in tokens]
        tops += _draw_expected(axis, tokens, by_relu, "dead, never positive", COLORS[1])
    fit_percent(axis, tops)
    axis.set_xscale("log")
    axis.set_xlabel("tokens")
    axis.set_ylabel("latents expected dead, %")
    axis.set_title(f"Forecast of {forecast.d_sae:,} latents, with 90 % intervals", loc="left", fontsize=10)
    draw_grid(axis)
    draw_legend(axis, beside=False)
    return figure


def _draw_expected(
    axis: "Axes", tokens: Sequence[int], expected: Sequence[Expected], name: str, color: str
) -> list[float]:
    """A line in its band; returns the upper ends."""
    high = [100 * one.high for one in expected]
    axis.plot(tokens, [100 * one.value for one in expected], color=color, linewidth=1.5, label=name)
    axis.fill_between(tokens, [100 * one.low for one in expected], high, color=color, alpha=0.18, linewidth=0)
    return high


def fates_figure(fates: Fates) -> "Figure":
    """How many latents fire how often."""
    return rates_figure(fates.fired.cpu().numpy(), fates.tokens, str(fates).split(" (")[0])


def rates_figure(fired: "np.ndarray", tokens: int, title: str | None = None) -> "Figure":
    """A histogram of firing rates over decades; the dead have a bar of their own on the left.

    fired: on how many tokens each latent fires; title: by default, how many are dead.
    """
    figure = new_canvas(7.2, 4.2)
    axis = figure.subplots()
    rates, low = fired[fired > 0] / tokens, 1 / tokens
    edges = np.geomspace(low * 0.999, 1.0, 31) if tokens > 1 else np.array([0.5, 1.0])
    counts, _ = np.histogram(rates, edges)
    axis.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=COLORS[2], label="alive")
    ratio = edges[1] / edges[0]
    axis.bar(
        low / ratio**3, int((fired == 0).sum()), width=low / ratio**3 * (ratio - 1), color=COLORS[1], label="dead"
    )
    axis.set_xscale("log")
    axis.set_xlabel(f"share of {tokens:,} tokens on which a latent fires")
    axis.set_ylabel("latents")
    title = title or f"{(fired == 0).mean():.1%} of {len(fired):,} latents are dead"
    axis.set_title(title, loc="left", fontsize=10)
    draw_grid(axis)
    axis.legend(frameon=False, fontsize=9)
    return figure


def evaluation_figure(evaluation: Evaluation) -> "Figure":
    """How many latents fire how often on held-out tokens, under the error."""
    fvu = fvu_text(evaluation.fvu_raw)
    fates = evaluation.fates
    title = f"raw FVU {fvu}, L0 {evaluation.l0:.1f}, {fates.dead:.1%} of {len(fates.fired):,} latents are dead"
    return rates_figure(fates.fired.cpu().numpy(), fates.tokens, title)


def recentring_figure(cost: RecentringCost) -> "Figure":
    """The error before and after dead latents were re-centred."""
    pairs = {
        "raw FVU before": cost.fvu_before,
        "raw FVU after": cost.fvu_after,
        "FVU without strays before": cost.fvu_typical_before,
        "FVU without strays after": cost.fvu_typical_after,
    }
    known = {name: value for name, value in pairs.items() if value is not None}
    known |= {"firings of woken latents": cost.firings_of_woken}
    title = f"{cost.n_woken:,} of {cost.n_dead:,} dead latents wake"
    return fractions_figure(known, title, unit="% of the variance, and of all firings")


def loss_figure(loss: LossRecovered) -> "Figure":
    """The three losses of a model: as it is, with the reconstructions, with the ablation."""
    figure = new_canvas(7.2, 2.6)
    axis = figure.subplots()
    named = {"as it is": loss.loss, "reconstructed": loss.loss_reconstructed, "ablated": loss.loss_ablated}
    axis.barh([*named], [*named.values()], color=COLORS[6], height=0.6)
    axis.invert_yaxis()
    axis.set_xlabel("cross-entropy, nats per token")
    axis.set_title(str(loss).split(":")[0], loc="left", fontsize=10)
    draw_grid(axis)
    return figure
