"""Figure S4: it is the ratio that counts: gamma varied through sigma, and gamma varied through mu.

    python -m experiments.outliers_2605_31518.figS4 --scale quick|full

Through mu: the features as they are, a growing offset. Through sigma: the outlier dimension's mean stays at 30
and the features shrink. The two have draws of their own, for with the same draws they are the same tokens times a
constant, which changes no death at all.
"""

from typing import Any

import numpy as np
import torch
from experiments.outliers_2605_31518.births import (
    Setting,
    birth,
    closed_forms,
    draw_tokens,
    mean_deviation,
    summary,
)
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, main
from experiments.outliers_2605_31518.style import BLACK, RELU, TOPK, death_axis, gamma_axis, legend_below, sheet
from matplotlib.figure import Figure

GAMMAS = (0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 40.0, 100.0)
OFFSET = 30.0
NAMES = {"dead": "dead-by-TopK", "relu": "dead-by-ReLU"}


def compute(scale: Scale) -> Data:
    """A row per gamma: both ways, and both with the same draws."""
    setting, rows = Setting(), []
    for gamma in GAMMAS:
        mine, others = range(scale.draws), range(scale.draws, 2 * scale.draws)
        through_mu = [birth(draw_tokens(setting, gamma, scale.tokens, seed), setting, seed) for seed in mine]
        drawn = [_through_sigma(draw_tokens(setting, gamma, scale.tokens, seed)) for seed in others]
        through_sigma = [birth(x, setting, seed) for seed, x in zip(others, drawn, strict=True)]
        rows.append(
            {
                "gamma": gamma,
                "mu": summary(through_mu, setting, gamma, scale.tokens),
                "sigma": summary(through_sigma, setting, gamma, scale.tokens),
                "sigma_norm": round(float(np.mean([float(x.std(dim=0).norm()) for x in drawn])), 4),
            }
        )
    return {"tokens": scale.tokens, "draws": scale.draws, "rows": rows}


def _through_sigma(x: torch.Tensor) -> torch.Tensor:
    """The tokens with their outlier dimension's mean at OFFSET, and so the features' part that much smaller."""
    return x * (OFFSET / x[:, 0].double().mean()).to(x)


def draw(data: Data) -> Figure:
    figure, axes = sheet(2, 1, width=6.6, height=6.4, sharex=True, height_ratios=(2.4, 1))
    above, below = axes[:, 0]
    gammas = [row["gamma"] for row in data["rows"]]
    for pathway, colour in (("dead", TOPK), ("relu", RELU)):
        curve = closed_forms(Setting(), data["tokens"], gammas[0], gammas[-1])
        above.plot(curve["gamma"], curve[pathway], color=colour, lw=1.1, label=f"{NAMES[pathway]}, closed form")
        for way, marker, filled in (("mu", "o", True), ("sigma", "s", False)):
            mean, spread = ([row[way][pathway + end] for row in data["rows"]] for end in ("", "_std"))
            above.errorbar(
                gammas, mean, yerr=spread, color=colour, marker=marker, ms=5 if filled else 8, lw=0, elinewidth=0.8,
                capsize=2, mfc=colour if filled else "none",
                label=f"{NAMES[pathway]}, γ through {'μ' if filled else 'σ'}",
            )  # fmt: skip
        difference = [row["sigma"][pathway] - row["mu"][pathway] for row in data["rows"]]
        error = [_standard_error(row, pathway, data["draws"]) for row in data["rows"]]
        below.errorbar(
            gammas, difference, yerr=error, color=colour, marker="D", ms=4, lw=0, elinewidth=1, capsize=2
        )
    below.axhline(0, color=BLACK, linewidth=0.8)
    below.set_ylabel("through σ - through μ\n(± standard error)")
    gamma_axis(above)
    gamma_axis(below)
    above.set_xlabel("")
    death_axis(above)
    above.set_title(f"{data['tokens']:,} tokens, {data['draws']} draws each", fontsize=10, loc="left")
    legend_below(figure, above, 2)
    return figure


def claims(data: Data) -> list[Claim]:
    pairs = [(row, pathway) for row in data["rows"] for pathway in NAMES]
    difference = {(row["gamma"], path): abs(row["sigma"][path] - row["mu"][path]) for row, path in pairs}
    errors = [
        difference[row["gamma"], path] / _standard_error(row, path, data["draws"])
        for row, path in pairs
        if difference[row["gamma"], path] > 0
    ]
    return [
        at_most(
            "figS4",
            "|through sigma - through mu|, in standard errors of the draws, largest of all gammas and pathways",
            paper="collapse onto the same curves",
            ours=max(errors),
            limit=3.5,
        ),
        at_most(
            "figS4",
            "|through sigma - through mu|, fraction of latents, largest of all gammas and pathways",
            paper="collapse onto the same curves",
            ours=max(difference.values()),
            limit=0.05,
        ),
        at_most(
            "figS4",
            "|through sigma - closed form|, which knows of gamma alone, mean over gammas and pathways",
            key="the same with the same draws",
            paper="collapse onto the same curves",
            ours=float(np.mean([mean_deviation([row["sigma"] for row in data["rows"]], path) for path in NAMES])),
            limit=0.05,
        ),
    ]


def _standard_error(row: dict[str, Any], pathway: str, draws: int) -> float:
    """Of the difference of the two means over draws; at least what one latent of one draw makes."""
    spread = float(np.hypot(row["sigma"][f"{pathway}_std"], row["mu"][f"{pathway}_std"]))
    return float(max(spread, 1 / Setting().d_sae / draws**0.5) / draws**0.5)


FIGURE = Reproduction(name="figS4", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
