"""The figure of a saved run or sweep: the curves of its training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopsae.arrays import InputError
from autopsae.report.page.read import Curves, read_result
from autopsae.report.plots import COLORS, draw_grid, fit_percent, in_own_style, label, new_canvas, write_figure
from autopsae.report.training_plots import draw_curve, fit_errors, training_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 20  # members in the legend; the others are grey
_DASHES = ("-", "--", ":", "-.")


def save_run_figure(folder: str | Path, path: str | Path) -> None:
    """Write the curves of a finished run, or of all members of a sweep, as .png, .pdf or .svg, whole or not at all.
    Of many records, 300 at equal steps are drawn.

    Raises InputError for another suffix, for a folder that is no finished run or sweep, and where it has no records
    or matplotlib is missing.
    """
    write_figure(path, lambda: run_figure(folder))


@in_own_style
def run_figure(folder: str | Path) -> "Figure":
    """The figure that `save_run_figure` writes. Raises InputError as it does."""
    saved = read_result(folder)
    if saved.kind == "run":
        own = saved.curves[""]
        return training_figure(own.records, own.held_out)
    if saved.kind != "sweep" or not any(own.records for own in saved.curves.values()):
        raise InputError(f"{folder}: expected the folder of a run or a sweep with its records, got {saved.kind}")
    return _sweep_figure(saved.curves, {name for name in saved.content["best"].values() if name})


def _sweep_figure(curves: Mapping[str, Curves], best: set[str]) -> "Figure":
    """Dead latents and the error of each member, by step. The best one has a thick line. A training that was too
    short to call any latent dead has those that have not fired since step 0.
    """
    figure = new_canvas(11, 4.6)
    axes: Any = figure.subplots(1, 2, sharex=True)
    dead, error = axes
    is_told = any(record.get("dead") is not None for own in curves.values() for record in own.records)
    silent, title = ("dead", "Dead latents") if is_told else ("never_fired", "Not fired since step 0")
    tops, errors = [0.0], list[float]()
    for n, (name, own) in enumerate(sorted(curves.items(), key=lambda item: item[0] not in best)):
        color = COLORS[n % len(COLORS)] if n < _NAMED else "0.8"
        style: dict[str, Any] = {
            "linewidth": 2.6 if name in best else 1.1,
            "linestyle": _DASHES[n // len(COLORS) % len(_DASHES)],
        }
        words = label(f"{name} (best)" if name in best else name) if n < _NAMED else "_"
        tops += draw_curve(dead, own.records, silent, words, color, factor=100.0, **style)
        errors += draw_curve(error, own.records, "fvu", words, color, **style)
    fit_percent(dead, tops)
    fit_errors(error, errors)
    for axis, of, unit in ((dead, title, "latents, %"), (error, "Error", "FVU of the batch")):
        axis.set_title(of, loc="left", fontsize=10)
        axis.set_ylabel(unit)
        axis.set_xlabel("step")
        draw_grid(axis)
    handles, words = error.get_legend_handles_labels()
    if len(curves) > _NAMED:
        words[-1] += f" ({len(curves) - _NAMED} more in grey)"
    figure.legend(handles, words, frameon=False, fontsize=8, loc="outside right upper")
    return figure
