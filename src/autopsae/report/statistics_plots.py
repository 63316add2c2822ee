"""Figures of statistics: the spectrum, the norms, and mean and spread by dimension."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy
from autopsae.report.plots import COLORS, draw_grid, label, new_canvas
from autopsae.statistics.collect import Statistics
from autopsae.statistics.moments import Moments
from autopsae.statistics.norms import NormHistogram
from autopsae.statistics.spectrum import Spectrum, effective_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 5  # dimensions that are named
_BINS = 60


def spectrum_figure(spectrum: Spectrum) -> "Figure":
    """The principal variances, largest first, on logarithmic axes, and the effective rank."""
    figure = new_canvas(6.4, 4.4)
    _draw_spectrum(figure.subplots(), spectrum)
    return figure


def _draw_spectrum(axis: "Axes", spectrum: Spectrum) -> None:
    values = _numbers(spectrum.eigenvalues)
    known = values > 0
    places = np.arange(1, len(values) + 1)
    axis.plot(
        places[known], values[known], color=COLORS[2], marker="." if len(values) <= 100 else "", linewidth=1.4
    )
    if known.any():
        axis.set_xscale("log")
        if values[known].max() > 10 * values[known].min():
            axis.set_yscale("log")
        rank = effective_rank(spectrum.eigenvalues)
        axis.axvline(rank, color="0.4", linewidth=0.9, linestyle="--", label=f"effective rank {rank:.1f}")
        axis.legend(frameon=False, fontsize=9)
    _title(axis, "Spectrum", "principal direction", "variance")


def norms_figure(norms: NormHistogram) -> "Figure":
    """How many tokens have which norm, with the median."""
    figure = new_canvas(6.4, 4.4)
    _draw_norms(figure.subplots(), norms)
    return figure


def _draw_norms(axis: "Axes", norms: NormHistogram) -> None:
    steps = np.unique([norms.quantile(q) for q in (0.0, *np.linspace(0.0005, 0.9995, 400))] + [norms.largest])
    counts = _numbers(norms.counts)
    over_zero = steps[steps > 0]
    low, high = (float(over_zero[0]), norms.largest) if len(over_zero) else (0.5, 1.0)
    edges = np.geomspace(low * 0.97, high * 1.03, _BINS + 1)
    over = [norms.above(float(edge))[0] for edge in edges]
    share = -np.diff(over)
    axis.bar(edges[:-1], 100 * share, width=np.diff(edges), align="edge", color=COLORS[2])
    axis.set_xscale("log")
    axis.axvline(norms.typical, color="0.4", linewidth=0.9, linestyle="--", label=f"median {norms.typical:.4g}")
    axis.legend(frameon=False, fontsize=9)
    _title(axis, f"Norms of {int(counts.sum()):,} tokens", "norm", "tokens, %")


def moments_figure(moments: Moments) -> "Figure":
    """The mean of each dimension, and one standard deviation around it; the largest are named."""
    figure = new_canvas(9, 4.2)
    _draw_moments(figure.subplots(), moments, f"Mean and spread of {moments.tokens:,} tokens")
    return figure


def _draw_moments(axis: "Axes", moments: Moments, title: str) -> None:
    mean, std = _numbers(moments.mean), _numbers(moments.std)
    axis.fill_between(np.arange(len(mean)), mean - std, mean + std, color=COLORS[6], alpha=0.5, linewidth=0)
    _draw_dimensions(axis, mean)
    _title(axis, title, "dimension", "mean ± standard deviation")


def _draw_dimensions(axis: "Axes", values: "np.ndarray") -> None:
    """A value of each dimension; the largest are named."""
    axis.plot(
        np.arange(len(values)), values, color=COLORS[2], linewidth=0.9, marker="." if len(values) < 60 else ""
    )
    for index in np.argsort(-np.abs(values))[:_NAMED]:
        if abs(values[index]) > 4 * max(float(np.abs(values).mean()), 1e-300):
            axis.annotate(f"{index}", (float(index), float(values[index])), fontsize=8, color=COLORS[1])


def statistics_figure(statistics: Statistics) -> "Figure":
    """Mean and spread by dimension as the tokens are and after LayerNorm, the spectrum, and the norms."""
    figure = new_canvas(11, 7)
    axes = figure.subplots(2, 2)
    _draw_moments(axes[0, 0], statistics.raw, f"{statistics.tokens:,} tokens as they are")
    _draw_moments(axes[0, 1], statistics.normed, "after LayerNorm of each token")
    _draw_spectrum(axes[1, 0], statistics.spectrum)
    _draw_norms(axes[1, 1], statistics.norms)
    return figure


def center_figure(remedy: Remedy | Affine) -> "Figure":
    """The centre of a remedy, dimension by dimension: what is subtracted from each token."""
    affine, name = (remedy, "") if isinstance(remedy, Affine) else (remedy.affine, remedy.instruction)
    figure = new_canvas(9, 3.8)
    axis = figure.subplots()
    _draw_dimensions(axis, _numbers(affine.center))
    _title(axis, f"Centre{f': {label(name, 60)}' if name else ''}", "dimension", "what is subtracted")
    return figure


def _numbers(tensor: Tensor) -> "np.ndarray":
    return np.asarray(tensor.detach().cpu().double().numpy())


def _title(axis: "Axes", title: str, x: str, y: str) -> None:
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    draw_grid(axis)
