"""What all figures for papers share: how they are written, their colours, and axes that fit names and numbers."""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.files import write_whole
from autopsae.words import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from autopsae.report.canvas import Canvas

Given = ParamSpec("Given")
Made = TypeVar("Made")

# Okabe and Ito's colours, told apart with any colour vision; a marker each, as lines cover each other.
COLORS = ("#000000", "#D55E00", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
"""A colour for each series."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")
"""A marker for each series."""
_TICKS = 30  # names along an axis at most: more would cover each other
_LONG = 26  # letters of such a name
_TURNED = 16  # letters where names are turned, as they take their room from the figure
_UPRIGHT = 60  # letters of all names of an axis, up to which they stand side by side
_WHOLE = 60.0  # percent from which the axis of a fraction goes up to 100


def in_own_style(draw: Callable[Given, Made]) -> Callable[Given, Made]:
    """`draw` under `canvas.own_style`. Raises InputError where matplotlib is missing."""

    @wraps(draw)
    def draw_so(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        with _canvas().own_style():
            return draw(*args, **kwargs)

    return draw_so


def new_canvas(width: int | float, height: int | float) -> "Canvas":
    """An empty figure of so many inches. Raises InputError where matplotlib is missing."""
    canvas: Canvas = _canvas().Canvas(width, height)
    return canvas


def _canvas() -> Any:
    """The module of that name, which imports matplotlib."""
    try:
        return import_module("autopsae.report.canvas")
    except ImportError as error:
        raise package_error("a figure", "matplotlib", error, install="autopsae[report]") from error


def write_figure(path: str | Path, draw: Callable[[], "Figure"]) -> None:
    """Write what `draw` returns as .png, .pdf or .svg, whole or not at all. Nothing is drawn where `check_figure`
    raises.
    """
    path = Path(path)
    check_figure(path)
    figure = draw()
    with warnings.catch_warnings(), _canvas().own_style():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # of a name; a box stands for it
        write_whole(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], dpi=150))


def check_figure(path: Path) -> None:
    """InputError unless a figure can be written under this name: to be known before hours of work, not after."""
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"{path}: expected a figure named .png, .pdf or .svg, got {path.suffix or 'no suffix'!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise package_error(f"{path}", "matplotlib", error, install="autopsae[report]") from error


def label(name: object, longest: int = _LONG) -> str:
    """A name as it is drawn: on one line, cut in the middle where it is long, and never taken for mathematics."""
    name = printable(name)
    if len(name) > longest:
        name = f"{name[: longest // 2]}…{name[-(longest // 2 - 1) :]}"
    return name.replace("$", r"\$")


def shorten_names(names: Sequence[str]) -> tuple[list[str], str]:
    """(the part of each name that tells it from the others, all that they share with * for that part).

    ["blocks.0.mlp", "blocks.1.mlp"] -> (["0", "1"], "blocks.*.mlp"). Short names, and names that share nothing,
    stay as they are, and what is shared is "".
    """
    whole = [*names], ""
    if len({*names}) < 2 or max(map(len, names)) <= len("hs1000"):
        return whole
    # Words and numbers, and what is between them: 10 and 11 do not become 0 and 1.
    parts = [re.findall(r"[^\W_]+|[\W_]+", name) for name in names]
    before = _count_shared(parts)
    after = _count_shared([[*reversed(own[before:])] for own in parts])
    own = ["".join(some[before : len(some) - after]) for some in parts]
    if not before + after or not all(own):
        return whole
    return own, f"{''.join(parts[0][:before])}*{''.join(parts[0][len(parts[0]) - after :])}"


def _count_shared(lists: Sequence[Sequence[str]]) -> int:
    """How many entries all lists have in common at their beginning."""
    return next((n for n, some in enumerate(zip(*lists, strict=False)) if len({*some}) > 1), min(map(len, lists)))


def name_places(axis: "Axes", names: Sequence[str], what: str) -> None:
    """The names of the places 0, 1, 2, ... along x, thinned where there are many. what: "layer"."""
    own, shared = shorten_names(names)
    every = -(-len(own) // _TICKS)
    places, shown = range(0, len(own), every), [label(name) for name in own[::every]]
    letters = sum(len(name) + 2 for name in shown)
    turned = letters > _UPRIGHT
    shown = [label(name, _TURNED) for name in own[::every]] if turned else shown
    axis.set_xticks(places, shown, rotation=60 if turned else 0, ha="right" if turned else "center")
    if turned:
        for tick in axis.get_xticklabels():
            tick.set_rotation_mode("anchor")
    axis.set_xlabel(f"{what} ({label(shared, 60)})" if shared else what)
    axis.set_xlim(-0.6, len(names) - 0.4)


def fit_percent(axis: "Axes", values: Sequence[float]) -> None:
    """Limits along y that fit fractions in percent: 0 to 100 where some are large, and at least one percent."""
    top = max([1.0, *values])
    top = 100.0 if top > _WHOLE else 1.1 * top
    axis.set_ylim(-0.03 * top, 1.03 * top)


def draw_grid(axis: "Axes") -> None:
    """A light grid, and a frame that is open above and on the right."""
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def draw_legend(axis: "Axes", *, beside: bool = True) -> None:
    """The legend, on the right of the axes or under them; none for a single series."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        under = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
        axis.legend(handles, labels, frameon=False, fontsize=9, **(place if beside else under))


def whiskers(values: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> list[list[float]]:
    """How far each interval reaches below and above its value, as `errorbar` takes it; 0 where there is none."""
    pairs = [(value, interval or (value, value)) for value, interval in zip(values, intervals, strict=True)]
    return [[max(0.0, v - low) for v, (low, _) in pairs], [max(0.0, high - v) for v, (_, high) in pairs]]
