"""The figure of an autopsy: every latent's shift against its signal."""

from typing import TYPE_CHECKING, Any

from autopsae.evaluation.causes import CAUSES
from autopsae.evaluation.result import FATES, Autopsy
from autopsae.report.plots import draw_grid, in_own_style, new_canvas
from autopsae.report.text import DEAD_BY
from autopsae.survival.closed_form import reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@in_own_style
def autopsy_figure(autopsy: Autopsy) -> "Figure":
    """Every latent's shift against its signal (the paper's Fig. 3 and S19): on the left by what became of it, on
    the right the dead by their cause, where some are dead. Latents left of the line are never positive if their
    signal is Gaussian: shift under -C signal, C standard deviations being what the best of so many tokens reaches.
    """
    unit = float(autopsy.signal.median()) or 1.0
    fates, causes = autopsy.fates, autopsy.causes
    dead = sum(causes.values())
    figure = new_canvas(11 if dead else 6, 5.2)
    axes: Any = figure.subplots(1, 2 if dead else 1, sharex=True, sharey=True, squeeze=False)[0]
    _draw_latents(axes[0], autopsy, unit, autopsy.fate, {name: _FATES[name] for name in FATES}, fates)
    axes[0].set_ylabel("signal: std of w·y, 1 at the median latent")
    axes[0].set_title(f"Fate on {autopsy.tokens:,} tokens", loc="left")
    if dead:
        counts = {"none": autopsy.d_sae - dead, **causes}
        _draw_latents(axes[1], autopsy, unit, autopsy.cause, {name: _CAUSES[name] for name in CAUSES}, counts)
        axes[1].set_title("Cause of death", loc="left")
    return figure


_FAR = 20.0  # shift in typical signals over which the axis is logarithmic
_WIDE = 10.0  # largest over smallest signal from which its axis is logarithmic
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
    is_log = float(signal.min()) > 0 and float(signal.max()) > _WIDE * float(signal.min())
    if is_log:
        axis.set_yscale("log")
    if max(-shift.min(), shift.max()) > _FAR:
        axis.set_xscale("symlog", linthresh=_FAR)
    for along in (axis.xaxis, axis.yaxis):
        along.set_major_formatter(lambda value, _: f"{value:g}")
    if is_log:
        few = signal.max() < 100 * signal.min()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axis.yaxis.set_minor_formatter(NullFormatter())
    across, (low, high) = axis.get_xlim(), axis.get_ylim()
    C = reach(autopsy.tokens)
    steps = [i / _POINTS for i in range(_POINTS + 1)]
    line = [
        low * (high / low) ** step if is_log else max(0.0, low) + (high - max(0.0, low)) * step for step in steps
    ]
    axis.plot([-C * s for s in line], line, color="0.4", ls="--", lw=1, label=f"-{C:.2f} signal")
    axis.set_xlim(across)
    axis.set_ylim(low, high)
    axis.axvline(0, color="0.4", linewidth=0.8)
    axis.set_xlabel("shift: w·(m - b_dec) + b_enc, m the tokens' centre")
    draw_grid(axis)
    axis.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, markerscale=2)
