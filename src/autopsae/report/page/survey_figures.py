"""The figures of a diagnosis: death by layer and remedy, forecasts, gamma, the formula, outlier dimensions."""

from collections.abc import Mapping, Sequence
from typing import Any

from autopsae.diagnosis.survey import COMPARED
from autopsae.report.page.charts import Axis, Series, chart
from autopsae.report.page.parts import Cell, Figure, Number, Table, count, number, percent
from autopsae.report.text import REMEDIES

Layer = Mapping[str, Any]

DIMENSION = ("dimension", "mean", "standard deviation", "share of ||mu||²")
"""The columns of a table of outlier dimensions."""


def remedies_of(layers: Sequence[Layer]) -> list[str]:
    """The remedies that every layer was counted under."""
    return [name for name in COMPARED if all(name in layer["birth"] for layer in layers)]


def survey_figures(name: str, layers: Sequence[Layer], links: Sequence[str]) -> tuple[Figure, ...]:
    """All figures of a diagnosis. name: of the result; links: the anchor of each layer's details."""
    axis = Axis(title="layer", names=[layer["layer"] for layer in layers])
    return (
        _born_dead(name, layers, links, axis),
        _forecasts(name, layers, links, axis),
        _gamma(name, layers, links, axis),
        *_formula(name, layers, links),
        *_outliers(name, layers, links, axis),
    )


def _along(title: str, y: Sequence[Number | None], style: int, links: Sequence[str], **more: Any) -> Series:
    """A value of each layer."""
    return Series(name=title, x=list(range(len(y))), y=y, style=style, links=links, **more)


def tokens_of(layers: Sequence[Layer]) -> str:
    """On how many tokens death was counted, in words."""
    return " / ".join(f"{n:,}" for n in sorted({layer["birth"]["none"]["tokens"] for layer in layers}))


def _born_dead(name: str, layers: Sequence[Layer], links: Sequence[str], axis: Axis) -> Figure:
    series = [
        _along(
            REMEDIES[remedy],
            [layer["birth"][remedy]["dead"] for layer in layers],
            style,
            links,
            intervals=[layer["birth"][remedy].get("dead_interval") for layer in layers],
        )
        for style, remedy in enumerate(remedies_of(layers))
    ]
    return chart(
        "Latents born dead, by layer and remedy",
        f"The fraction of the latents that fire on none of {tokens_of(layers)} tokens. Whiskers are 90 % "
        "intervals, where the fraction was estimated from a sample.",
        series,
        action="Click a layer for its details.",
        x=axis,
        y=Axis(title="dead latents", form=".1%"),
        of=name,
    )


def _forecasts(name: str, layers: Sequence[Layer], links: Sequence[str], axis: Axis) -> Figure:
    """Without a remedy and under the prescribed one: the count, and beside it the forecast with its interval."""
    prescribed = [layer["prescription"]["remedy"] for layer in layers]
    series = []
    for title, remedies, style in (("no remedy", ["none"] * len(layers), 0), ("prescribed", prescribed, 5)):
        pairs = list(zip(layers, remedies, strict=True))
        born = [layer["birth"].get(remedy, {}) for layer, remedy in pairs]
        later = [layer["expected"][remedy]["dead"] for layer, remedy in pairs]
        now, intervals = [one.get("dead") for one in born], [one.get("dead_interval") for one in born]
        between = [(one["low"], one["high"]) for one in later]
        values = [one["value"] for one in later]
        series += [
            _along(f"{title}, now", now, style, links, intervals=intervals),
            _along(f"{title}, expected", values, style, links, intervals=between, is_open=True),
        ]
    return chart(
        "Counted now, and expected on more tokens",
        f"Filled: born dead on {tokens_of(layers)} tokens. Open: expected dead on "
        f"{layers[0]['expected']['none']['tokens']:,} tokens, with 90 % intervals.",
        series,
        x=axis,
        y=Axis(title="dead latents", form=".1%"),
        of=name,
    )


def _gamma(name: str, layers: Sequence[Layer], links: Sequence[str], axis: Axis) -> Figure:
    values, intervals = [layer["gamma"] for layer in layers], [layer.get("gamma_interval") for layer in layers]
    return chart(
        "How far the mean outweighs the spread (gamma)",
        "Over 1, the mean begins to decide which latents fire; over 3, most latents are born dead without "
        "centering. Whiskers are 90 % intervals.",
        [_along("gamma", values, 1, links, intervals=intervals)],
        x=axis,
        y=Axis(title="gamma"),
        of=name,
        lines={"1": 1.0},
    )


def _formula(name: str, layers: Sequence[Layer], links: Sequence[str]) -> tuple[Figure, ...]:
    """The paper's formula against the count; none where it has no formula."""
    known = [n for n, layer in enumerate(layers) if layer["predicted"]["dead"] is not None]
    if not known:
        return ()
    points = Series(
        name="layers",
        x=[layers[n]["predicted"]["dead"] for n in known],
        y=[layers[n]["birth"]["none"]["dead"] for n in known],
        intervals=[layers[n]["birth"]["none"].get("dead_interval") for n in known],
        labels=[layers[n]["layer"] for n in known],
        links=[links[n] for n in known],
        style=1,
        mode="markers",
    )
    figure = chart(
        "The paper's formula against the count",
        "Each point is a layer without remedy; on the diagonal both say the same. The formula knows gamma only.",
        [points],
        x=Axis(title="dead by the formula", form=".1%"),
        y=Axis(title="dead as counted", form=".1%"),
        of=name,
    )
    top = max(*points.x, *(value for value in points.y if value is not None), 0.01)
    diagonal = {"type": "line", "x0": 0, "y0": 0, "x1": top, "y1": top, "line": {"color": "@muted", "dash": "dot"}}
    figure.drawn["layout"]["shapes"].append(diagonal)
    return (figure,)


def _outliers(name: str, layers: Sequence[Layer], links: Sequence[str], axis: Axis) -> tuple[Figure, ...]:
    """Which dimensions hold the mean, layer by layer; none where no layer has any."""
    marks = [(n, dimension) for n, layer in enumerate(layers) for dimension in layer["outlier_dimensions"]]
    if not marks:
        return ()
    points = Series(
        name="outlier dimensions",
        x=[n for n, _ in marks],
        y=[dimension["index"] for _, dimension in marks],
        labels=[_dimension_words(layers[n]["layer"], dimension) for n, dimension in marks],
        sizes=[4 + 14 * max(0.0, dimension["share"]) ** 0.5 for _, dimension in marks],
        links=[links[n] for n, _ in marks],
        style=0,
        mode="markers",
    )
    figure = chart(
        "Outlier dimensions",
        "The dimensions that hold 90 % of the squared norm of the mean after LayerNorm, at most ten of a layer. "
        "The area of a mark is its share.",
        [points],
        action="Click a mark for the details of its layer.",
        x=axis,
        y=Axis(title="dimension", form=".0f"),
        of=name,
    )
    d_in = max(layer["d_in"] for layer in layers)
    figure.drawn["layout"]["yaxis"]["range"] = [-0.03 * d_in, 1.03 * d_in]
    rows = tuple((Cell(layers[n]["layer"], None, links[n]), *dimension_cells(dimension)) for n, dimension in marks)
    table = Table(caption=f"{figure.title}: the numbers of the figure", header=("layer", *DIMENSION), rows=rows)
    return (Figure(**{**vars(figure), "table": table}),)


def _dimension_words(layer: str, dimension: Mapping[str, Any]) -> str:
    index, mean, std, share = (dimension[key] for key in ("index", "mean", "std", "share"))
    return f"{layer}, dimension {index}: {mean:+.3g} ± {std:.2g}, {share:.0%} of ||mu||²"


def dimension_cells(dimension: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The row of an outlier dimension."""
    spread = (number(dimension["mean"], "+.4g"), number(dimension["std"]))
    return (count(dimension["index"]), *spread, percent(dimension["share"]))
