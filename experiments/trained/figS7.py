"""Figure S7 on real layers: both pathways, the bias's share of the mean and the threshold while a baseline trains.

python -m experiments.trained.figS7 --scale quick|full
"""

from typing import Any

from experiments.outliers_2605_31518.frame import Claim, Data, Scale, at_least, at_most
from experiments.outliers_2605_31518.style import BLACK, GREEN, RELU, TOPK, death_axis, legend_below, sheet
from experiments.trained.pictures import about, at_own_size, caption_of_courses, entitle, figure, steps_of
from experiments.trained.reproduce import main
from experiments.trained.rows import rows_at

MOST = 3
"""Layers that are shown, those of the largest gamma; the paper shows as many."""


def compute(scale: Scale) -> Data:
    rows = rows_at(steps_of(scale), ("baseline",))
    severe = sorted(rows, key=lambda name: -rows[name][0]["gamma"])[:MOST]
    rows = {name: at_own_size(rows[name], "baseline") for name in severe}
    return {**about(rows), "curves": {name: [row["curve"] for row in of] for name, of in rows.items()}}


def draw(data: Data) -> Any:
    layers = data["layers"]
    picture, axes = sheet(2, len(layers), width=4.3 * len(layers) + 0.6, height=6.8)
    for (above, below), (name, layer) in zip(axes.T, layers.items(), strict=True):
        for n, curve in enumerate(data["curves"][name]):
            steps, alpha = curve["step"], 1.0 if n == 0 else 0.45
            for path, colour in (("relu", RELU), ("topk", TOPK)):
                said = {"relu": "dead-by-ReLU", "topk": "dead-by-TopK"}[path] if n == 0 else None
                above.plot(steps, curve[path], color=colour, lw=1.8, alpha=alpha, label=said)
            below.plot(
                steps, curve["bias"], color=GREEN, alpha=alpha, label="share of the mean in b" if n == 0 else None
            )
            highest = max(value or 0.0 for value in curve["threshold"]) or 1.0
            below.plot(
                steps,
                [None if value is None else value / highest for value in curve["threshold"]],
                color=BLACK,
                ls=":",
                alpha=alpha,
                label="threshold / its largest" if n == 0 else None,
            )
        death_axis(above, "dead, fraction of latents")
        below.set_ylabel("share")
        above.set_title(f"{layer['title']}, γ = {layer['gamma']:.2g}, baseline", fontsize=10, loc="left")
        for axis in (above, below):
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xlim(0, data["steps"])
            axis.set_xlabel("training steps")
    axes[1, 0].legend(frameon=False, fontsize=8)
    legend_below(picture, axes[0, 0], 2)
    entitle(picture, caption_of_courses(data))
    return picture


def claims(data: Data) -> list[Claim]:
    """Of each layer the mean over seeds; then the layer that speaks against the paper most."""
    rises, falls, shares = [], [], []
    for curves in data["curves"].values():
        n = len(curves)
        rises.append(sum(max(curve["relu"]) - curve["relu"][0] for curve in curves) / n)
        falls.append(sum(max(curve["topk"]) - curve["topk"][-1] for curve in curves) / n)
        shares.append(sum(curve["bias"][-1] for curve in curves) / n)
    drawn = f"{len(rises)} layers of the largest gamma, baseline"
    made = []
    for make, said, paper, ours, limit in (
        (
            at_least,
            "rise of dead-by-ReLU from birth to its most, least",
            "substantial in every case",
            min(rises),
            0.1,
        ),
        (at_least, "fall of dead-by-TopK from its most to the end, least", "fast revival", min(falls), 0.1),
        (at_most, "share of the mean in the bias at the end, most", 0.003, max(shares), 0.05),
    ):
        key = f"layers of the largest gamma, baseline: {said}"
        made.append(make("figS7", f"{drawn}: {said}", paper=paper, ours=ours, limit=limit, key=key))
    return made


FIGURE = figure("figS7", compute, draw, claims)

if __name__ == "__main__":
    main(FIGURE)
