"""One figure of a survey: death at birth by layer and remedy, and the activation landscape of three layers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import Diagnosis
from autopsae.diagnosis.survey import COMPARED, Survey
from autopsae.files import write_whole

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
_BRIGHTEST = 6.0  # colour limit of a landscape, in a token's own standard deviations


def save_figure(survey: Survey, path: str | Path) -> None:
    """Write the survey's figure as .png, .pdf or .svg, whole or not at all.

    Raises InputError for another suffix, or where matplotlib is missing.
    """
    path = Path(path)
    check_figure(path)
    figure = survey_figure(survey)
    write_whole(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], dpi=150))


def check_figure(path: Path) -> None:
    """InputError unless a figure can be written under this name: to be known before hours of work, not after."""
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"{path}: expected a figure named .png, .pdf or .svg, got {path.suffix or 'no suffix'!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("figures need matplotlib: pip install 'autopsae[report]'") from error


def survey_figure(survey: Survey) -> "Figure":
    """Above: dead fraction at birth by layer, a line per remedy. Below: |activation| after per-token LayerNorm,
    tokens by dimensions, of the layers with the largest, the middle and the smallest gamma (the paper's Fig. 2b).
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
    predicted = [100 * diagnosis.predicted.dead for diagnosis in survey]
    axis.plot(places, predicted, color="0.6", linestyle="--", linewidth=1.2, label="closed form from gamma")
    first = next(iter(survey))
    tokens = " / ".join(f"{n:,}" for n in sorted({diagnosis.tokens for diagnosis in survey}))
    axis.set_title(f"Latents born dead (d_sae = {first.d_sae:,}, k = {first.k}, {tokens} tokens)", loc="left")
    axis.set_xticks(places, [diagnosis.layer for diagnosis in survey], rotation=60 if len(survey) > 12 else 0)
    axis.set_ylabel("dead at birth, %")
    axis.set_ylim(-3, 103)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_landscape(axis: "Axes", diagnosis: Diagnosis) -> Any:
    image = axis.imshow(
        diagnosis.landscape.abs().numpy(),
        aspect="auto",
        cmap="magma",
        vmin=0,
        vmax=_BRIGHTEST,
        interpolation="nearest",
    )
    gamma, dead = diagnosis.severity.gamma, diagnosis.birth["none"].dead
    axis.set_title(f"{diagnosis.layer}: gamma {gamma:.2f}, {dead:.0%} born dead", fontsize=10, loc="left")
    axis.set_xlabel("dimension")
    axis.set_ylabel("token")
    return image


def _landscape_layers(survey: Survey) -> list[Diagnosis]:
    """The most severe layer, the middle one and the mildest; all of them where there are no more than three."""
    by_gamma = sorted(survey, key=lambda diagnosis: -diagnosis.severity.gamma)
    if len(by_gamma) <= _LANDSCAPES:
        return by_gamma
    return [by_gamma[0], by_gamma[len(by_gamma) // 2], by_gamma[-1]]
