"""One figure of a survey: death at birth by layer and remedy, and the activation landscape of three layers. One of
an autopsy: every latent's shift against its signal.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopsae.arrays import InputError
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.survey import COMPARED, Survey
from autopsae.evaluation.causes import CAUSES
from autopsae.evaluation.result import FATES, Autopsy
from autopsae.extras import package_error
from autopsae.files import write_whole
from autopsae.report.text import DEAD_BY
from autopsae.survival.closed_form import reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; a marker each, as lines cover each other at zero.
_STYLES = {
    "none": ("#000000", "o", "no remedy"),
    "mean": ("#D55E00", "s", "arithmetic mean"),
    "median": ("#0072B2", "D", "geometric median"),
    "zscore": ("#E69F00", "^", "z-score"),
    "whiten": ("#009E73", "v", "whitening"),
}
_LANDSCAPES = 3
_MARKED = 0.05  # share of ||mu||^2 from which a dimension is marked in a landscape
_BRIGHTEST = 6.0  # colour limit of a landscape, in a token's own standard deviations


def save_figure(result: Survey | Autopsy, path: str | Path) -> None:
    """Write the figure of a survey or an autopsy as .png, .pdf or .svg, whole or not at all.

    Raises InputError for another suffix, or where matplotlib is missing.
    """
    write_figure(path, lambda: survey_figure(result) if isinstance(result, Survey) else autopsy_figure(result))


def write_figure(path: str | Path, draw: Callable[[], "Figure"]) -> None:
    """Write what `draw` returns as .png, .pdf or .svg, whole or not at all. Nothing is drawn where `check_figure`
    raises.
    """
    path = Path(path)
    check_figure(path)
    figure = draw()
    write_whole(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], dpi=150))


def check_figure(path: Path) -> None:
    """InputError unless a figure can be written under this name: to be known before hours of work, not after."""
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"{path}: expected a figure named .png, .pdf or .svg, got {path.suffix or 'no suffix'!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise package_error(f"{path}", "matplotlib", error, install="autopsae[report]") from error


def survey_figure(survey: Survey) -> "Figure":
    """Above: dead fraction at birth by layer, a line per remedy. Below: |activation| after per-token LayerNorm,
    tokens by dimensions, of the layers with the largest, the middle and the smallest gamma (the paper's Fig. 2b),
    with a mark over each dimension that holds 5 % of ||mu||^2 or more.
    """
    from matplotlib.figure import Figure

    shown = _landscape_layers(survey)
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    top, bottom = halves
    _draw_death(top.subplots(), survey)
    axes = bottom.subplots(1, len(shown), squeeze=False)[0]
    for axis, diagnosis in zip(axes, shown, strict=True):
        image = _draw_landscape(axis, diagnosis)
    bottom.colorbar(image, ax=list(axes), label="|activation|, LayerNormed", extend="max", shrink=0.9)
    return figure


def _draw_death(axis: "Axes", survey: Survey) -> None:
    places = range(len(survey))
    for name in COMPARED:
        color, marker, label = _STYLES[name]
        dead = [100 * diagnosis.birth[name].dead for diagnosis in survey]
        axis.plot(places, dead, color=color, marker=marker, markersize=4.5, linewidth=1.4, label=label)
    forms = [diagnosis.predicted.dead for diagnosis in survey]
    if None not in forms:
        predicted = [100 * (dead or 0.0) for dead in forms]
        axis.plot(places, predicted, color="0.6", linestyle="--", linewidth=1.2, label="closed form from gamma")
    first = next(iter(survey))
    tokens = " / ".join(f"{n:,}" for n in sorted({diagnosis.birth["none"].tokens for diagnosis in survey}))
    axis.set_title(f"Latents born dead (d_sae = {first.d_sae:,}, {first.sparsity}, {tokens} tokens)", loc="left")
    axis.set_xticks(places, [diagnosis.layer for diagnosis in survey], rotation=60 if len(survey) > 12 else 0)
    axis.set_ylabel("dead at birth, %")
    axis.set_ylim(-3, 103)
    draw_grid(axis)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def draw_grid(axis: "Axes") -> None:
    """A light grid, and a frame that is open above and on the right."""
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_landscape(axis: "Axes", diagnosis: Diagnosis) -> Any:
    image = axis.imshow(
        diagnosis.landscape.abs().numpy(),
        aspect="auto",
        cmap="magma",
        vmin=0,
        vmax=_BRIGHTEST,
        interpolation="nearest",
    )
    _mark_outliers(axis, diagnosis)
    gamma, dead = diagnosis.severity.gamma, diagnosis.birth["none"].dead
    axis.set_title(f"{diagnosis.layer}: gamma {gamma:.2f}, {dead:.0%} born dead", fontsize=10, loc="left", pad=18)
    axis.set_xlabel("dimension")
    axis.set_ylabel("token")
    return image


def _mark_outliers(axis: "Axes", diagnosis: Diagnosis) -> None:
    """A triangle and the index over each dimension that holds much of the mean."""
    for dimension in diagnosis.outlier_dimensions:
        if dimension.share < _MARKED:
            continue
        axis.plot(dimension.index, -1.5, marker="v", markersize=4, color="#D55E00", clip_on=False)
        axis.annotate(
            f"{dimension.index}",
            (dimension.index, -1.5),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            annotation_clip=False,
        )


def _landscape_layers(survey: Survey) -> list[Diagnosis]:
    """The most severe layer, the middle one and the mildest; all of them where there are no more than three."""
    by_gamma = sorted(survey, key=lambda diagnosis: -diagnosis.severity.gamma)
    if len(by_gamma) <= _LANDSCAPES:
        return by_gamma
    return [by_gamma[0], by_gamma[len(by_gamma) // 2], by_gamma[-1]]


def autopsy_figure(autopsy: Autopsy) -> "Figure":
    """Every latent's shift against its signal (the paper's Fig. 3 and S19): on the left by what became of it, on
    the right the dead by their cause. Latents left of the line are never positive if their signal is Gaussian:
    shift under -C signal, C standard deviations being what the best of so many tokens reaches.
    """
    from matplotlib.figure import Figure

    unit = float(autopsy.signal.median()) or 1.0
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes: Any = figure.subplots(1, 2, sharex=True, sharey=True)
    fates, causes = autopsy.fates, autopsy.causes
    counts = {"none": autopsy.d_sae - sum(causes.values()), **causes}
    _draw_latents(axes[0], autopsy, unit, autopsy.fate, {name: _FATES[name] for name in FATES}, fates)
    _draw_latents(axes[1], autopsy, unit, autopsy.cause, {name: _CAUSES[name] for name in CAUSES}, counts)
    axes[0].set_ylabel("signal: std of w·y, 1 at the median latent")
    axes[0].set_title(f"Fate on {autopsy.tokens:,} tokens", loc="left")
    axes[1].set_title("Cause of death", loc="left")
    return figure


_FAR = 20.0  # shift in typical signals over which the axis is logarithmic
_POINTS = 50
_FATES = {
    "alive": ("#009E73", "alive"),
    "rare": ("#E69F00", "rare"),
    "always_on": ("#000000", "always on"),
    "dead_by_relu": ("#D55E00", DEAD_BY["dead_by_relu"]),
    "dead_by_topk": ("#0072B2", DEAD_BY["dead_by_topk"]),
}
_CAUSES = {
    "none": ("0.85", "living"),
    "shift": ("#D55E00", "shift"),
    "low_variance": ("#CC79A7", "low variance"),
    "died_in_training": ("#56B4E9", "died in training"),
    "outcompeted": ("#0072B2", "outcompeted"),
}


def _draw_latents(
    axis: "Axes",
    autopsy: Autopsy,
    unit: float,
    numbers: Any,
    styles: dict[str, tuple[str, str]],
    counts: dict[str, int],
) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    shift, signal = ((part.float().cpu() / unit).numpy() for part in (autopsy.shift, autopsy.signal))
    for number, (name, (color, label)) in enumerate(styles.items()):
        own = (numbers == number).cpu().numpy()
        if own.any():
            label = f"{label} ({counts[name]:,})"
            axis.scatter(
                shift[own], signal[own], s=9, c=color, label=label, alpha=0.7, linewidths=0, rasterized=True
            )
    axis.set_yscale("log")
    if max(-shift.min(), shift.max()) > _FAR:
        axis.set_xscale("symlog", linthresh=_FAR)
    for along in (axis.xaxis, axis.yaxis):
        along.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    across, (low, high) = axis.get_xlim(), axis.get_ylim()
    C = reach(autopsy.tokens)
    line = [low * (high / low) ** (i / _POINTS) for i in range(_POINTS + 1)]
    axis.plot([-C * s for s in line], line, color="0.4", ls="--", lw=1, label=f"-{C:.2f} signal")
    axis.set_xlim(across)
    axis.set_ylim(low, high)
    axis.axvline(0, color="0.4", linewidth=0.8)
    axis.set_xlabel("shift: w·(m - b_dec) + b_enc, m the tokens' centre")
    draw_grid(axis)
    axis.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, markerscale=2)
