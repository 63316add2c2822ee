"""Figure 5a: dead latents over training, by gamma (baseline).

    python -m experiments.outliers_2605_31518.fig5a --scale quick|full

Runs and settings: dynamics.py. Dead: never fired on the held-out tokens, by either pathway.
"""

from experiments.outliers_2605_31518.curves import (
    DEAD,
    about,
    band,
    courses,
    curve,
    gamma_colours,
    some_of,
    step_axis,
)
from experiments.outliers_2605_31518.dynamics import sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, between, main, near
from experiments.outliers_2605_31518.style import death_axis, legend_below, sheet
from matplotlib.figure import Figure


def compute(scale: Scale) -> Data:
    data = sweep(scale)
    return some_of(data, [f"baseline {gamma:g}" for gamma in data["gammas"]], ["relu", "topk"])


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 1, width=6.4, height=4.6)
    for gamma, colour in gamma_colours(data["gammas"]).items():
        values = courses(data, gamma, "baseline", *DEAD)
        band(axes[0, 0], data["steps"], values, color=colour, label=f"γ = {gamma:g}")
    step_axis(axes[0, 0], data["steps"])
    death_axis(axes[0, 0], "dead, fraction of latents")
    axes[0, 0].set_title(f"Dead over training; {about(data)}", fontsize=10, loc="left")
    legend_below(figure, axes[0, 0], 4)
    return figure


def claims(data: Data) -> list[Claim]:
    from scipy.stats import spearmanr

    gammas = data["gammas"]
    last = [curve(data, gamma, "baseline", *DEAD)[-1] for gamma in gammas]
    high = [share for gamma, share in zip(gammas, last, strict=True) if gamma >= 30]
    order = float(spearmanr(gammas, last).statistic)
    return [
        near("fig5a", "Spearman(gamma, dead at the end of training)", paper=1.0, ours=order, by=0.05),
        at_most(
            "fig5a",
            f"dead at the end, gamma {gammas[0]:g}: recovery at low gamma is complete",
            paper="near 0",
            ours=last[0],
            limit=0.05,
        ),
        between("fig5a", "dead at the end, least over gamma >= 30", paper=[0.75, 0.9], ours=min(high), by=0.0),
    ]


FIGURE = Reproduction(name="fig5a", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
