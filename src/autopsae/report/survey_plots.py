"""Figures of a diagnosis: death at birth by layer and remedy, counted and forecast; the activation landscape."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.survey import COMPARED, Survey
from autopsae.report.plots import (
    COLORS,
    MARKERS,
    draw_grid,
    draw_legend,
    fit_percent,
    in_own_style,
    label,
    name_places,
    new_canvas,
    shorten_names,
    whiskers,
)
from autopsae.report.text import REMEDIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LANDSCAPES = 3
_MARKED = 0.05  # share of ||mu||^2 from which a dimension is marked in a landscape
_NEAR = 0.07  # share of the width within which two marks stand one over the other
_BRIGHTEST = 6.0  # colour limit of a landscape, in a token's own standard deviations
_ASIDE = 0.18  # places by which a forecast stands beside its count
_MANY = 20  # layers from which a figure becomes wider
_FORECAST: dict[str, Any] = {"linestyle": "", "markerfacecolor": "white", "markersize": 6, "capsize": 2}


@in_own_style
def survey_figure(survey: Survey) -> "Figure":
    """Above: dead fraction at birth by layer, a line for each remedy, with 90 % intervals where it was estimated,
    and beside it, open, what is forecast without a remedy and under the prescribed one. Below: |activation| after
    per-token LayerNorm, tokens by dimensions, of the layers with the largest, the middle and the smallest gamma
    (the paper's Fig. 2b), with a mark over each dimension that holds 5 % of ||mu||^2 or more.

    A survey of one layer is drawn as `diagnosis_figure` draws it.
    """
    if len(survey) == 1:
        return diagnosis_figure(survey.diagnoses[0])
    figure = new_canvas(11 + 0.09 * max(0, len(survey) - _MANY), 7.6)
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    top, bottom = halves
    _draw_death(top.subplots(), survey)
    own, _ = shorten_names([diagnosis.layer for diagnosis in survey])
    names = {d.layer: name for d, name in zip(survey, own, strict=True)}
    shown = _landscape_layers(survey)
    _draw_landscapes(bottom, shown, [names[diagnosis.layer] for diagnosis in shown])
    return figure


def diagnosis_figure(diagnosis: Diagnosis) -> "Figure":
    """On the left the dead fraction at birth under each remedy, with its interval, and beside it, open, what is
    forecast; on the right the layer's landscape.
    """
    figure = new_canvas(11, max(4.2, 1.6 + 0.34 * len(diagnosis.birth)))
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    left, right = halves
    _draw_remedies(left.subplots(), diagnosis)
    _draw_landscapes(right, [diagnosis], [diagnosis.layer])
    return figure


def _draw_death(axis: "Axes", survey: Survey) -> None:
    places, tops = range(len(survey)), [0.0]
    for n, name in enumerate(COMPARED):
        births = [diagnosis.birth[name] for diagnosis in survey]
        dead, intervals = [100 * one.dead for one in births], [_percent(one.dead_interval) for one in births]
        style: dict[str, Any] = {"color": COLORS[n], "marker": MARKERS[n], "markersize": 4.5, "linewidth": 1.4}
        axis.errorbar(places, dead, yerr=whiskers(dead, intervals), elinewidth=0.8, label=REMEDIES[name], **style)
        tops += dead
    forms = [diagnosis.predicted.dead for diagnosis in survey]
    if None not in forms:
        predicted = [100 * (dead or 0.0) for dead in forms]
        axis.plot(places, predicted, color="0.6", linestyle="--", linewidth=1.2, label="closed form from gamma")
        tops += predicted
    tops += _draw_forecasts(axis, survey)
    fit_percent(axis, tops)
    axis.set_title(_title(next(iter(survey)), survey), loc="left", fontsize=11)
    name_places(axis, [diagnosis.layer for diagnosis in survey], "layer")
    axis.set_ylabel("dead latents, %")
    draw_grid(axis)
    draw_legend(axis)


def _draw_forecasts(axis: "Axes", survey: Survey) -> list[float]:
    """What is expected without a remedy and under the prescribed one, beside the counts; returns the upper ends."""
    at, ends = next(iter(survey)).expected["none"].tokens, list[float]()
    for words, color, marker in (("no remedy", COLORS[0], "o"), ("as prescribed", COLORS[5], "*")):
        named = ["none" if words == "no remedy" else d.prescription.remedy.name for d in survey]
        expected = [d.expected[name].dead for d, name in zip(survey, named, strict=True)]
        values = [100 * one.value for one in expected]
        between = whiskers(values, [(100 * one.low, 100 * one.high) for one in expected])
        axis.errorbar(
            [place + _ASIDE for place in range(len(survey))],
            values,
            yerr=between,
            color=color,
            marker=marker,
            label=f"{words}, expected on {at:,}",
            elinewidth=0.8,
            **_FORECAST,
        )
        ends += [100 * one.high for one in expected]
    return ends


def _draw_remedies(axis: "Axes", diagnosis: Diagnosis) -> None:
    names = [*diagnosis.birth]
    births = [diagnosis.birth[name] for name in names]
    dead = [100 * one.dead for one in births]
    style: dict[str, Any] = {"color": COLORS[0], "marker": "o", "markersize": 6, "linestyle": "", "capsize": 2}
    places = [float(n) for n in range(len(names))]
    intervals = [_percent(one.dead_interval) for one in births]
    how = births[0].how
    axis.errorbar(dead, places, xerr=whiskers(dead, intervals), label=f"{how} on {births[0].tokens:,}", **style)
    known = [(n, diagnosis.expected[name].dead) for n, name in enumerate(names) if name in diagnosis.expected]
    later = [100 * one.value for _, one in known]
    at = diagnosis.expected["none"].tokens
    axis.errorbar(
        later,
        [n + _ASIDE for n, _ in known],
        xerr=whiskers(later, [(100 * one.low, 100 * one.high) for _, one in known]),
        color=COLORS[2],
        marker="D",
        label=f"expected on {at:,}",
        **_FORECAST,
    )
    ends = [one[1] for one in intervals if one]
    top = max([1.0, *dead, *ends, *(100 * one.high for _, one in known)])
    axis.set_xlim(-0.03 * top, 1.05 * top)
    chosen = diagnosis.prescription.remedy.name
    shown = [f"{label(REMEDIES.get(name, name))}{' (prescribed)' * (name == chosen)}" for name in names]
    axis.set_yticks(places, shown)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel("dead latents, %")
    axis.set_title(_title(diagnosis), loc="left", fontsize=10)
    draw_grid(axis)
    draw_legend(axis, beside=False)


def _title(first: Diagnosis, survey: Survey | None = None) -> str:
    tokens = sorted({diagnosis.birth["none"].tokens for diagnosis in survey or (first,)})
    on = " / ".join(f"{n:,}" for n in tokens)
    return f"Latents born dead (d_sae = {first.d_sae:,}, {first.sparsity}, {on} tokens)"


def _percent(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def _draw_landscapes(figure: Any, shown: Sequence[Diagnosis], names: Sequence[str]) -> None:
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, diagnosis, name in zip(axes, shown, names, strict=True):
        image = _draw_landscape(axis, diagnosis, name)
    figure.colorbar(image, ax=list(axes), label="|activation|, LayerNormed", extend="max", shrink=0.9)


def _draw_landscape(axis: "Axes", diagnosis: Diagnosis, name: str) -> Any:
    image = axis.imshow(
        diagnosis.landscape.abs().numpy(),
        aspect="auto",
        cmap="magma",
        vmin=0,
        vmax=_BRIGHTEST,
        interpolation="nearest",
    )
    _mark_outliers(axis, diagnosis)
    gamma, dead = diagnosis.severity.gamma, diagnosis.birth["none"].dead
    axis.set_title(f"{label(name)}\ngamma {gamma:.2f}, {dead:.0%} born dead", fontsize=10, loc="left", pad=31)
    axis.set_xlabel("dimension")
    axis.set_ylabel("token")
    return image


def _mark_outliers(axis: "Axes", diagnosis: Diagnosis) -> None:
    """A triangle and the index over each dimension that holds much of the mean; those of neighbours one over the
    other.
    """
    before, row = -float("inf"), 0
    for dimension in sorted(diagnosis.outlier_dimensions, key=lambda one: one.index):
        if dimension.share < _MARKED:
            continue
        row = (row + 1) % 3 if dimension.index - before < _NEAR * diagnosis.d_in else 0
        before = dimension.index
        above = axis.get_xaxis_transform()  # x in dimensions, y in heights of the axes
        axis.plot(dimension.index, 1.02, marker="v", markersize=4, color=COLORS[1], clip_on=False, transform=above)
        axis.annotate(
            f"{dimension.index}",
            (dimension.index, 1.02),
            xycoords=above,
            xytext=(0, 3 + 7 * row),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            annotation_clip=False,
        )


def _landscape_layers(survey: Survey) -> list[Diagnosis]:
    """The most severe layer, the middle one and the mildest; all of them where there are no more than three."""
    by_gamma = sorted(survey, key=lambda diagnosis: -diagnosis.severity.gamma)
    if len(by_gamma) <= _LANDSCAPES:
        return by_gamma
    return [by_gamma[0], by_gamma[len(by_gamma) // 2], by_gamma[-1]]
