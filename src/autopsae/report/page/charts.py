"""Charts of points and lines with intervals, as Plotly draws them, each with the table of its numbers.

Plotly takes names and labels for HTML of its own (<b>, <a href>): every text is escaped for it here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from textwrap import wrap
from typing import Any

from autopsae.report.page.parts import Cell, Figure, Number, Table, anchor, write_number
from autopsae.words import printable

# Okabe and Ito's colours, told apart with any colour vision, by the names of the page's palette; the first is black
# on white and white on black.
COLORS = ("@ink", "@vermilion", "@blue", "@orange", "@green", "@pink", "@sky")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "x", "star", "pentagon")
_DASHES = ("solid", "dash", "dot", "dashdot")
_SMALL = 0.01  # fractions up to which an axis goes at least
WIDE = 10.0
"""Largest over smallest value from which an axis is better logarithmic."""
_FEW = 8  # whole numbers along an axis, each of which has a mark
_TICKS = 12  # names along an axis at most: more would cover each other
_MANY = 500  # marks of a series that are drawn smaller, as they cover each other
_LONG = 22  # letters of such a name
_LINE = 8  # letters of a line of it
_NAME = 36  # letters of a name in a legend


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together."""

    name: str
    """Its name in legend and table."""
    x: Sequence[Number]
    """Places along the axis."""
    y: Sequence[Number | None]
    """Values; None where there is none."""
    intervals: Sequence[Sequence[Number] | None] = ()
    """(low, high) of each value; () for none."""
    labels: Sequence[str] = ()
    """A name for each point, shown with its value; () for its place."""
    style: int = 0
    """Which colour, marker and dash."""
    mode: str = "lines+markers"
    """As Plotly names it: lines, markers or both."""
    is_open: bool = False
    """Open markers and a dashed line: what is expected, beside what is counted in the same colour."""
    sizes: Sequence[Number] = ()
    """Pixels of each marker; () for all alike."""
    links: Sequence[str] = ()
    """The anchor of the details of each point, which a click opens."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis of a chart."""

    title: str
    """What is along it, with the unit."""
    form: str = ""
    """How a value is written; ".1%" for fractions, "" for four digits."""
    names: Sequence[str] = ()
    """Names of the places 0, 1, 2, ..."""
    is_log: bool = False
    """Logarithmic; whoever sets it knows that all values are over zero."""

    def write(self, value: Number | None) -> str:
        """A value in words."""
        if value is None:
            return "none"
        return self.names[int(value)] if self.names else write_number(value, self.form)


def chart(
    title: str,
    caption: str,
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    of: str,
    lines: Mapping[str, Number] | None = None,
    bars: bool = False,
    action: str = "",
    has_legend: bool = False,
) -> Figure:
    """A chart of some series. of: what it is about, so that its name on the page is its own; lines: {name: height}
    of lines across the whole chart; bars: drawn as bars from zero; action: what a click does;
    has_legend: also of one series alone, which has a name that the title does not say.
    """
    drawn = [_trace(one, x, y, bars=bars) for one in series]
    heights = (lines or {}).items()
    shapes = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": height,
            "y1": height,
            "line": {"color": "@muted", "dash": "dot"},
        }
        for _, height in heights
    ]
    notes = [
        {
            "xref": "paper",
            "x": 1,
            "y": height,
            "xanchor": "right",
            "yanchor": "bottom",
            "text": label(name),
            "showarrow": False,
        }
        for name, height in heights
    ]
    along = _axis(x, [value for one in series for value in one.x])
    ends = [end for one in series for interval in one.intervals if interval for end in interval]
    upwards = _axis(y, [*(value for one in series for value in one.y if value is not None), *ends])
    layout: dict[str, Any] = {"xaxis": along, "yaxis": upwards, "shapes": shapes, "annotations": notes}
    layout["showlegend"] = has_legend or len(series) > 1
    layout["meta"] = {"forms": [_d3_form(x.form), _d3_form(y.form)]}
    if bars:
        layout["barmode"] = "group"
    return Figure(
        anchor=anchor("figure", of, title),
        title=title,
        caption=caption,
        action=action,
        drawn={"data": drawn, "layout": layout},
        table=_table(title, series, x, y),
    )


def label(name: str, longest: int = _NAME) -> str:
    """A name as Plotly shows it letter by letter, cut in the middle where it is longer."""
    return escape(_cut(name, longest))


def _label_in_lines(name: str) -> str:
    """A name along an axis in short lines, broken between its words alone: Plotly would turn a long line."""
    lines = wrap(_cut(name, _LONG), _LINE, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(escape, lines))


def _cut(name: str, longest: int) -> str:
    """A name on one line, cut in the middle where it is longer."""
    name = printable(name)
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[-(longest // 2 - 1) :]}"


def _trace(one: Series, x: Axis, y: Axis, *, bars: bool) -> dict[str, Any]:
    color = COLORS[one.style % len(COLORS)]
    dash = "dash" if one.is_open else _DASHES[one.style // len(COLORS) % len(_DASHES)]
    symbol = _SYMBOLS[one.style % len(_SYMBOLS)] + ("-open" if one.is_open else "")
    trace: dict[str, Any] = {
        "name": label(one.name),
        "x": list(one.x),
        "y": list(one.y),
    }
    if one.labels or x.names or any(one.intervals) or None in one.y:
        trace["hovertext"] = [_hover(one, n, x, y) for n in range(len(one.x))]
    else:
        trace["meta"] = "point"  # the page makes the words itself
    if bars:
        trace |= {"type": "bar", "marker": {"color": color}}
    else:
        many = len(one.x) > _MANY
        size = list(one.sizes) or (4 if many else 8)
        marker = {"color": color, "symbol": symbol, "size": size, "opacity": 0.6 if many else 1}
        line = {"color": color, "dash": dash, "width": 1.6}
        trace |= {"type": "scatter", "mode": one.mode, "marker": marker, "line": line}
        if not many:
            trace["cliponaxis"] = False  # a mark at 0 is drawn whole
    if any(one.intervals):
        up, down = _whiskers(one)
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": up,
            "arrayminus": down,
            "color": color,
            "thickness": 1.2,
            "width": 3,
        }
    if one.links:
        trace["customdata"] = list(one.links)
    return trace


def _d3_form(form: str) -> str:
    """A form of Python as d3 has it: no zeros at the end, and no power of ten where four digits are meant."""
    return form.replace("g", "~g") if form else ",.4~r"


def _whiskers(one: Series) -> tuple[list[Number], list[Number]]:
    """How far each interval reaches above and below its value."""
    pairs = [
        (interval[1] - value, value - interval[0]) if interval and value is not None else (0.0, 0.0)
        for value, interval in zip(one.y, one.intervals, strict=True)
    ]
    return [max(0.0, up) for up, _ in pairs], [max(0.0, down) for _, down in pairs]


def _hover(one: Series, n: int, x: Axis, y: Axis) -> str:
    """What is shown of a point under the name of its series: the page makes its lines of it."""
    where = one.labels[n] if one.labels else f"{x.title} {x.write(one.x[n])}"
    lines = [label(where, 80), f"{label(y.title, 80)}: {label(_words(one, n, y), 80)}"]
    if one.labels and not x.names:
        lines.insert(1, f"{label(x.title, 80)}: {x.write(one.x[n])}")
    return "\n".join(lines)


def _words(one: Series, n: int, y: Axis) -> str:
    """A value with its interval."""
    interval = one.intervals[n] if one.intervals else None
    between = f" ({y.write(interval[0])} to {y.write(interval[1])})" if interval else ""
    return y.write(one.y[n]) + between


def _axis(axis: Axis, values: Sequence[Number]) -> dict[str, Any]:
    """The axis as Plotly draws it. values: along it."""
    drawn: dict[str, Any] = {"title": {"text": label(axis.title, 80)}, "automargin": True}
    if axis.names:
        every = -(-len(axis.names) // _TICKS)
        places = list(range(0, len(axis.names), every))
        drawn |= {"tickvals": places, "ticktext": [_label_in_lines(axis.names[place]) for place in places]}
        # Room for the name of the last place, which Plotly would leave out where it goes beyond the figure.
        drawn |= {"ticklabeloverflow": "allow", "range": [-0.5, len(axis.names) - 0.5]}
    elif axis.form.endswith("%"):
        drawn |= {"tickformat": ".4~%", "rangemode": "tozero"}
        if values and min(values) >= 0 and max(values) < _SMALL:
            drawn["range"] = [-0.03 * _SMALL, _SMALL]  # not 0 to 100 % where all are 0
    if axis.form == ",.0f":
        drawn["tickformat"] = ",d"
        if not values or max(values) - min(values) <= _FEW:
            drawn["dtick"] = 1  # Plotly would write one whole number beside several marks
    if axis.is_log:
        ticks = _log_ticks(min(values), max(values))
        drawn |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return drawn


def _log_ticks(low: Number, high: Number) -> list[float]:
    """1, 2 and 5 of each decade from `low` to `high`, 1 alone over many decades. Plotly would write 0.2 as 2."""
    first, last = floor(log10(low)), ceil(log10(high))
    return [digit * 10.0**n for n in range(first, last + 1) for digit in ((1, 2, 5) if last - first < 4 else (1,))]


def _table(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Table:
    """A row for each place that some series has, in order, and a column for each series; or, where points have
    names of their own, a row for each point.
    """
    caption = f"{title}: the numbers of the figure"
    if any(one.labels for one in series) and not x.names:
        rows = [
            (
                Cell(f"{one.name}: {one.labels[n]}"),
                Cell(x.write(one.x[n]), one.x[n]),
                Cell(_words(one, n, y), one.y[n]),
            )
            for one in series
            for n in range(len(one.x))
        ]
        return Table(caption=caption, header=("point", x.title, y.title), rows=tuple(rows))
    places = sorted({place for one in series for place in one.x})
    columns = [{place: n for n, place in enumerate(one.x)} for one in series]
    by_place: list[tuple[Cell, ...]] = []
    for place in places:
        cells = [
            Cell(_words(one, column[place], y), one.y[column[place]]) if place in column else Cell("")
            for one, column in zip(series, columns, strict=True)
        ]
        by_place.append((Cell(x.write(place), place), *cells))
    return Table(caption=caption, header=(x.title, *(one.name for one in series)), rows=tuple(by_place))
