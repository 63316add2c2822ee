"""Figure S17: death that centering does not prevent: L1 on ReLU SAEs, and a k that falls during training.

    python -m experiments.outliers_2605_31518.figS17 --scale quick|full

All SAEs are centered by the geometric median at gamma 40, so that none of their latents is born dead. Left:
ReLU SAEs under L1 coefficients over three decades (the squared error at birth is about ||sigma||^2 = 9.8), with
an encoder bias, as the paper's ReLU SAEs have (Lindsey et al. 2024), and without. Without one, a row of any
length is positive on some token as long as the bias stays at the centre. Right: TopK SAEs whose k falls
linearly from 50 to its end during a part of training and then stays; part 0 is a constant k. Mean and spread
over draws on held-out tokens. The paper's text has no numbers for this figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from experiments.outliers_2605_31518 import learned
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main
from experiments.outliers_2605_31518.learned import config, follow, layer, mean_spread, newborn, rank
from experiments.outliers_2605_31518.style import BLUE, MARKERS, RED, SERIES, death_axis, sheet
from matplotlib.figure import Figure

from autopsae import ReLU, TopK
from autopsae.training import L1, Member

GAMMA, K_START = 40.0, 50


@dataclass(frozen=True, kw_only=True)
class Size(learned.SizeAtRate):
    coefficients: int = 7
    parts: tuple[float, ...] = (0.0, 0.02, 0.1, 0.5, 1.0)
    """Of the steps, during which k falls."""
    ends: tuple[int, ...] = (5, 2)


SIZES = {
    "quick": Size(steps=1500, draws=2, tokens=100_000, held_out=10_000),
    "full": Size(steps=4000, draws=3, tokens=400_000, held_out=20_000),
}


def compute(scale: Scale) -> Data:
    return measure(SIZES[scale.name])


def measure(size: Size) -> Data:
    """l1: a row per coefficient, with and without an encoder bias; k: a row per end and part."""
    return {
        "gamma": GAMMA,
        "k_start": K_START,
        "steps": size.steps,
        "draws": size.draws,
        "lr": size.lr,
        "l1": [row for biased in (True, False) for row in _penalised(size, biased)],
        "k": [_falling(size, k, part) for k in size.ends for part in size.parts],
    }


def _penalised(size: Size, biased: bool) -> list[dict[str, Any]]:
    coefficients = [float(f"{c:.3g}") for c in np.geomspace(1e-2, 10, size.coefficients)]
    members = [
        _member(size, seed, ReLU(), encoder_bias=biased, penalty=L1(coefficient=coefficient))
        for coefficient in coefficients
        for seed in range(size.draws)
    ]
    ends = _trained(size, members)
    return [
        {"coefficient": coefficient, "encoder_bias": biased, **_row(ends[i * size.draws : (i + 1) * size.draws])}
        for i, coefficient in enumerate(coefficients)
    ]


def _falling(size: Size, k: int, part: float) -> dict[str, Any]:
    k_steps = round(part * size.steps)
    schedule: dict[str, Any] = {"k_start": K_START, "k_steps": k_steps} if k_steps else {}
    members = [_member(size, seed, TopK(k=k), **schedule) for seed in range(size.draws)]
    return {"k": k, "part": part, "k_steps": k_steps, **_row(_trained(size, members))}


def _member(size: Size, seed: int, sparsity: ReLU | TopK, *, encoder_bias: bool = False, **others: Any) -> Member:
    of = layer(GAMMA, seed, tokens=size.tokens, held_out=size.held_out)
    settings = config(steps=size.steps, lr=size.lr, records=1, **others)
    sae = newborn("centered", of, seed, sparsity=sparsity, encoder_bias=encoder_bias)
    return Member(sae=sae, tokens=of.tokens, config=settings)


def _trained(size: Size, members: Sequence[Member]) -> list[dict[str, list[float]]]:
    """Birth and end of each; members are in the order of their draws."""
    layers = [
        layer(GAMMA, place % size.draws, tokens=size.tokens, held_out=size.held_out)
        for place in range(len(members))
    ]
    return follow(members, layers)


def _row(curves: Sequence[dict[str, list[float]]]) -> dict[str, Any]:
    """The means at the end, and death at birth."""
    both = mean_spread(curves)
    return {"dead_at_birth": both["dead"][0], **{name: values[-1] for name, values in both.items()}}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 3, width=12, height=4.2)
    for axis, name in ((axes[0, 0], "dead"), (axes[0, 1], "l0")):
        for biased, colour in ((True, RED), (False, BLUE)):
            rows = _l1(data, biased)
            axis.errorbar(
                [row["coefficient"] for row in rows],
                [row[name] for row in rows],
                yerr=[row[f"{name}_std"] for row in rows],
                color=colour,
                marker="o" if biased else "s",
                ms=4.5,
                lw=1.4,
                capsize=2,
                label=f"{'with' if biased else 'no'} encoder bias",
            )
        axis.set_xscale("log")
        axis.set_xlabel("L1 coefficient")
        axis.legend(frameon=False, fontsize=9)
    axes[0, 1].set_ylabel("L0: latents that fire per token")
    axes[0, 1].set_yscale("symlog", linthresh=0.1)
    axes[0, 1].set_ylim(-0.01, 130)
    axes[0, 1].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0, 0].set_title(f"ReLU, centered, γ = {data['gamma']:g}", fontsize=10, loc="left")
    _draw_schedules(axes[0, 2], data)
    for axis in (axes[0, 0], axes[0, 2]):
        death_axis(axis, "dead at the end, fraction of latents")
    return figure


def _draw_schedules(axis: Any, data: Data) -> None:
    parts = sorted({row["part"] for row in data["k"]})
    for place, k in enumerate(dict.fromkeys(row["k"] for row in data["k"])):
        rows = [row for row in data["k"] if row["k"] == k]
        axis.errorbar(
            [parts.index(row["part"]) for row in rows],
            [row["dead"] for row in rows],
            yerr=[row["dead_std"] for row in rows],
            color=SERIES[place],
            marker=MARKERS[place],
            ms=4.5,
            lw=1.4,
            capsize=2,
            label=f"k from {data['k_start']} to {k}",
        )
    axis.set_xticks(range(len(parts)), ["constant", *(f"{part:g}" for part in parts[1:])])
    axis.set_xlabel("part of training in which k falls")
    axis.set_title(f"TopK, centered, γ = {data['gamma']:g}", fontsize=10, loc="left")
    axis.legend(frameon=False, fontsize=9)


def claims(data: Data) -> list[Claim]:
    born_dead = max(row["dead_at_birth"] for row in [*data["l1"], *data["k"]])
    made = [
        at_most("figS17", "dead at birth, most over all SAEs", paper="zero-death start", ours=born_dead, limit=0.02)
    ]
    for biased in (True, False):
        rows = _l1(data, biased)
        coefficients, dead, l0 = ([row[name] for row in rows] for name in ("coefficient", "dead", "l0"))
        kind = f"{'with' if biased else 'no'} encoder bias"
        made += [
            # The paper's ReLU SAE has an encoder bias; what happens without one is this project's own question.
            rank(
                "figS17",
                f"Spearman(L1 coefficient, dead), {kind}",
                coefficients,
                dead,
                paper="progressively",
                own=not biased,
            ),
            at_most("figS17", f"dead at the lowest L1 coefficient, {kind}", paper="-", ours=dead[0], limit=0.05),
            at_least("figS17", f"dead at the highest L1 coefficient, {kind}", paper="-", ours=dead[-1], limit=0.5),
            rank("figS17", f"Spearman(L1 coefficient, -L0), {kind}", coefficients, [-n for n in l0], paper="-"),
        ]
    for k in dict.fromkeys(row["k"] for row in data["k"]):
        rows = [row for row in data["k"] if row["k"] == k]
        more = max(row["dead"] for row in rows if row["part"]) - rows[0]["dead"]
        said = f"dead at the end, k falling from {data['k_start']} to {k} (the worst) less k = {k} throughout"
        made.append(at_least("figS17", said, paper="the same outcome", ours=more, limit=0.1))
    return made


def _l1(data: Data, biased: bool) -> list[dict[str, Any]]:
    return [row for row in data["l1"] if row["encoder_bias"] == biased]


FIGURE = Reproduction(name="figS17", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
