"""Figures 5c and 5d: dead-by-TopK and dead-by-ReLU over training: baseline, frozen bias, AuxK.

    python -m experiments.outliers_2605_31518.fig5cd --scale quick|full

Runs and settings: dynamics.py; gamma 20, as in the paper's caption. Inset of c: where dead-by-TopK falls.
Under a frozen bias neither the bias nor the rows of a latent that was born dead-by-ReLU get a gradient, so nothing
but further tokens can revive it: dead-by-ReLU may rise (collateral death), and must not fall.
"""

from typing import Any

from experiments.outliers_2605_31518.curves import CONDITIONS, about, band, courses, curve, some_of, step_axis
from experiments.outliers_2605_31518.dynamics import sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main, near
from experiments.outliers_2605_31518.style import BLUE, GREEN, RED, death_axis, legend_below, sheet
from matplotlib.figure import Figure

GAMMA = 20.0
COLOURS = {"baseline": BLUE, "frozen": RED, "auxk": GREEN}
PANELS = {"topk": "c  Dead-by-TopK", "relu": "d  Dead-by-ReLU"}


def compute(scale: Scale) -> Data:
    names = ["relu", "topk", "born_dead", "moved"]
    return {**some_of(sweep(scale), [f"{each} {GAMMA:g}" for each in CONDITIONS], names), "gamma": GAMMA}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=9.6, height=4.2, sharey=True)
    for axis, (pathway, title) in zip(axes[0], PANELS.items(), strict=True):
        for condition, label in CONDITIONS.items():
            of_draws = courses(data, data["gamma"], condition, pathway)
            band(axis, data["steps"], of_draws, color=COLOURS[condition], label=label)
        step_axis(axis, data["steps"])
        axis.set_title(title, fontsize=10, loc="left")
    values = curve(data, data["gamma"], "baseline", "born_dead")
    axes[0, 1].plot(data["steps"], values, ":", color=BLUE, label="baseline: born dead-by-ReLU, and still so")
    _draw_inset(axes[0, 0], data)
    death_axis(axes[0, 0], "fraction of latents")
    figure.suptitle(f"γ = {data['gamma']:g}; {about(data)}", fontsize=10)
    legend_below(figure, axes[0, 1], 4)
    return figure


def _draw_inset(axis: Any, data: Data) -> None:
    """Dead-by-TopK up to where it has done three quarters of its fall under all conditions."""
    curves = {condition: curve(data, data["gamma"], condition, "topk") for condition in CONDITIONS}
    ends = [_fallen(values, 0.75) for values in curves.values()]
    last = min(len(data["steps"]) - 1, max(ends) + 2)
    inset = axis.inset_axes((0.42, 0.42, 0.55, 0.5))
    for condition, values in curves.items():
        inset.plot(data["steps"][: last + 1], values[: last + 1], color=COLOURS[condition])
    inset.set_xlim(0, data["steps"][last])
    inset.set_ylim(-0.03, 1.03)
    inset.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}")
    inset.tick_params(labelsize=7)
    inset.grid(alpha=0.25)
    inset.set_title("until three quarters of the fall", fontsize=7, loc="left")


def _fallen(values: list[float], share: float) -> int:
    """The first record at which a curve has done this share of its way from the first to its lowest value."""
    limit = values[0] - share * (values[0] - min(values))
    return next(place for place, value in enumerate(values) if value <= limit)


def claims(data: Data) -> list[Claim]:
    gamma = data["gamma"]
    frozen = courses(data, gamma, "frozen", "relu")
    moved = {name: float(courses(data, gamma, name, "moved").max()) for name in ("frozen", "baseline")}
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
            "d: frozen bias: dead-by-ReLU over that at birth, least over training and draws",
            key="d: frozen bias: share of those born dead-by-ReLU that stays so, least over training",
            paper=1.0,
            ours=float((frozen / frozen[:, :1]).min()) if frozen[:, 0].all() else 0.0,
            by=0.05,
        ),
        at_most(
            "fig5cd",
            "d: largest movement of their maximum pre-activations, frozen bias / baseline",
            paper=0.0,
            ours=moved["frozen"] / moved["baseline"] if moved["baseline"] else 1.0,
            limit=0.01,
            key="d: frozen bias: largest movement of their maximum pre-activations",
        ),
        at_most(
            "fig5cd",
            "d: baseline: share of those born dead-by-ReLU that is still so at the end",
            paper="declines, not to 0",
            ours=kept[-1] / kept[0] if kept[0] else 1.0,
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
