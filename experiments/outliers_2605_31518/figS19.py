"""Figure S19: which latents are born dead after centering, on our own layers of low rank.

    python -m experiments.outliers_2605_31518.figS19

The paper's figure shows Evo1. A dot is a latent of an SAE that was drawn and centered by the geometric median: the
mean of its pre-activation over the tokens, and its standard deviation, both in units of the median latent's.
"""

import numpy as np
from experiments.outliers_2605_31518.frame import REAL, Claim, Data, Reproduction, Scale, at_least, at_most, main
from experiments.outliers_2605_31518.own import DETAIL_FILES, details
from experiments.outliers_2605_31518.style import ALIVE, RED, legend_below, sheet
from matplotlib.figure import Figure

MOST = 6
"""Layers that are shown: those with the most dead after centering."""
FEW_DEAD = 0.005
"""With fewer dead latents, a layer shows nothing of which latents die."""


def compute(scale: Scale) -> Data:
    """The latents of the layers on which centering leaves any dead."""
    rows = [row for row in details() if row["latents"]["dead"] >= FEW_DEAD]
    rows = sorted(rows, key=lambda row: -row["latents"]["dead"])[:MOST]
    kept = ("model", "modality", "point", "tokens", "d_in", "gamma", "rank", "latents")
    relu = [row["curve"][-1]["median"]["relu"] for row in rows]
    return {
        "draws": scale.draws,
        "rows": [{name: row[name] for name in kept} | {"relu": r} for row, r in zip(rows, relu, strict=True)],
    }


def draw(data: Data) -> Figure:
    rows = data["rows"]
    columns = min(3, len(rows))
    figure, axes = sheet(
        -(-len(rows) // columns), columns, width=4.6 * columns, height=4.2 * -(-len(rows) // columns)
    )
    for axis in axes.flat[len(rows) :]:
        axis.remove()
    for axis, row in zip(axes.flat, rows, strict=False):
        latents = row["latents"]
        mean, std, alive = (np.array(latents[name]) for name in ("mean", "std", "alive"))
        for state, colour, label in ((1, ALIVE, "fires on some token"), (0, RED, "born dead")):
            some = alive == state
            axis.scatter(mean[some], std[some], s=7, color=colour, alpha=0.5, linewidth=0, label=label)
        for name, colour in (("std_alive", ALIVE), ("std_dead", RED)):
            axis.axhline(latents[name], color=colour, linestyle="--", linewidth=1.2)
        axis.set_title(
            f"{row['model']} {row['point']}: {latents['dead']:.1%} dead\n"
            f"effective rank {row['rank']:.2%} of d_in = {row['d_in']}, {row['tokens']:,} tokens",
            fontsize=9,
            loc="left",
        )
        axis.set_xlabel("mean of the pre-activation, in median spreads")
        axis.set_ylabel("its standard deviation, in the same unit")
        axis.set_ylim(bottom=0)
    legend_below(figure, axes.flat[0], 2)
    return figure


def claims(data: Data) -> list[Claim]:
    rows = data["rows"]
    ratios = {
        f"{row['model']} {row['point']}": row["latents"]["std_alive"] / row["latents"]["std_dead"] for row in rows
    }
    least = min(ratios, key=lambda name: ratios[name])
    overlap = []
    for row in rows:
        std, alive = np.array(row["latents"]["std"]), np.array(row["latents"]["alive"])
        overlap.append(float((std[alive == 0] > np.quantile(std[alive == 1], 0.1)).mean()))
    return [
        at_least(
            "figS19",
            f"our layers with dead latents after centering ({len(rows)}): median spread of the living / "
            f"of the dead, least ({least})",
            paper="alive features have higher median variance",
            ours=ratios[least],
            limit=1.0,
            key="our layers with dead latents after centering: median spread of the living / of the dead, least",
            own=True,
        ),
        at_most(
            "figS19",
            "the same layers: dead-by-ReLU after centering, most",
            paper="removes the mean offset that produced dead-by-ReLU",
            ours=max(row["relu"] for row in rows),
            limit=0.005,
            own=True,
        ),
        at_least(
            "figS19",
            "the same layers: dead latents with a larger spread than a tenth of the living, most of any layer",
            paper="not a sharp cutoff",
            ours=max(overlap),
            limit=0.05,
            own=True,
        ),
    ]


FIGURE = Reproduction(name="figS19", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=DETAIL_FILES)

if __name__ == "__main__":
    main(FIGURE)
