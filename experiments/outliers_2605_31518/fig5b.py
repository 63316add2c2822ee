"""Figure 5b: the share of the mean that the bias has taken over, over training, by gamma (baseline).

    python -m experiments.outliers_2605_31518.fig5b --scale quick|full

Runs and settings: dynamics.py. The share is b . mu / ||mu||^2, mu of the held-out tokens. The order by gamma is
judged at the last record at which no run is over 0.9 yet: afterwards those of low gamma are all about 1, and in
no order. How far the bias gets depends on the rate and the number of steps; the paper's rate is not known.
"""

from experiments.outliers_2605_31518.curves import about, band, courses, curve, gamma_colours, some_of, step_axis
from experiments.outliers_2605_31518.dynamics import sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, main, near
from experiments.outliers_2605_31518.style import legend_below, sheet
from matplotlib.figure import Figure

PAPER = {20.0: 0.9, 30.0: 0.6, 40.0: 0.6}
"""At the end of 2M steps; 0.5 to 0.7 from gamma 30 on."""


def compute(scale: Scale) -> Data:
    data = sweep(scale)
    return some_of(data, [f"baseline {gamma:g}" for gamma in data["gammas"]], ["bias"])


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 1, width=6.4, height=4.6)
    for gamma, colour in gamma_colours(data["gammas"]).items():
        values = courses(data, gamma, "baseline", "bias")
        band(axes[0, 0], data["steps"], values, color=colour, label=f"γ = {gamma:g}")
    step_axis(axes[0, 0], data["steps"])
    axes[0, 0].set_ylim(-0.03, 1.05)
    axes[0, 0].set_ylabel("share of the mean in the bias, b·μ / ‖μ‖²")
    axes[0, 0].set_title(f"The bias learns the mean; {about(data)}", fontsize=10, loc="left")
    legend_below(figure, axes[0, 0], 4)
    return figure


def claims(data: Data) -> list[Claim]:
    from scipy.stats import spearmanr

    gammas, steps = data["gammas"], data["steps"]
    bias = {gamma: curve(data, gamma, "baseline", "bias") for gamma in gammas}
    place = max(at for at in range(len(steps)) if max(values[at] for values in bias.values()) <= 0.9)
    order = float(spearmanr(gammas, [bias[gamma][place] for gamma in gammas]).statistic)
    lowest = f"share at the end, gamma {gammas[0]:g}"
    return [
        near(
            "fig5b",
            f"Spearman(gamma, share at step {steps[place]})",
            paper=-1.0,
            ours=order,
            by=0,
            key="Spearman(gamma, share at the last step at which all are at most 0.9)",
        ),
        near("fig5b", lowest, paper=0.99, ours=bias[gammas[0]][-1], by=0.03),
        *(
            near("fig5b", f"share at the end, gamma {gamma:g}", paper=paper, ours=bias[gamma][-1], by=0.1)
            for gamma, paper in PAPER.items()
            if gamma in bias
        ),
    ]


FIGURE = Reproduction(name="fig5b", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
