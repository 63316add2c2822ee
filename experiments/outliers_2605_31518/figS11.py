"""Figure S11: the bias alone, with frozen features, learns the mean; beside features that learn, it lags.

    python -m experiments.outliers_2605_31518.figS11 --scale quick|full

Runs and settings: dynamics.py, at gamma 20.
"""

from experiments.outliers_2605_31518.curves import about, band, courses, curve, first_at_least, some_of, step_axis
from experiments.outliers_2605_31518.dynamics import SETTINGS, sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, main, near
from experiments.outliers_2605_31518.style import BLUE, GREEN, legend_below, sheet
from matplotlib.figure import Figure

SHOWN = {"alone": (GREEN, "features frozen: the bias alone"), "baseline": (BLUE, "baseline: features learn too")}


def compute(scale: Scale) -> Data:
    gamma = SETTINGS[scale.name].alone_at
    return {**some_of(sweep(scale), [f"{name} {gamma:g}" for name in SHOWN], ["bias"]), "gamma": gamma}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 1, width=6.0, height=4.4)
    axis = axes[0, 0]
    for condition, (colour, label) in SHOWN.items():
        band(axis, data["steps"], courses(data, data["gamma"], condition, "bias"), color=colour, label=label)
    axis.axhline(0.99, color="0.6", linestyle=":", linewidth=1)
    step_axis(axis, data["steps"])
    axis.set_ylim(-0.03, 1.08)
    axis.set_ylabel("share of the mean in the bias, b·μ / ‖μ‖²")
    axis.set_title(f"γ = {data['gamma']:g}; {about(data)}", fontsize=10, loc="left")
    legend_below(figure, axis, 2)
    return figure


def claims(data: Data) -> list[Claim]:
    gamma, steps = data["gamma"], data["steps"]
    alone, baseline = (curve(data, gamma, condition, "bias") for condition in SHOWN)
    reached = first_at_least(steps, alone, 0.99)
    place = len(steps) - 1 if reached is None else steps.index(reached)
    times = min(len(steps) - 1, round(place * 1_000_000 / 120_000))
    return [
        near("figS11", "features frozen: the bias's share at the end", paper=0.99, ours=alone[-1], by=0.015),
        at_most(
            "figS11",
            f"baseline: the bias's share at step {steps[place]}, where the bias alone has 0.99",
            paper="lags",
            ours=baseline[place],
            limit=0.5,
            key="baseline: the bias's share where the bias alone has 0.99",
        ),
        near(
            "figS11",
            f"baseline: the bias's share at step {steps[times]}, 8.3 times as late (1M / 120K) or the last",
            paper=0.87,
            ours=baseline[times],
            by=0.1,
            key="baseline: the bias's share 8.3 times as late",
        ),
    ]


FIGURE = Reproduction(name="figS11", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
