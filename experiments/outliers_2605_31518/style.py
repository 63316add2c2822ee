"""What the figures share: colours that any colour vision tells apart (Okabe and Ito), axes, legends."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
)  # fmt: skip
RELU, TOPK, ALIVE = RED, BLUE, GREEN
"""The colours of a latent's fate, the same in every figure."""
SERIES = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
MARKERS = ("o", "s", "D", "^", "v", "P")


def sheet(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple["Figure", Any]:
    """A figure and its axes, [rows, columns]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize=9)
    return figure, axes


def gamma_axis(axis: "Axes") -> None:
    """Logarithmic, labelled, with plain numbers."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("outlier severity γ = ‖μ‖ / ‖σ‖")


def death_axis(axis: "Axes", label: str = "dead at birth, fraction of latents") -> None:
    """From 0 to 1, with a margin for markers."""
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel(label)


def error_bars(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> list[list[float]]:
    """[below, above]: from each value to the ends of its interval, 0 where an end is on the other side of it."""
    ends = [*zip(values, intervals, strict=True)]
    return [[max(0.0, v - low) for v, (low, _) in ends], [max(0.0, high - v) for v, (_, high) in ends]]


def legend_below(figure: "Figure", axis: "Axes", columns: int) -> None:
    """One legend under all axes, where it covers no data."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
