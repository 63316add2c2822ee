"""Figure S9: the collateral death ratio against gamma, baseline and AuxK.

    python -m experiments.outliers_2605_31518.figS9 --scale quick|full

Runs and settings: dynamics.py; window and ratio: figS6.py. Small marks are single draws. The ratio says nothing of
latents that AuxK drives below zero before the threshold falls; their share is judged beside it. At the rate of the
quick scale, 3e-3, there are many.
"""

from experiments.outliers_2605_31518.curves import CONDITIONS, about, collateral
from experiments.outliers_2605_31518.dynamics import sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, main, near
from experiments.outliers_2605_31518.style import BLUE, GREEN, gamma_axis, legend_below, sheet
from matplotlib.figure import Figure

SHOWN = {"baseline": (BLUE, "o"), "auxk": (GREEN, "s")}


def compute(scale: Scale) -> Data:
    data = sweep(scale)
    rows = {name: [collateral(data, gamma, name) for gamma in data["gammas"]] for name in SHOWN}
    return {**{name: data[name] for name in ("settings", "gammas", "draws")}, "windows": rows}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 1, width=6.0, height=4.4)
    axis = axes[0, 0]
    axis.axhline(1, color="0.6", linestyle=":", linewidth=1)
    for condition, (colour, marker) in SHOWN.items():
        some = [row for row in data["windows"][condition] if row["ratio"] is not None]
        gammas, ratios = [row["gamma"] for row in some], [row["ratio"] for row in some]
        axis.plot(gammas, ratios, color=colour, marker=marker, ms=5, label=CONDITIONS[condition])
        for row in some:
            each = [draw["ratio"] for draw in row["each"] if draw["ratio"] is not None]
            axis.plot([row["gamma"]] * len(each), each, color=colour, marker=marker, ms=3, alpha=0.45, linestyle="")
    gamma_axis(axis)
    axis.set_xticks(data["gammas"])
    axis.minorticks_off()
    axis.set_ylabel("rise of dead-by-ReLU / fall of dead-by-TopK")
    axis.set_title(f"Collateral death; {about(data)}", fontsize=10, loc="left")
    legend_below(figure, axis, 2)
    return figure


def claims(data: Data) -> list[Claim]:
    ratios = {
        name: {row["gamma"]: row["ratio"] for row in rows if row["ratio"] is not None}
        for name, rows in data["windows"].items()
    }
    both = sorted({*ratios["baseline"]} & {*ratios["auxk"]})
    moderate = [gamma for gamma in both if 5 <= gamma <= 20]
    auxk, baseline = (sum(ratios[name][g] for g in moderate) / len(moderate) for name in ("auxk", "baseline"))
    early = [row["before"] for row in data["windows"]["auxk"] if row["gamma"] in moderate]
    return [
        at_most(
            "figS9",
            "AuxK: rise of dead-by-ReLU before the window, mean over gamma 5 to 20",
            paper="-",
            ours=sum(early) / len(early),
            limit=0.05,
        ),
        at_most("figS9", "AuxK: mean ratio over gamma 5 to 20", paper="near zero", ours=auxk, limit=0.1),
        at_most(
            "figS9",
            "AuxK minus baseline: mean ratio over gamma 5 to 20",
            paper="lower",
            ours=auxk - baseline,
            limit=-0.1,
        ),
        near("figS9", f"AuxK: ratio at gamma {both[-1]:g}", paper=1.0, ours=ratios["auxk"][both[-1]], by=0.15),
        near(
            "figS9", f"baseline: ratio at gamma {both[-1]:g}", paper=1.0, ours=ratios["baseline"][both[-1]], by=0.15
        ),
    ]


FIGURE = Reproduction(name="figS9", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
