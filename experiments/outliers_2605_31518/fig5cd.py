"""Figures 5c and 5d: dead-by-TopK and dead-by-ReLU over training: baseline, frozen bias, AuxK.

    python -m experiments.outliers_2605_31518.fig5cd --scale quick|full

Runs and settings: dynamics.py. The paper's gamma is lost with its text; this is 15, or the one nearest to it.
Under a frozen bias the count may rise (collateral death), so what is compared are the latents born dead-by-
ReLU: their pre-activations must not move at all, as neither the bias nor their own rows get a gradient.
"""

from experiments.outliers_2605_31518.curves import CONDITIONS, about, curve, some_of, step_axis
from experiments.outliers_2605_31518.dynamics import SETTINGS, sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main, near
from experiments.outliers_2605_31518.style import BLUE, GREEN, RED, death_axis, legend_below, sheet
from matplotlib.figure import Figure

COLOURS = {"baseline": BLUE, "frozen": RED, "auxk": GREEN}
PANELS = {"topk": "c  Dead-by-TopK", "relu": "d  Dead-by-ReLU"}


def compute(scale: Scale) -> Data:
    gamma = SETTINGS[scale.name].latents_at
    names = ["relu", "topk", "born_dead", "moved"]
    return {**some_of(sweep(scale), [f"{each} {gamma:g}" for each in CONDITIONS], names), "gamma": gamma}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=9.6, height=4.2, sharey=True)
    for axis, (pathway, title) in zip(axes[0], PANELS.items(), strict=True):
        for condition, label in CONDITIONS.items():
            values = curve(data, data["gamma"], condition, pathway)
            axis.plot(data["steps"], values, color=COLOURS[condition], label=label)
        step_axis(axis, data["steps"])
        axis.set_title(title, fontsize=10, loc="left")
    values = curve(data, data["gamma"], "baseline", "born_dead")
    axes[0, 1].plot(data["steps"], values, ":", color=BLUE, label="baseline: born dead-by-ReLU, and still so")
    death_axis(axes[0, 0], "fraction of latents")
    axes[0, 0].set_title(f"c  Dead-by-TopK; γ = {data['gamma']:g}, {about(data)}", fontsize=10, loc="left")
    legend_below(figure, axes[0, 1], 4)
    return figure


def claims(data: Data) -> list[Claim]:
    gamma = data["gamma"]
    born, moved = (curve(data, gamma, "frozen", name) for name in ("born_dead", "moved"))
    revived = {}
    for condition in CONDITIONS:
        values = curve(data, gamma, condition, "topk")
        revived[condition] = 1 - values[-1] / values[0]
    kept = curve(data, gamma, "baseline", "born_dead")
    ends = {condition: curve(data, gamma, condition, "relu")[-1] for condition in CONDITIONS}
    return [
        at_least(
            "fig5cd",
            "c: share of dead-by-TopK that is gone at the end, least of the three conditions",
            paper="all revive",
            ours=min(revived.values()),
            limit=0.75,
        ),
        near(
            "fig5cd",
            "d: frozen bias: share of those born dead-by-ReLU that stays so, least over training",
            paper=1.0,
            ours=min(born) / born[0] if born[0] else 1.0,
            by=0,
        ),
        near(
            "fig5cd",
            "d: frozen bias: largest movement of their maximum pre-activations",
            paper=0.0,
            ours=max(moved),
            by=0,
        ),
        at_most(
            "fig5cd",
            "d: baseline: share of those born dead-by-ReLU that is still so at the end",
            paper="declines, not to 0",
            ours=kept[-1] / kept[0] if kept[0] else 0.0,
            limit=0.9,
        ),
        at_most(
            "fig5cd",
            "d: dead-by-ReLU at the end, AuxK minus baseline",
            paper="lower",
            ours=ends["auxk"] - ends["baseline"],
            limit=-0.05,
        ),
    ]


FIGURE = Reproduction(name="fig5cd", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
