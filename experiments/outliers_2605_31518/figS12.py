"""Figure S12: AuxK does not speed up the bias: its share of the mean over training, baseline and AuxK, by gamma.

    python -m experiments.outliers_2605_31518.figS12 --scale quick|full

Runs and settings: dynamics.py. Differences are averaged over the records. The gap between gammas: between the
curves of the lowest and the highest gamma (baseline).
"""

import numpy as np
from experiments.outliers_2605_31518.curves import about, band, courses, curve, gamma_colours, some_of, step_axis
from experiments.outliers_2605_31518.dynamics import sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, main
from experiments.outliers_2605_31518.style import sheet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

SHOWN = {"baseline": "-", "auxk": "--"}


def compute(scale: Scale) -> Data:
    data = sweep(scale)
    return some_of(data, [f"{name} {gamma:g}" for name in SHOWN for gamma in data["gammas"]], ["bias"])


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 1, width=6.4, height=4.8)
    axis, colours = axes[0, 0], gamma_colours(data["gammas"])
    for gamma, colour in colours.items():
        for condition, style in SHOWN.items():
            band(axis, data["steps"], courses(data, gamma, condition, "bias"), style, color=colour)
    step_axis(axis, data["steps"])
    axis.set_ylim(-0.03, 1.05)
    axis.set_ylabel("share of the mean in the bias, b·μ / ‖μ‖²")
    axis.set_title(f"Baseline and AuxK; {about(data)}", fontsize=10, loc="left")
    lines = [Line2D([], [], color=colour, label=f"γ = {gamma:g}") for gamma, colour in colours.items()]
    lines += [Line2D([], [], color="0.3", ls=ls, label=name) for name, ls in (("baseline", "-"), ("AuxK", "--"))]
    figure.legend(handles=lines, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def claims(data: Data) -> list[Claim]:
    gammas = data["gammas"]
    base, auxk = (np.array([curve(data, g, name, "bias") for g in gammas]) for name in SHOWN)
    between, apart = abs(base - auxk).mean(axis=1), float(abs(base[0] - base[-1]).mean())
    worst = int(between.argmax())
    return [
        at_most(
            "figS12",
            f"baseline against AuxK (largest, gamma {gammas[worst]:g}) / gap between gammas",
            paper="far smaller",
            ours=float(between[worst]) / apart if apart else 0.0,
            limit=0.25,
            key="baseline against AuxK (largest) / gap between gammas",
        ),
        at_most(
            "figS12",
            "baseline against AuxK, mean over gammas",
            paper="overlap",
            ours=float(between.mean()),
            limit=0.05,
        ),
    ]


FIGURE = Reproduction(name="figS12", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
