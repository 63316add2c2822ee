"""One figure of concept coverage: concepts covered at every limit, and F1 by concept."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopsae.features.compare import CoverageComparison
from autopsae.features.coverage_result import COVERED, LIMITS, Coverage
from autopsae.report.plots import draw_grid, write_figure
from autopsae.words import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
_MARKERS = ("o", "D", "s", "^", "v", "P", "X")
_SHOWN = 40  # concepts that are named on the right
_LONG = 28  # letters of a name


def save_concept_figure(result: Coverage | CoverageComparison, path: str | Path) -> None:
    """Write `concept_figure` as .png, .pdf or .svg, whole or not at all.

    Raises InputError for another suffix, or where matplotlib is missing.
    """
    write_figure(path, lambda: concept_figure(result))


def concept_figure(result: Coverage | CoverageComparison) -> "Figure":
    """Left: how many concepts are covered at each limit of F1, a line for each SAE, dashed by chance. Right: the
    F1 on test documents of the concepts that the SAEs know best.
    """
    from matplotlib.figure import Figure

    coverages = dict(result.coverages) if isinstance(result, CoverageComparison) else {"SAE": result}
    first = next(iter(coverages.values()))
    shown = min(len(first.scores), _SHOWN)
    figure = Figure(figsize=(11, max(4.6, 1.6 + 0.19 * shown)), layout="constrained")
    axes: Any = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_curves(axes[0], coverages)
    _draw_concepts(axes[1], coverages, shown)
    return figure


def _draw_curves(axis: "Axes", coverages: dict[str, Coverage]) -> None:
    from matplotlib.ticker import MaxNLocator

    for n, (name, coverage) in enumerate(coverages.items()):
        color, marker = _COLORS[n % len(_COLORS)], _MARKERS[n % len(_MARKERS)]
        label = f"{printable(name, _LONG)} ({coverage.live:,} live)"
        axis.plot(LIMITS, [*coverage.curve.values()], color=color, marker=marker, markersize=4, label=label)
        chance = [coverage.count_by_chance(limit) for limit in LIMITS]
        axis.plot(LIMITS, chance, color=color, linestyle="--", linewidth=1)
    axis.plot([], [], color="0.4", linestyle="--", linewidth=1, label="annotations of other documents")
    axis.axvline(COVERED, color="0.4", linewidth=0.8)
    first = next(iter(coverages.values()))
    axis.set_title(f"Concepts covered, of {len(first.scores):,}", loc="left")
    axis.set_xlabel("limit that F1 exceeds on validation and test documents")
    axis.set_ylabel("concepts")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    draw_grid(axis)
    axis.legend(frameon=False, fontsize=9, loc="upper right")


def _draw_concepts(axis: "Axes", coverages: dict[str, Coverage], shown: int) -> None:
    best: dict[str, float] = {}
    for coverage in coverages.values():
        for score in coverage.scores:
            best[score.concept] = max(best.get(score.concept, 0.0), score.f1)
    names = sorted(best, key=lambda name: -best[name])[:shown]
    place = {name: n for n, name in enumerate(names)}
    for n, coverage in enumerate(coverages.values()):
        some = [score for score in coverage.scores if score.concept in place]
        axis.plot(
            [score.f1 for score in some],
            [place[score.concept] for score in some],
            linestyle="",
            color=_COLORS[n % len(_COLORS)],
            marker=_MARKERS[n % len(_MARKERS)],
            markersize=5,
            alpha=0.8,
        )
    axis.set_yticks(range(len(names)), [printable(name, _LONG) for name in names], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(COVERED, color="0.4", linewidth=0.8)
    axis.set_xlim(-0.02, 1.02)  # whole markers at the ends
    axis.set_title("F1 of the best latent on test documents", loc="left")
    axis.set_xlabel("F1")
    draw_grid(axis)
