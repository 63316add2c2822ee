"""Figure 3: the two ways of being born dead, latent by latent, at a moderate outlier severity.

    python -m experiments.outliers_2605_31518.fig3 --scale quick|full

The latents of one draw, ordered by their shift w . mu. Above: the range of each latent's pre-activations over all
tokens, beside zero (what the ReLU asks) and the k-th largest pre-activation (what TopK asks). Below: how often each
fires. Pre-activations are in units of s = ||sigma|| / sqrt(d_in), a typical latent's signal.

Lethal shifts in closed form (App. B.3, B.5), in the same units: -C for the ReLU, t_k gamma - C for TopK.
"""

from typing import Any

import numpy as np
import torch
from experiments.outliers_2605_31518.births import Setting, draw_tokens, encoder_rows
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, main, near
from experiments.outliers_2605_31518.style import ALIVE, BLACK, PURPLE, RELU, TOPK, sheet
from matplotlib.figure import Figure
from scipy.stats import norm

from autopsae.survival.closed_form import reach

GAMMA = 5.0
FATES = {"dead-by-ReLU": RELU, "dead-by-TopK": TOPK, "alive": ALIVE}


def compute(scale: Scale) -> Data:
    """Every latent of one draw, and over all draws what the claims need."""
    shown, drawn = _latents(scale.tokens, 0), [_latents(scale.tokens, seed) for seed in range(scale.draws)]
    return {
        "gamma": GAMMA,
        "tokens": scale.tokens,
        "draws": scale.draws,
        "latents": shown,
        "largest_shift_dead_by_relu": [_largest_shift(latents, "dead-by-ReLU") for latents in drawn],
        "told_by_shift": [_told_by_shift(latents, scale.tokens) for latents in drawn],
        "wins_of_the_k": [sum(sorted(latents["fires"])[-Setting().k :]) / Setting().k for latents in drawn],
    }


def _latents(tokens: int, seed: int) -> dict[str, Any]:
    setting = Setting()
    x, rows = draw_tokens(setting, GAMMA, tokens, seed).double(), encoder_rows(setting, seed).double()
    mu, unit = x.mean(dim=0), float(x.std(dim=0).norm()) / setting.d_in**0.5
    order = (rows @ mu).argsort()
    pre = x @ rows[order].T
    top = pre.topk(setting.k, dim=1)
    fires = torch.bincount(top.indices[top.values > 0], minlength=setting.d_sae).double() / tokens
    fate = torch.where(fires > 0, 2, (pre > 0).any(dim=0).long())
    kth = top.values[:, -1].quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)) / unit
    return {
        "shift": (rows[order] @ mu / unit).numpy().round(4).tolist(),
        "least": (pre.amin(dim=0) / unit).numpy().round(4).tolist(),
        "largest": (pre.amax(dim=0) / unit).numpy().round(4).tolist(),
        "fires": fires.tolist(),
        "fate": [list(FATES)[i] for i in fate.tolist()],
        "kth_largest": kth.numpy().round(4).tolist(),
    }


def _largest_shift(latents: dict[str, Any], fate: str) -> float:
    return float(max(s for s, f in zip(latents["shift"], latents["fate"], strict=True) if f == fate))


def _told_by_shift(latents: dict[str, Any], tokens: int) -> float:
    """Share of latents whose fate is the one that the lethal shifts tell."""
    setting = Setting()
    C, t_k = reach(tokens), float(norm.ppf(1 - setting.k / setting.d_sae))
    edges = [-C, t_k * GAMMA - C]
    told = [list(FATES)[int(np.searchsorted(edges, shift))] for shift in latents["shift"]]
    return float(np.mean([a == b for a, b in zip(told, latents["fate"], strict=True)]))


def draw(data: Data) -> Figure:
    latents = data["latents"]
    figure, axes = sheet(2, 1, width=9, height=6.2, sharex=True, height_ratios=(2.2, 1))
    above, below = axes[:, 0]
    for fate, colour in FATES.items():
        own = [i for i, f in enumerate(latents["fate"]) if f == fate]
        least, largest, shift, fires = (
            [latents[key][i] for i in own] for key in ("least", "largest", "shift", "fires")
        )
        above.vlines(own, least, largest, color=colour, linewidth=2.6, alpha=0.75, label=f"{fate} ({len(own)})")
        above.plot(own, shift, ".", color=BLACK, ms=3.5, label="shift w·μ" if fate == "alive" else None)
        below.bar(own, fires, color=colour, width=0.85)
    low, middle, high = latents["kth_largest"]
    above.axhline(0, color=BLACK, linestyle="--", linewidth=1, label="zero")
    above.axhline(middle, color=PURPLE, linewidth=1.4, label="k-th largest, median and 5-95 % of tokens")
    above.axhspan(low, high, color=PURPLE, alpha=0.18, linewidth=0)
    above.set_ylabel("pre-activation, in ‖σ‖ / √$d_{in}$")
    above.set_title(
        f"γ = {data['gamma']:g}, {data['tokens']:,} tokens: bars from each latent's least to its largest",
        fontsize=10,
        loc="left",
    )
    below.set_ylabel("tokens on which it\nfires, fraction")
    below.set_xlabel("latent, by its shift: anti-aligned with the mean to aligned")
    below.set_xlim(-1, len(latents["shift"]))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def claims(data: Data) -> list[Claim]:
    shifts = data["largest_shift_dead_by_relu"]
    return [
        near(
            "fig3",
            f"gamma {data['gamma']:g}: draws with a dead-by-ReLU latent whose shift is not negative, fraction",
            paper=0.0,
            ours=float(np.mean([shift >= 0 for shift in shifts])),
            by=0,
        ),
        at_least(
            "fig3",
            "latents whose fate (of three) their shift alone tells, by the lethal shifts -C and t_k gamma - C",
            paper="predetermined by the shift",
            ours=float(np.mean(data["told_by_shift"])),
            limit=0.85,
        ),
        at_least(
            "fig3",
            "mean share of tokens on which the k most frequent latents fire",
            paper="the same win every selection",
            ours=float(np.mean(data["wins_of_the_k"])),
            limit=0.5,
        ),
    ]


FIGURE = Reproduction(name="fig3", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
