"""Figures of trainings: the curves of a run, and the trade of a trial."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from autopsae.arrays import InputError
from autopsae.report.plots import (
    COLORS,
    MARKERS,
    draw_grid,
    draw_legend,
    fit_percent,
    in_own_style,
    label,
    new_canvas,
)
from autopsae.training.config import Record
from autopsae.trial.result import Outcome, Point, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
_WIDE = 10.0  # largest over smallest error from which its axis is logarithmic
_FEW = 40  # records up to which each has a marker
_PATHWAYS = {
    "dead": ("dead", COLORS[0]),
    "dead_by_relu": ("dead, never positive", COLORS[1]),
    "dead_by_topk": ("dead, never selected", COLORS[2]),
    "never_fired": ("have not fired since step 0", COLORS[3]),
}


@in_own_style
def training_figure(
    records: Sequence[Record | Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]] = ()
) -> "Figure":
    """The curves of a training by step: dead latents by pathway, the error, the threshold, and the share of the
    mean that `b_dec` holds. Open: measured on held-out tokens.

    records: what `train` returns, or the lines of records.jsonl; held_out: the lines of held_out.jsonl.
    Raises InputError where there is no record, and where matplotlib is missing.
    """
    rows = [asdict(one) if is_dataclass(one) else dict(one) for one in records]
    if not rows:
        raise InputError("training_figure: expected at least one record, got none")
    figure = new_canvas(11, 6.4)
    axes: Any = figure.subplots(2, 2, sharex=True)
    (dead, error), (threshold, captured) = axes
    tops = [0.0]
    for key, (name, color) in _PATHWAYS.items():
        tops += draw_curve(dead, rows, key, name, color, factor=100.0)
    tops += draw_curve(dead, held_out, "dead", "dead, held out", COLORS[4], factor=100.0, is_open=True)
    fit_percent(dead, tops)
    errors = draw_curve(error, rows, "fvu", "FVU of the batch", COLORS[2])
    errors += draw_curve(error, held_out, "fvu_raw", "raw FVU, held out", COLORS[4], is_open=True)
    fit_errors(error, errors)
    draw_curve(threshold, rows, "threshold", "threshold", COLORS[3])
    draw_curve(captured, rows, "bias_captured", "share of the mean", COLORS[1], factor=100.0)
    for axis, title, unit in (
        (dead, "Dead latents", "latents, %"),
        (error, "Error", "FVU"),
        (threshold, "Threshold", "smallest code over 0"),
        (captured, "What b_dec holds of the mean", "share of the mean, %"),
    ):
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel(unit)
        draw_grid(axis)
        # Also of one line, where the title does not say which it is.
        if axis.lines and axis in (dead, error):
            axis.legend(frameon=False, fontsize=8)
    for axis in (threshold, captured):
        axis.set_xlabel("step")
    return figure


def draw_curve(
    axis: "Axes",
    rows: Rows,
    key: str,
    name: str,
    color: str,
    *,
    factor: float = 1.0,
    is_open: bool = False,
    linewidth: float = 1.3,
    linestyle: str = "-",
) -> list[float]:
    """Draw the known values of `key` over the steps done; return them."""
    known = [(row["step"] + 1, factor * row[key]) for row in rows if row.get(key) is not None]
    if known:
        marker = "o" if is_open or len(known) <= _FEW else ""
        fill: dict[str, Any] = {"markerfacecolor": "white"} if is_open else {}
        x, y = zip(*known, strict=True)
        line: dict[str, Any] = {"linewidth": linewidth, "linestyle": linestyle}
        axis.plot(x, y, color=color, marker=marker, markersize=4, label=name, **line, **fill)
    return [value for _, value in known]


def fit_errors(axis: "Axes", errors: Sequence[float], along: str = "y") -> None:
    """A logarithmic axis where errors differ widely and are over 0; one that begins at 0 otherwise."""
    if errors and min(errors) > 0 and max(errors) > _WIDE * min(errors):
        (axis.set_yscale if along == "y" else axis.set_xscale)("log")
    elif errors:
        (axis.set_ylim if along == "y" else axis.set_xlim)(0, 1.08 * max(*errors, 1e-9))


@in_own_style
def trial_figure(trial: Trial) -> "Figure":
    """On the left the trade: a path for each candidate from its birth through the steps at which it was measured to
    what is expected at the end of the training, open. On the right the dead latents by step. The prescribed
    candidate has a thick line.
    """
    figure = new_canvas(11, 4.8)
    axes: Any = figure.subplots(1, 2)
    _draw_trade(axes[0], trial.outcomes, trial.chosen)
    tops = [100 * trial.acceptable]
    for n, outcome in enumerate(trial.outcomes):
        points = _points(outcome)
        dead = [100 * point.dead for point in points]
        axes[1].plot([point.step for point in points], dead, **_style(n, outcome.name == trial.chosen))
        tops += dead
    fit_percent(axes[1], tops)
    axes[1].axhline(100 * trial.acceptable, color="0.4", linewidth=0.8, linestyle=":")
    axes[1].set_xscale("symlog", linthresh=max(1, trial.budget.steps))
    axes[1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes[1].set_xlabel("step; after the trial, as expected")
    axes[1].set_ylabel("dead latents, %")
    axes[1].set_title("Dead latents by step", loc="left", fontsize=10)
    draw_grid(axes[1])
    axes[0].set_title(f"{label(trial.prescription.layer, 40)}: the trade", loc="left", fontsize=10)
    figure.legend(
        *axes[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=4
    )
    return figure


def outcome_figure(outcome: Outcome) -> "Figure":
    """The path of one candidate of a trial: dead latents against the error."""
    figure = new_canvas(6.4, 4.6)
    axis = figure.subplots()
    _draw_trade(axis, [outcome], outcome.name)
    axis.set_title(label(outcome.name, 60), loc="left", fontsize=10)
    draw_legend(axis)
    return figure


def _draw_trade(axis: "Axes", outcomes: Sequence[Outcome], chosen: str) -> None:
    errors, tops = list[float](), list[float]()
    for n, outcome in enumerate(outcomes):
        points = [(p.fvu_raw, 100 * p.dead) for p in _points(outcome) if p.fvu_raw is not None]
        if not points:
            continue
        style = _style(n, outcome.name == chosen)
        x, y = zip(*points, strict=True)
        axis.plot(x, y, **style, label=f"{label(outcome.name)}{', diverged' * (outcome.diverged is not None)}")
        if outcome.later is not None and outcome.later.fvu_raw is not None:
            open_mark = {**style, "markerfacecolor": "white", "linestyle": ""}
            axis.plot(x[-1], y[-1], **open_mark)
        errors, tops = [*errors, *x], [*tops, *y]
    fit_percent(axis, tops)
    fit_errors(axis, errors, along="x")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("raw FVU on held-out tokens")
    axis.set_ylabel("dead latents, %")
    draw_grid(axis)


def _points(outcome: Outcome) -> list[Point]:
    """Those that were measured, then what is expected, where that is later."""
    later = outcome.later
    return [*outcome.points, *([later] if later is not None and later.step > outcome.end.step else [])]


def _style(n: int, is_chosen: bool) -> dict[str, Any]:
    style: dict[str, Any] = {"color": COLORS[n % len(COLORS)], "marker": MARKERS[n % len(MARKERS)], "markersize": 5}
    return {**style, "linewidth": 2.6 if is_chosen else 1.0}
