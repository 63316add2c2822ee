"""Figure 6, top: centering against AuxK and LayerNorm at gamma 40: dead, true features found, error over training.

    python -m experiments.outliers_2605_31518.fig6 --scale quick|full

Members: b = 0 ("baseline"); the same with AuxK (its defaults; dead after 62 batches, the paper's 256,000 tokens
of 4096); tokens normalised one by one and reconstructions scaled back (after Templeton et al. 2024); b at the
geometric median of 500 tokens ("centered"), and at their arithmetic mean. Each at several learning rates. The
paper shows the one with the lowest held-out error at the end. Errors of neighbouring rates often differ by less
than those of draws; so shown is the highest rate whose mean error is within one standard error (over draws) of
the lowest: of rates that cannot be told apart, the one that is furthest along. Batches of 512, so fewer tokens
and steps than the paper's 2M of 4096; the largest lr * steps is 80 at quick and 180 at full scale, ||mu|| is 125.
The full scale runs until AuxK has fallen; much further on the baseline recovers too (README).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from experiments.outliers_2605_31518 import learned
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main, near
from experiments.outliers_2605_31518.learned import (
    BATCH,
    Curve,
    config,
    follow,
    last,
    layer,
    mean_spread,
    newborn,
)
from experiments.outliers_2605_31518.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    death_axis,
    legend_below,
    sheet,
)
from matplotlib.figure import Figure

from autopsae import AuxK
from autopsae.training import Member

GAMMA = 40.0
STARTS = {
    "baseline": (RED, "-", "baseline (b = 0)"),
    "auxk": (ORANGE, "--", "AuxK"),
    "layer norm": (PURPLE, ":", "LayerNorm, scaled back"),
    "centered": (BLUE, "-", "centered (geometric median)"),
    "mean": (GREEN, "--", "centered (mean)"),
}


@dataclass(frozen=True, kw_only=True)
class Size(learned.Size):
    rates: tuple[float, ...]
    records: int


SIZES = {
    "quick": Size(steps=8000, rates=(3e-3, 1e-2), draws=2, tokens=100_000, held_out=4000, records=40),
    "full": Size(steps=60_000, rates=(3e-4, 1e-3, 3e-3), draws=3, tokens=400_000, held_out=20_000, records=80),
}


def compute(scale: Scale) -> Data:
    return measure(SIZES[scale.name])


def measure(size: Size) -> Data:
    """Of every start: the chosen rate, its curves, and where each rate ended."""
    grid = [(start, lr, seed) for start in STARTS for lr in size.rates for seed in range(size.draws)]
    layers = [layer(GAMMA, seed, tokens=size.tokens, held_out=size.held_out) for *_, seed in grid]
    members = [
        Member(
            sae=newborn("baseline" if start == "auxk" else start, of, seed),
            tokens=of.tokens,
            config=config(
                steps=size.steps,
                lr=lr,
                records=size.records,
                revival=AuxK(dead_after_tokens=62 * BATCH) if start == "auxk" else None,
            ),
        )
        for (start, lr, seed), of in zip(grid, layers, strict=True)
    ]
    curves = dict(zip(grid, follow(members, layers), strict=True))
    return {
        "gamma": GAMMA,
        "steps": size.steps,
        "draws": size.draws,
        "starts": {
            start: _best({lr: [curves[start, lr, seed] for seed in range(size.draws)] for lr in size.rates})
            for start in STARTS
        },
    }


def _best(by_rate: dict[float, Sequence[Curve]]) -> dict[str, Any]:
    """The highest rate whose error at the end, averaged over draws, is within a standard error of the lowest."""
    means = {lr: mean_spread(curves) for lr, curves in by_rate.items()}
    best = min(means, key=lambda rate: means[rate]["mse"][-1])
    limit = means[best]["mse"][-1] + means[best]["mse_std"][-1] / len(by_rate[best]) ** 0.5
    lr = max(rate for rate in means if means[rate]["mse"][-1] <= limit)
    return {"lr": lr, "curve": means[lr], "ends": [{"lr": rate, **last(curve)} for rate, curve in means.items()]}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 3, width=11.5, height=4.1)
    labels = {"dead": "", "mmcs": "MMCS with the true features", "mse": "MSE per token and dimension, held out"}
    for axis, (name, label) in zip(axes[0], labels.items(), strict=True):
        for start, found in data["starts"].items():
            colour, style, named = STARTS[start]
            curve = found["curve"]
            thousands = [step / 1000 for step in curve["step"]]
            mean, spread = curve[name], curve[f"{name}_std"]
            axis.plot(thousands, mean, color=colour, linestyle=style, lw=2, label=f"{named}, lr {found['lr']:g}")
            least, most = (0.0, 1.0) if name != "mse" else (min(mean) / 2, inf)
            band = [
                [min(max(m + sign * s, least), most) for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1)
            ]
            axis.fill_between(thousands, *band, color=colour, alpha=0.18, linewidth=0)
        axis.set_xlabel("training steps, thousands")
        axis.set_ylabel(label)
    death_axis(axes[0, 0], "dead on held-out tokens, fraction of latents")
    axes[0, 1].set_ylim(0.25, 1.02)
    axes[0, 2].set_yscale("log")
    axes[0, 0].set_title(f"Synthetic data, γ = {data['gamma']:g}, {data['draws']} draws", fontsize=10, loc="left")
    legend_below(figure, axes[0, 0], 3)
    return figure


def claims(data: Data) -> list[Claim]:
    ends = {start: last(found["curve"]) for start, found in data["starts"].items()}
    centered, baseline = ends["centered"], ends["baseline"]
    dead = data["starts"]["centered"]["curve"]["dead"]
    return [
        near("fig6", "MMCS at the end, centered", paper=0.97, ours=centered["mmcs"], by=0.02),
        near("fig6", "MMCS at the end, baseline", paper=0.38, ours=baseline["mmcs"], by=0.07),
        at_least(
            "fig6",
            "error at the end, baseline / centered",
            paper="about 10",
            ours=baseline["mse"] / centered["mse"],
            limit=8.0,
        ),
        at_most("fig6", "dead when centered, most over training", paper="near 0", ours=max(dead), limit=0.05),
        at_least("fig6", "dead at the end, baseline", paper="never recovers", ours=baseline["dead"], limit=0.5),
        at_least(
            "fig6",
            "error at the end, LayerNorm / centered",
            paper="does not match centering",
            ours=ends["layer norm"]["mse"] / centered["mse"],
            limit=1.5,
        ),
        at_most("fig6", "dead at the end, AuxK", paper="similar to centered", ours=ends["auxk"]["dead"], limit=0.1),
        # How far the run is along the paper's: before this, what the baseline does at the end proves little.
        near("fig6", "bias captured at the end, baseline", paper=0.6, ours=baseline["bias"], by=0.1),
    ]


FIGURE = Reproduction(name="fig6", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
