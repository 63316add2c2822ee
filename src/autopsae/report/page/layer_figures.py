"""The figures of one layer in a diagnosis: death by remedy with its forecast, the spectrum, the landscape."""

from collections.abc import Mapping
from typing import Any

from autopsae.report.page.charts import WIDE, Axis, Series, chart
from autopsae.report.page.parts import Cell, Figure, Table, number
from autopsae.report.page.survey_figures import DIMENSION, dimension_cells
from autopsae.report.text import REMEDIES

Layer = Mapping[str, Any]
_ROWS = 12  # of the table of a spectrum, at most


def layer_figures(layer: Layer, of: str) -> tuple[Figure, ...]:
    """What is known of one layer. The JSON of an earlier version has neither spectrum nor landscape."""
    return (_deaths(layer, of), *_spectrum(layer, of), *_landscape(layer, of))


def _deaths(layer: Layer, of: str) -> Figure:
    names = [*layer["birth"]]
    births = [layer["birth"][name] for name in names]
    known = [n for n, name in enumerate(names) if name in layer["expected"]]
    later = [layer["expected"][names[n]]["dead"] for n in known]
    at, tokens = layer["expected"]["none"]["tokens"], births[0]["tokens"]
    counted = Series(
        name=f"born dead, on {tokens:,} tokens",
        x=list(range(len(names))),
        y=[birth["dead"] for birth in births],
        intervals=[birth.get("dead_interval") for birth in births],
        mode="markers",
    )
    expected = Series(
        name=f"expected, on {at:,} tokens",
        x=known,
        y=[one["value"] for one in later],
        intervals=[(one["low"], one["high"]) for one in later],
        mode="markers",
        is_open=True,
    )
    figure = chart(
        f"{layer['layer']}: dead latents by remedy",
        "Filled: as counted or estimated now. Open: as forecast, for the remedies up to the one prescribed. "
        "Whiskers are 90 % intervals.",
        [counted, expected],
        x=Axis(title="remedy", names=[REMEDIES.get(name, name) for name in names]),
        y=Axis(title="dead latents", form=".1%"),
        of=of,
    )
    figure.drawn["data"][1]["x"] = [n + 0.15 for n in known]  # beside the count
    return figure


def _spectrum(layer: Layer, of: str) -> tuple[Figure, ...]:
    if "spectrum" not in layer:
        return ()
    pairs = zip(layer["spectrum"]["directions"], layer["spectrum"]["variances"], strict=True)
    known = [(n, variance) for n, variance in pairs if variance > 0 and n > 0]
    if not known:
        return ()
    line = Series(name="variance", x=[n for n, _ in known], y=[v for _, v in known], style=2)
    title = f"{layer['layer']}: spectrum"
    figure = chart(
        title,
        "The share of the variance along each principal direction, largest first. The effective rank "
        f"after LayerNorm is {layer['effective_rank']:.1f} of {layer['d_in']:,}.",
        [line],
        x=Axis(title="principal direction", form=",", is_log=True),
        y=Axis(title="share of the variance", is_log=known[0][1] > WIDE * known[-1][1]),
        of=of,
    )
    few = known[:: -(-len(known) // _ROWS)]
    rows = tuple((Cell(f"{n:,}", n), number(variance)) for n, variance in few)
    caption = f"{title}: some numbers of the figure"
    return (_with_table(figure, Table(caption=caption, header=("direction", "share of the variance"), rows=rows)),)


def _landscape(layer: Layer, of: str) -> tuple[Figure, ...]:
    if "landscape" not in layer:
        return ()
    own, outliers = layer["landscape"], layer["outlier_dimensions"]
    ends = [*own["dimensions"][1:], layer["d_in"]]
    line = Series(
        name="size of the largest",
        x=own["dimensions"],
        y=own["sizes"],
        labels=[f"dimensions {a} to {b - 1}" for a, b in zip(own["dimensions"], ends, strict=True)],
        style=2,
        mode="lines",
    )
    marks = Series(
        name="outlier dimensions",
        x=[one["index"] for one in outliers],
        y=[abs(one["mean"]) for one in outliers],
        labels=[f"dimension {one['index']}, {one['share']:.0%} of ||mu||²" for one in outliers],
        style=1,
        mode="markers",
    )
    title = f"{layer['layer']}: landscape"
    figure = chart(
        title,
        "After LayerNorm, where the typical size is 1: the largest size in each group of neighbouring dimensions, "
        "on the median token. Marked: the size of the mean in the dimensions that hold most of it.",
        [line, *([marks] if outliers else [])],
        x=Axis(title="dimension", form=","),
        y=Axis(title="size"),
        of=of,
    )
    rows = tuple(dimension_cells(one) for one in outliers)
    return (_with_table(figure, Table(caption=f"{title}: outlier dimensions", header=DIMENSION, rows=rows)),)


def _with_table(figure: Figure, table: Table) -> Figure:
    return Figure(**{**vars(figure), "table": table})
