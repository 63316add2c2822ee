"""Figures 2a and S14 on real layers: who is born dead and who is dead at the end, by pathway, in four arms.

python -m experiments.trained.fig2a --scale quick|full
"""

from typing import Any

from experiments.outliers_2605_31518.frame import Claim, Data, Scale, at_least, at_most
from experiments.outliers_2605_31518.learned import rank
from experiments.outliers_2605_31518.style import death_axis, legend_below, sheet
from experiments.trained.arms import ARMS
from experiments.trained.pictures import about, at_own_size, caption, entitle, figure, spread, steps_of, strips
from experiments.trained.reproduce import main
from experiments.trained.rows import Row, rows_at

SHOWN = ("baseline", "auxk", "centered", "prescribed")
PATHWAYS = {"relu": "dead-by-ReLU", "topk": "dead-by-TopK"}
SEVERE = 0.5
"""A layer is severe if more of the baseline's latents are born dead."""


def compute(scale: Scale) -> Data:
    return summary(rows_at(steps_of(scale), SHOWN), SHOWN)


def summary(rows: dict[str, list[Row]], arms: tuple[str, ...]) -> Data:
    """Of each layer and arm: dead by pathway at birth and at the end, errors and L0, over seeds."""
    ends: dict[str, Any] = {}
    for name, of in rows.items():
        ends[name] = {}
        for arm in arms:
            mine = at_own_size(of, arm)
            numbers = {
                f"{when} {path}": spread([row[when][path] for row in mine])
                for when in ("born", "end")
                for path in ("dead", *PATHWAYS)
            }
            numbers |= {key: spread([row["end"][key] for row in mine]) for key in ("fvu_raw", "fvu_typical", "l0")}
            ends[name][arm] = {**numbers, "remedies": sorted({row["remedy"] for row in mine})}
    return {**about(rows), "ends": ends}


def draw(data: Data) -> Any:
    picture, axes = sheet(2, 2, width=max(11, 1.6 * len(data["layers"]) + 3), height=7.2)
    for row, (path, named) in zip(axes, PATHWAYS.items(), strict=True):
        for axis, when in zip(row, ("born", "end"), strict=True):
            strips(axis, data, SHOWN, f"{when} {path}")
            death_axis(axis, f"{named}, fraction of latents")
            axis.set_title("at birth" if when == "born" else "after training", fontsize=10, loc="left")
    legend_below(picture, axes[0, 0], len(SHOWN))
    entitle(picture, caption(data))
    return picture


def claims(data: Data) -> list[Claim]:
    ends, layers = data["ends"], data["layers"]

    def mean(name: str, arm: str, key: str) -> float:
        return float(ends[name][arm][key][0])

    gains = [mean(name, "baseline", "end dead") - mean(name, "centered", "end dead") for name in ends]
    severe = [name for name in ends if mean(name, "baseline", "born dead") > SEVERE]
    made = [
        at_most(
            "fig2a",
            "centered: dead at birth, most over layers",
            paper="under 5 %, all models but one",
            ours=max(mean(name, "centered", "born dead") for name in ends),
            limit=0.05,
        ),
        at_most(
            "fig2a",
            "centered: dead-by-ReLU at birth, most over layers",
            paper="what remains is dead-by-TopK",
            ours=max(mean(name, "centered", "born relu") for name in ends),
            limit=0.005,
        ),
        at_most(
            "fig2a",
            "centered: dead at the end, most over layers",
            paper="near 0, all models but one",
            ours=max(mean(name, "centered", "end dead") for name in ends),
            limit=0.05,
        ),
        at_most(
            "fig2a",
            "prescribed: dead at the end, most over layers",
            paper="-",
            ours=max(mean(name, "prescribed", "end dead") for name in ends),
            limit=0.05,
        ),
        at_most(
            "fig2a",
            "raw FVU, prescribed / the lower of baseline and centered, most over layers",
            paper="-",
            ours=max(
                mean(name, "prescribed", "fvu_raw")
                / min(mean(name, arm, "fvu_raw") for arm in ("baseline", "centered"))
                for name in ends
            ),
            limit=1.05,
        ),
    ]
    if len(ends) > 2:
        gammas = [layers[name]["gamma"] for name in ends]
        words = "Spearman(gamma, gain of centering at the end), over layers"
        made.append(rank("fig2a", words, gammas, gains, paper="proportional to gamma"))
    if severe:
        helped = [mean(name, "baseline", "end dead") - mean(name, "auxk", "end dead") for name in severe]
        left = [mean(name, "auxk", "end dead") for name in severe]
        words = f"layers with over {SEVERE:.0%} born dead, AuxK"
        made += [
            at_least("fig2a", f"{words}: gain at the end, least", paper="helps", ours=min(helped), limit=0.0),
            at_least(
                "fig2a", f"{words}: dead at the end, most", paper="does not resolve", ours=max(left), limit=0.1
            ),
        ]
    return made


FIGURE = figure("fig2a", compute, draw, claims)

if __name__ == "__main__":
    assert set(SHOWN) <= set(ARMS)
    main(FIGURE)
