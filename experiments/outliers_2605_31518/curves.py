"""Curves over training: kept as text in JSON, drawn by gamma, and the collapse window found in them.

The data of a sweep have the curves of the first draw in "runs", and those of the others in "further", a dictionary
with "runs" for each. What is drawn and judged is the mean over draws; bands reach from the lowest to the highest.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from experiments.outliers_2605_31518.frame import Data
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONDITIONS = {"baseline": "baseline", "frozen": "bias frozen", "auxk": "AuxK"}


def packed(values: list[float], digits: int = 4) -> str:
    """Numbers in one line of JSON instead of one line each."""
    return " ".join(f"{round(value, digits):g}" for value in values)


def unpacked(text: str) -> list[float]:
    """The numbers of `packed`."""
    return [float(number) for number in text.split()]


def draws_of(data: Data) -> list[Data]:
    """Each draw as data of its own."""
    return [{**data, **draw, "further": []} for draw in ({}, *data["further"])]


def courses(data: Data, gamma: float, condition: str, *names: str) -> NDArray[np.float64]:
    """[draws, records]: the curve of each draw of a gamma and condition; of several curves, their sum."""
    runs = [draw["runs"][f"{condition} {gamma:g}"] for draw in draws_of(data)]
    return np.array([np.sum([unpacked(run[name]) for name in names], axis=0) for run in runs])


def curve(data: Data, gamma: float, condition: str, *names: str) -> list[float]:
    """The mean of `courses` over draws."""
    mean: list[float] = courses(data, gamma, condition, *names).mean(axis=0).tolist()
    return mean


DEAD = ("relu", "topk")
"""The curves whose sum is all that are dead."""


def band(axis: "Axes", steps: list[int], values: NDArray[np.float64], style: str = "-", **line: Any) -> None:
    """The mean over draws, and a band from the lowest to the highest draw."""
    axis.plot(steps, values.mean(axis=0), style, **line)
    low, high = values.min(axis=0), values.max(axis=0)
    axis.fill_between(steps, low, high, color=line["color"], alpha=0.16, linewidth=0)


def some_of(data: Data, runs: list[str], names: list[str]) -> Data:
    """Those curves alone, with steps and settings: what a figure keeps of the sweep."""
    first, *further = (
        {"runs": {run: {name: draw["runs"][run][name] for name in names} for run in runs}}
        for draw in draws_of(data)
    )
    kept = {name: data[name] for name in ("settings", "gammas", "steps")}
    return {**kept, "draws": 1 + len(further), **first, "further": further}


def window(threshold: list[float], topk: list[float]) -> tuple[int, int]:
    """The collapse window, as places in the curves.

    With the threshold's peak and the lowest value that follows it: from the last record before the fall that is
    still over 90 % of the way up to the first that is under 10 %, and on as long as dead-by-TopK falls by at least
    0.01 from record to record.
    """
    peak = threshold.index(max(threshold))
    low, high = min(threshold[peak:]), threshold[peak]
    after = range(peak, len(threshold))
    end = next(at for at in after if threshold[at] <= low + 0.1 * (high - low))
    start = max((at for at in range(peak, end) if threshold[at] >= low + 0.9 * (high - low)), default=peak)
    while end + 1 < len(topk) and topk[end] - topk[end + 1] >= 0.01 - 1e-9:
        end += 1
    return start, end


def collateral(data: Data, gamma: float, condition: str) -> dict[str, Any]:
    """Of the draws of a gamma and condition: each one's window ("each", as `collateral_of_draw`), and the mean of
    what rose and fell, whose ratio is that of the means (None where dead-by-TopK did not fall).
    """
    each = [collateral_of_draw(draw, gamma, condition) for draw in draws_of(data)]
    before, fall, rise = (float(np.mean([found[name] for found in each])) for name in ("before", "fall", "rise"))
    ratio = round(rise / fall, 4) if fall > 0 else None
    mean = {"before": round(before, 4), "fall": round(fall, 4), "rise": round(rise, 4), "ratio": ratio}
    return {"gamma": gamma, **mean, "each": each}


def collateral_of_draw(data: Data, gamma: float, condition: str) -> dict[str, Any]:
    """The collapse window of a run; how far dead-by-ReLU rose before it; how far dead-by-TopK fell and dead-by-ReLU
    rose in it, and their ratio (None where dead-by-TopK did not fall).
    """
    relu, topk, threshold = (curve(data, gamma, condition, name) for name in ("relu", "topk", "threshold"))
    start, end = window(threshold, topk)
    fall, rise = topk[start] - topk[end], relu[end] - relu[start]
    return {
        "start": data["steps"][start],
        "end": data["steps"][end],
        "before": round(relu[start] - relu[0], 4),
        "fall": round(fall, 4),
        "rise": round(rise, 4),
        "ratio": round(rise / fall, 4) if fall > 0 else None,
    }


def first_at_least(steps: list[int], values: list[float], wanted: float) -> int | None:
    """The first recorded step at which a curve is there; None if it never is."""
    return next((step for step, value in zip(steps, values, strict=True) if value >= wanted), None)


def gamma_colours(gammas: list[float]) -> dict[float, Any]:
    """A sequential map, light to dark with gamma, without its palest end."""
    from matplotlib import colormaps

    shades = colormaps["viridis_r"]
    last = max(1, len(gammas) - 1)
    return {gamma: shades(0.08 + 0.92 * place / last) for place, gamma in enumerate(sorted(gammas))}


def step_axis(axis: "Axes", steps: list[int]) -> None:
    """Training steps, in thousands."""
    axis.set_xlim(0, steps[-1])
    axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}")
    axis.set_xlabel("training step (thousands)")


def about(data: Data) -> str:
    """The settings, for a title."""
    settings = data["settings"]
    return f"Adam, lr {settings['lr']:g}, {settings['batch_tokens']} tokens a step, {data['draws']} draws"
