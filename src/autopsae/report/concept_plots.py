"""One figure of concept coverage: concepts covered at every limit, and F1 by concept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopsae.features.compare import CoverageComparison
from autopsae.features.coverage_result import COVERED, LIMITS, Coverage
from autopsae.report.plots import draw_grid, in_own_style, label, new_canvas, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
_MARKERS = ("o", "D", "s", "^", "v", "P", "X")
_SHOWN = 40  # concepts that are named on the right
_LONG = 28  # letters of a name


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a figure shows of one SAE."""

    live: int
    """Its live latents."""
    curve: Mapping[float, int]
    """{limit of F1: concepts covered at it}."""
    chance: Mapping[float, int]
    """The same with annotations of other documents."""
    best: Mapping[str, float]
    """{concept: F1 of its latent, the lower of validation and test documents}."""


def save_concept_figure(result: Coverage | CoverageComparison, path: str | Path) -> None:
    """Write `concept_figure` as .png, .pdf or .svg, whole or not at all.

    Raises InputError for another suffix, or where matplotlib is missing.
    """
    write_figure(path, lambda: concept_figure(result))


def concept_figure(result: Coverage | CoverageComparison) -> "Figure":
    """`draw_concepts` of a coverage or of several."""
    coverages = result.coverages if isinstance(result, CoverageComparison) else {"SAE": result}
    return draw_concepts({name: _summary(coverage) for name, coverage in coverages.items()})


@in_own_style
def draw_concepts(saes: Mapping[str, Drawn]) -> "Figure":
    """Left: how many concepts are covered at each limit of F1, a line for each SAE, dashed by chance. Right: the F1
    of the concepts that the SAEs know best; a concept is covered where its point is right of the line.
    """
    first = next(iter(saes.values()))
    shown = min(len(first.best), _SHOWN)
    figure = new_canvas(11, max(4.6, 1.6 + 0.19 * shown))
    axes: Any = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_curves(axes[0], saes)
    _draw_best(axes[1], saes, shown)
    return figure


def _summary(coverage: Coverage) -> Drawn:
    return Drawn(
        live=coverage.live,
        curve=coverage.curve,
        chance={limit: coverage.count_by_chance(limit) for limit in LIMITS},
        best={score.concept: min(score.validation_f1, score.f1) for score in coverage.scores},
    )


def _draw_curves(axis: "Axes", saes: Mapping[str, Drawn]) -> None:
    from matplotlib.ticker import MaxNLocator

    for n, (name, drawn) in enumerate(saes.items()):
        color, marker = _COLORS[n % len(_COLORS)], _MARKERS[n % len(_MARKERS)]
        words = f"{label(name, _LONG)} ({drawn.live:,} live)"
        axis.plot([*drawn.curve], [*drawn.curve.values()], color=color, marker=marker, markersize=4, label=words)
        axis.plot([*drawn.chance], [*drawn.chance.values()], color=color, linestyle="--", linewidth=1)
    axis.plot([], [], color="0.4", linestyle="--", linewidth=1, label="annotations of other documents")
    axis.axvline(COVERED, color="0.4", linewidth=0.8)
    first = next(iter(saes.values()))
    axis.set_title(f"Concepts covered, of {len(first.best):,}", loc="left")
    axis.set_xlabel("limit that F1 exceeds on validation and test documents")
    axis.set_ylabel("concepts")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    draw_grid(axis)
    axis.legend(frameon=False, fontsize=9, loc="upper right")


def _draw_best(axis: "Axes", saes: Mapping[str, Drawn], shown: int) -> None:
    best: dict[str, float] = {}
    for drawn in saes.values():
        for concept, f1 in drawn.best.items():
            best[concept] = max(best.get(concept, 0.0), f1)
    names = sorted(best, key=lambda name: -best[name])[:shown]
    for n, drawn in enumerate(saes.values()):
        axis.plot(
            [drawn.best[name] for name in names],
            range(len(names)),
            linestyle="",
            color=_COLORS[n % len(_COLORS)],
            marker=_MARKERS[n % len(_MARKERS)],
            markersize=5,
            alpha=0.8,
        )
    axis.set_yticks(range(len(names)), [label(name, _LONG) for name in names], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(COVERED, color="0.4", linewidth=0.8)
    axis.set_xlim(-0.02, 1.02)  # whole markers at the ends
    axis.set_title("F1 of the best latent, the lower of validation and test", loc="left")
    axis.set_xlabel("F1")
    draw_grid(axis)
