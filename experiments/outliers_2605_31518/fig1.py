"""Figure 1: why latents are born dead. Pre-activations of three latents under mild and severe outliers.

    python -m experiments.outliers_2605_31518.fig1 --scale quick|full

Left, real layers of our own, one mild and one with outlier dimensions: the range of each dimension over 24 tokens,
after LayerNorm, and its mean. Then, on synthetic tokens, three latents of one draw: the one most anti-aligned with
the mean, the most nearly orthogonal and the most aligned. Pre-activations are in units of ||sigma|| / sqrt(d_in), a
typical latent's signal. Bars: what becomes of all latents, mean over draws.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.outliers_2605_31518.births import Setting, births, draw_tokens, encoder_rows
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main, near
from experiments.outliers_2605_31518.own import DETAILS
from experiments.outliers_2605_31518.style import ALIVE, BLACK, BLUE, GREEN, RED, RELU, TOPK, sheet
from matplotlib.figure import Figure

LOW, HIGH = 0.5, 20.0
REAL = ("antiberty.hs1", "gemma3.hs2")
"""The mild and the severe real layer, of `measure_details`."""
LATENTS = ("anti-aligned", "orthogonal", "aligned")
COLOURS = dict(zip(LATENTS, (RED, GREEN, BLUE), strict=True))


def compute(scale: Scale) -> Data:
    """At a low and a high gamma: densities of one draw; positive shares of every draw; fates of all latents."""
    return {
        "tokens": scale.tokens,
        "draws": scale.draws,
        "real": [_real_layer(DETAILS / f"{name}.json") for name in REAL],
        "panels": [_panel(gamma, scale) for gamma in (LOW, HIGH)],
    }


def _real_layer(path: Path) -> Data:
    """The lowest, the mean and the highest value of each dimension over the tokens that were kept."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    values = np.array(kept["landscape"])
    ends = {"low": values.min(axis=0), "mean": values.mean(axis=0), "high": values.max(axis=0)}
    about = {name: kept[name] for name in ("model", "point", "gamma")}
    return {**about, "shown": len(values), **{name: of.round(3).tolist() for name, of in ends.items()}}


def _panel(gamma: float, scale: Scale) -> Data:
    setting = Setting()
    chosen = [_three_latents(setting, gamma, scale.tokens, seed) for seed in range(scale.draws)]
    positive = np.array([(pre > 0).double().mean(dim=0).tolist() for pre in chosen])
    return {
        "gamma": gamma,
        "densities": {name: _density(chosen[0][:, i]) for i, name in enumerate(LATENTS)},
        "positive": {name: positive[:, i].round(5).tolist() for i, name in enumerate(LATENTS)},
        "births": births(setting, gamma, tokens=scale.tokens, draws=scale.draws),
    }


def _three_latents(setting: Setting, gamma: float, tokens: int, seed: int) -> torch.Tensor:
    """[tokens, 3] pre-activations, in units of ||sigma|| / sqrt(d_in)."""
    x, rows = draw_tokens(setting, gamma, tokens, seed).double(), encoder_rows(setting, seed).double()
    mu, sigma = x.mean(dim=0), x.std(dim=0)
    shift = rows @ mu
    latents = [int(shift.argmin()), int(shift.abs().argmin()), int(shift.argmax())]
    pre: torch.Tensor = (x @ rows[latents].T) * (setting.d_in**0.5 / sigma.norm())
    return pre


def _density(values: torch.Tensor) -> dict[str, list[float]]:
    height, edges = np.histogram(values.numpy(), bins=60, density=True)
    return {"height": height.round(5).tolist(), "edges": edges.round(4).tolist()}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 5, width=17, height=3.9, width_ratios=(1, 1, 1.15, 1.5, 0.85))
    for axis, layer in zip(axes[0], data["real"], strict=False):
        _draw_real_layer(axis, layer)
    axes[0, 0].set_ylabel("activation after LayerNorm")
    for axis, panel in zip(axes[0, 2:], data["panels"], strict=False):
        _draw_densities(axis, panel)
    axes[0, 2].set_ylabel("density over tokens")
    _draw_fates(axes[0, 4], data)
    handles, labels = axes[0, 2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw_real_layer(axis: Any, layer: Data) -> None:
    places = range(len(layer["mean"]))
    axis.vlines(places, layer["low"], layer["high"], color=BLUE, linewidth=0.6, alpha=0.6)
    axis.plot(places, layer["mean"], ".", color=BLACK, markersize=1.5)
    axis.set_yscale("symlog", linthresh=3)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.margins(x=0.01)
    axis.set_xlabel(f"dimension; range over {layer['shown']} tokens", fontsize=9)
    axis.set_title(f"{layer['model']} {layer['point']}, γ = {layer['gamma']:.2g}", fontsize=10, loc="left")


def _draw_densities(axis: Any, panel: Data) -> None:
    for name, density in panel["densities"].items():
        axis.stairs(
            density["height"], density["edges"], fill=True, alpha=0.55, color=COLOURS[name], label=f"{name} latent"
        )
    axis.axvspan(axis.get_xlim()[0], 0, color="0.5", alpha=0.08, zorder=0)
    axis.axvline(0, color=BLACK, linestyle="--", linewidth=1, label="zero: ReLU passes what is right of it")
    axis.margins(x=0)
    axis.set_title(f"γ = {panel['gamma']:g}", fontsize=11, loc="left")
    axis.set_xlabel("pre-activation, in ‖σ‖ / √$d_{in}$")


def _draw_fates(axis: Any, data: Data) -> None:
    for place, panel in enumerate(data["panels"]):
        relu, dead = panel["births"]["relu"], panel["births"]["dead"]
        base = 0.0
        for share, colour, name in (
            (relu, RELU, "dead-by-ReLU"),
            (dead - relu, TOPK, "dead-by-TopK"),
            (1 - dead, ALIVE, "alive"),
        ):
            axis.bar(place, share, bottom=base, color=colour, width=0.92, alpha=0.85)
            if share > 0.04:
                text = f"{name}\n{share:.0%}" if share > 0.15 else f"{name} {share:.0%}"
                axis.text(place, base + share / 2, text, ha="center", va="center", fontsize=8, color="white")
            base += share
    axis.set_xticks([0, 1], [f"γ = {panel['gamma']:g}" for panel in data["panels"]])
    axis.set_xlim(-0.5, 1.5)
    axis.grid(False)
    axis.set_ylabel("fraction of latents at birth")
    axis.set_title(f"all latents, {data['draws']} draws", fontsize=10, loc="left")


def claims(data: Data) -> list[Claim]:
    low, high = data["panels"]
    positive = high["positive"]
    return [
        near(
            "fig1",
            f"gamma {HIGH:g}: tokens on which the most anti-aligned latent is positive, most of any draw",
            paper=0.0,
            ours=max(positive["anti-aligned"]),
            by=0,
        ),
        near(
            "fig1",
            f"gamma {HIGH:g}: tokens on which the most aligned latent is positive, least of any draw",
            paper=1.0,
            ours=min(positive["aligned"]),
            by=0,
        ),
        at_most(
            "fig1",
            f"gamma {HIGH:g}: |share of positive tokens - 1/2| of the most orthogonal latent, mean over draws",
            paper="remains input-dependent",
            ours=float(np.mean([abs(share - 0.5) for share in positive["orthogonal"]])),
            limit=0.25,
        ),
        at_least(
            "fig1",
            f"gamma {LOW:g}: tokens on which the most anti-aligned latent is positive, least of any draw",
            paper="some: it is not born dead",
            ours=min(low["positive"]["anti-aligned"]),
            limit=1 / data["tokens"],
        ),
        near("fig1", f"gamma {LOW:g}: born dead", paper=0.0, ours=low["births"]["dead"], by=0.01),
    ]


FIGURE = Reproduction(name="fig1", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
