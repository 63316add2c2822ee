"""Figure S8: each latent's maximum pre-activation over training, by its fate at birth; baseline and frozen bias.

    python -m experiments.outliers_2605_31518.figS8 --scale quick|full

Runs and settings: dynamics.py. Above: the latents of one draw. Below, means and bands of all draws: the top-k
threshold, and the share of the mean that the features carry, the mean of z W_dec along mu. Fates at birth are
measured on training and held-out tokens, maxima on the held-out ones.
"""

from statistics import mean, median

from experiments.outliers_2605_31518.curves import (
    about,
    band,
    courses,
    curve,
    draws_of,
    first_at_least,
    some_of,
    step_axis,
    unpacked,
    window,
)
from experiments.outliers_2605_31518.dynamics import SETTINGS, sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main
from experiments.outliers_2605_31518.style import ALIVE, ORANGE, PURPLE, RELU, TOPK, sheet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

FATES = {
    "relu": (RELU, "born dead-by-ReLU"),
    "topk": (TOPK, "born dead-by-TopK"),
    "alive": (ALIVE, "born alive"),
}
PANELS = {"baseline": "a  Baseline", "frozen": "b  Bias frozen"}


def compute(scale: Scale) -> Data:
    data, gamma = sweep(scale), SETTINGS[scale.name].latents_at
    runs = [f"{name} {gamma:g}" for name in PANELS]
    names = ["threshold", "topk", "bias", "features"]
    moves = {
        condition: [_moves(draw["latents"][run]) for draw in draws_of(data)]
        for condition, run in zip(PANELS, runs, strict=True)
    }
    return {**some_of(data, runs, names), "latents": data["latents"], "moves": moves, "gamma": gamma}


def draw(data: Data) -> Figure:
    figure, axes = sheet(2, 2, width=9.6, height=6.6, sharex=True, sharey="row", height_ratios=(2, 1))
    gamma = data["gamma"]
    for column, (condition, title) in enumerate(PANELS.items()):
        upper, lower = axes[:, column]
        latents = data["latents"][f"{condition} {gamma:g}"]
        for fate, (colour, _) in FATES.items():
            for born, course in zip(latents["born"], latents["maxima"], strict=True):
                if born == fate:
                    upper.plot(data["steps"], unpacked(course), color=colour, alpha=0.45, linewidth=0.8)
        upper.axhline(0, color="0.3", linewidth=0.8)
        upper.set_title(f"{title}, γ = {gamma:g}", fontsize=10, loc="left")
        band(lower, data["steps"], courses(data, gamma, condition, "threshold"), color=PURPLE)
        shares = lower.twinx()
        band(shares, data["steps"], courses(data, gamma, condition, "features"), color=ORANGE)
        shares.set_ylim(-0.03, 1.15)
        shares.spines["top"].set_visible(False)
        shares.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        step_axis(lower, data["steps"])
        shares.set_ylabel("share of the mean\nin the features")
    upper_left, lower_left = axes[:, 0]
    upper_left.set_ylabel("maximum pre-activation")
    lower_left.set_ylabel("top-k threshold")
    shown = [*FATES.values(), (PURPLE, "top-k threshold"), (ORANGE, "share of the mean in the features")]
    lines = [Line2D([], [], color=colour, label=label) for colour, label in shown]
    figure.legend(handles=lines, loc="outside lower center", ncols=5, frameon=False, fontsize=8, title=about(data))
    return figure


def claims(data: Data) -> list[Claim]:
    gamma, steps = data["gamma"], data["steps"]
    start, end = {}, {}
    for condition in PANELS:
        found = [
            window(*(curve(draw, gamma, condition, name) for name in ("threshold", "topk")))
            for draw in draws_of(data)
        ]
        places = zip(*found, strict=True)
        start[condition], end[condition] = (mean(steps[at] for at in of_draws) for of_draws in places)
    moves = data["moves"]
    most = {condition: max(draw["largest"] for draw in moves[condition]) for condition in PANELS}
    carried = curve(data, gamma, "baseline", "features")
    reached = first_at_least(steps, carried, 0.9)
    return [
        at_most(
            "figS8",
            "largest movement of the maxima of those born dead-by-ReLU, frozen bias / baseline",
            paper=0.0,
            ours=most["frozen"] / most["baseline"] if most["baseline"] else 1.0,
            limit=0.01,
            key="frozen bias: largest movement of the maxima of those born dead-by-ReLU",
        ),
        at_least(
            "figS8",
            "baseline: median rise of the maxima of those born dead-by-ReLU",
            paper="they rise",
            ours=mean(draw["rise"] for draw in moves["baseline"]),
            limit=1.0,
        ),
        at_most(
            "figS8",
            "|end of the collapse, frozen / baseline - 1|: the collapse needs no bias",
            paper="same timescale",
            ours=abs(end["frozen"] / end["baseline"] - 1) if end["baseline"] else 1.0,
            limit=0.25,
        ),
        at_most(
            "figS8",
            "baseline: step at which the features carry 0.9 of the mean / step at which the window opens",
            paper="collapse follows",
            ours=(steps[-1] if reached is None else reached) / max(1, start["baseline"]),
            limit=1.0,
        ),
    ]


def _moves(latents: dict[str, list[str]]) -> dict[str, float]:
    """Of the maxima of the latents born dead-by-ReLU: the largest change, and the median rise to the end."""
    found = [unpacked(c) for c, born in zip(latents["maxima"], latents["born"], strict=True) if born == "relu"]
    changes = [[value - course[0] for value in course] for course in found]
    largest = max((abs(change) for course in changes for change in course), default=0.0)
    return {"largest": largest, "rise": median(course[-1] for course in changes) if changes else 0.0}


FIGURE = Reproduction(name="figS8", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
