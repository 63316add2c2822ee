"""Figure S10: gradients of features scale with |mu|, that of the bias does not; at one gamma, a larger |mu| is
recovered from later.

    python -m experiments.outliers_2605_31518.figS10 --scale quick|full

Gamma is 10 throughout; mean and spread are scaled together, so that every SAE is born with the same codes, up
to scale. (a) At birth, on 10,000 tokens in float64: the norm of the gradient of W_enc and W_dec together (that
of W_dec across its rows, as in training) over the norm of the gradient of b. Dots: mean over draws of features
and rows; line: the line through the origin. (b) SignSGD at 1e-3: every coordinate moves by that much a step.
Shares of the mean in the bias (lines) and in the features (dashed), on held-out tokens; stream, rows and sizes
of dynamics.py. (c) The bias with Adam at that rate: latents recover as it comes, and gamma is the same, so what
differs is how far it has to go (App. C.3). Means of three draws in b and c, bands from the lowest to the highest.
"""

from dataclasses import asdict, replace
from math import hypot
from typing import Literal

import numpy as np
import torch
from experiments.outliers_2605_31518.curves import band, courses, curve, first_at_least, gamma_colours, step_axis
from experiments.outliers_2605_31518.dynamics import SETTINGS, Setting, Watched, born_plain, offset, stream
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main, near
from experiments.outliers_2605_31518.style import BLUE, sheet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from autopsae.remedies.affine import Affine
from autopsae.sae.model import SAE
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.sources import Member

GAMMA = 10.0
MEANS = (10.0, 20.0, 50.0, 100.0, 200.0)
"""|mu|, the paper's range."""
RATE = 1e-3
DRAWS, TRAINED = 5, 3
"""Draws of (a), and of (b) and (c), which are trained."""
OPTIMIZERS: dict[str, Literal["sign_sgd", "adam"]] = {"sign": "sign_sgd", "adam": "adam"}
CURVES = ("bias", "features")
TOKENS = 10_000


def compute(scale: Scale) -> Data:
    setting = SETTINGS[scale.name]
    first, *others = (_learn(replace(setting, seed=seed)) for seed in range(TRAINED))
    return {
        "gamma": GAMMA,
        "ratios": [_ratios(setting, seed) for seed in range(DRAWS)],
        **first,
        "draws": TRAINED,
        "further": [{"runs": other["runs"]} for other in others],
    }


def _ratios(setting: Setting, seed: int) -> list[float]:
    """Gradient of the features over that of the bias, at each |mu|, of one draw."""
    drawn = replace(setting, seed=10 * seed, tokens=TOKENS, held_out=1)
    x = (stream(drawn)[0] + offset(drawn, GAMMA)).double()
    return [_ratio(born_plain(drawn).double(), x * (mean / float(x.mean(dim=0).norm()))) for mean in MEANS]


def _ratio(sae: SAE, x: Tensor) -> float:
    loss = (x - sae(x)).square().sum() / len(x)
    enc, dec, bias = torch.autograd.grad(loss, [sae.W_enc, sae.W_dec, sae.b_dec])
    W_dec = sae.W_dec.detach()
    across = dec - (dec * W_dec).sum(dim=1, keepdim=True) * W_dec
    return hypot(float(enc.norm()), float(across.norm())) / float(bias.norm())


def _learn(setting: Setting) -> Data:
    """The curves of one draw: every |mu| under both optimizers."""
    steps: list[int] = []
    runs: dict[str, dict[str, str]] = {}
    for name, optimizer in OPTIMIZERS.items():
        steps, of_optimizer = _watch(setting, name, optimizer)
        runs |= of_optimizer
    kept = {name: value for name, value in asdict(setting).items() if name in ("batch_tokens", "sign_steps")}
    return {"settings": {**kept, "lr": RATE}, "steps": steps, "runs": runs}


def _watch(
    setting: Setting, name: str, optimizer: Literal["sign_sgd", "adam"]
) -> tuple[list[int], dict[str, dict[str, str]]]:
    """(recorded steps, curves by run) of every |mu| under one optimizer."""
    train, held_out = stream(setting)
    shift = offset(setting, GAMMA)
    size = float((train + shift).mean(dim=0).norm())
    config = TrainConfig(
        steps=setting.sign_steps,
        lr=RATE,
        batch_tokens=setting.batch_tokens,
        optimizer=optimizer,
        record_every=max(1, setting.sign_steps // setting.records),
    )
    members = [
        Member(sae=_scaled(born_plain(setting), mean / size), config=config, shift=shift, name=f"{name} {mean:g}")
        for mean in MEANS
    ]
    watched = [Watched(member, held_out, held_out) for member in members]
    steps = [0]
    for record in Training(members, train):
        for place in record:
            watched[place].look()
        steps.append(next(iter(record.values())).step + 1)
    return steps, {each.name: {name: each.packed()[name] for name in CURVES} for each in watched}


def _scaled(sae: SAE, scale: float) -> SAE:
    """The same weights, for tokens scaled by this much."""
    affine = Affine(center=sae.center, linear=None, inverse=None, scale=scale)
    return SAE(W_enc=sae.W_enc, W_dec=sae.W_dec, b_dec=sae.b_dec, sparsity=sae.sparsity, affine=affine)


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 3, width=13.2, height=4.4)
    left, right, third = axes[0]
    ratios = np.array(data["ratios"])
    means = np.array(MEANS)
    slope = float(means @ ratios.mean(axis=0) / (means @ means))
    grid = np.array([0, means.max()])
    left.plot(grid, slope * grid, color="0.5", linewidth=1.2, label="line through the origin")
    left.errorbar(
        means,
        ratios.mean(axis=0),
        yerr=ratios.std(axis=0),
        color=BLUE,
        marker="o",
        ls="",
        capsize=2,
        label="measured",
    )
    left.set_xlabel("‖μ‖")
    left.set_ylabel("‖gradient of features‖ / ‖gradient of b‖")
    left.set_title(f"a  At birth, γ = {data['gamma']:g}", fontsize=10, loc="left")
    left.legend(frameon=False, fontsize=9)
    colours = gamma_colours(list(MEANS))
    for mean, colour in colours.items():
        for name, style in (("bias", "-"), ("features", "--")):
            band(right, data["steps"], courses(data, mean, "sign", name), style, color=colour)
        band(third, data["steps"], courses(data, mean, "adam", "bias"), color=colour)
    step_axis(right, data["steps"])
    step_axis(third, data["steps"])
    third.set_ylim(-0.03, 1.25)
    third.set_ylabel("share of the mean in the bias")
    third.set_title(f"c  Adam, lr {data['settings']['lr']:g}, γ = {data['gamma']:g}", fontsize=10, loc="left")
    right.set_ylim(-0.03, 1.25)
    right.set_ylabel("share of the mean")
    right.set_title(f"b  SignSGD, lr {data['settings']['lr']:g}, γ = {data['gamma']:g}", fontsize=10, loc="left")
    lines = [Line2D([], [], color=colour, label=f"‖μ‖ = {mean:g}") for mean, colour in colours.items()]
    lines += [Line2D([], [], color="0.3", ls=ls, label=name) for name, ls in (("bias", "-"), ("features", "--"))]
    figure.legend(handles=lines, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    return figure


def claims(data: Data) -> list[Claim]:
    from scipy.stats import spearmanr

    ratios = np.array(data["ratios"]).mean(axis=0)
    slope = float(np.polyfit(np.log(MEANS), np.log(ratios), 1)[0])
    steps = data["steps"]
    ends = [curve(data, mean, "sign", "bias")[-1] for mean in MEANS]
    reached = [first_at_least(steps, curve(data, mean, "sign", "features"), 0.9) for mean in MEANS]
    late = max(steps[-1] if step is None else step for step in reached)
    return [
        near(
            "figS10",
            "a: slope of log(gradient ratio) on log |mu|",
            paper=1.0,
            ours=slope,
            by=0.05,
            draws=len(data["ratios"]),
        ),
        at_most(
            "figS10",
            "b: latest step at which the features carry 0.9 of the mean, over |mu|",
            paper="a few thousand",
            ours=float(late),
            limit=5000,
        ),
        near(
            "figS10",
            "b: Spearman(|mu|, share of the mean in the bias at the end)",
            paper=-1.0,
            ours=float(spearmanr(MEANS, ends).statistic),
            by=0,
        ),
        at_least(
            "figS10", f"b: the bias's share at the end, |mu| = {MEANS[0]:g}", paper=0.6, ours=ends[0], limit=0.5
        ),
        at_most(
            "figS10",
            f"b: the bias's share at the end, |mu| = {MEANS[-1]:g}",
            paper="barely moves",
            ours=ends[-1],
            limit=0.1,
        ),
        at_least(
            "figS10",
            "c: Adam: Spearman(|mu|, share of the mean that the bias lacks at the end)",
            paper="recovery scales with |mu|",
            ours=float(spearmanr(MEANS, [1 - curve(data, mean, "adam", "bias")[-1] for mean in MEANS]).statistic),
            limit=0.9,
        ),
    ]


FIGURE = Reproduction(name="figS10", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
