"""SAEs on the paper's synthetic data (A.1.2), trained and measured: what fig6, figS13, figS13b and figS17 share.

The paper: d_in 50, 100 features, 5 active, d_sae 100, k 5, b at 0 or at the centre, W_dec = W_enc with unit
rows, no encoder bias (but figS17), nothing rescaled, Adam at a constant rate. Batches here are of 512 tokens
unless a figure says otherwise (the paper: 4096), and steps are fewer at higher rates; see README.md.
Draw s has features, tokens and encoder rows of its own, the same in all conditions and at all gammas. All that
is reported is measured on held-out tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Unpack

import numpy as np
import torch
from experiments.outliers_2605_31518.births import Setting
from experiments.outliers_2605_31518.frame import Claim, More, at_least
from torch import Tensor

from autopsae import SAE, TopK, TrainConfig, born, evaluate
from autopsae.activations.synthetic import synthetic_features
from autopsae.evaluation import mmcs
from autopsae.remedies import center, untouched
from autopsae.sae.sparsity import Sparsity
from autopsae.statistics import geometric_median
from autopsae.training import Member, Training

BATCH = 512
CALIBRATION = 500
"""Tokens on which the centre is taken (paper, App. D.5)."""
MEASURES = ("dead", "relu", "mse", "mmcs", "bias", "l0")
"""dead, relu: fractions of latents; mse: raw, per token and dimension; bias: share of the mean captured."""
Curve = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One draw of the data. tokens: to train on; held_out: others, of the same features."""

    tokens: Tensor
    held_out: Tensor
    features: Tensor


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained."""

    steps: int
    draws: int
    tokens: int
    """To train on, of each draw."""
    held_out: int


@dataclass(frozen=True, kw_only=True)
class SizeAtRate(Size):
    """The same at one rate."""

    lr: float = 3e-3


@lru_cache(maxsize=16)
def layer(gamma: float, seed: int, *, tokens: int, held_out: int) -> Layer:
    """The draw `seed` at a gamma; kept, so that members with the same one share a stream."""
    data = synthetic_features(tokens, gamma, generator=torch.Generator().manual_seed(seed))
    others = replace(data, tokens=held_out, seed=data.seed + tokens)
    return Layer(tokens=torch.cat(list(data)), held_out=torch.cat(list(others)), features=data.features)


def newborn(
    start: str,
    of: Layer,
    seed: int,
    *,
    d_sae: int = Setting().d_sae,
    sparsity: Sparsity | None = None,
    encoder_bias: bool = False,
) -> SAE:
    """start: "baseline" (b = 0), "layer norm" (the same on normalised tokens), "centered" (b at the geometric
    median) or "mean" (b at the arithmetic one).
    """
    d_in, sample = of.tokens.shape[1], of.tokens[:CALIBRATION]
    remedy = untouched(d_in)
    if start == "centered":
        remedy = center(geometric_median(sample), "geometric median")
    elif start == "mean":
        remedy = center(sample.double().mean(dim=0), "mean")
    return born(
        remedy,
        d_sae=d_sae,
        sparsity=sparsity or TopK(k=Setting().k),
        scaled=False,
        generator=torch.Generator().manual_seed(1_000_000 + seed),
        layer_norm=start == "layer norm",
        encoder_bias=encoder_bias,
    )


def config(*, steps: int, lr: float, records: int, batch: int = BATCH, seed: int = 0, **others: Any) -> TrainConfig:
    """At a constant rate, with about so many records. A latent silent for 62 batches counts as dead to AuxK, as in
    the paper's (256,000 tokens of 4096).
    """
    return TrainConfig(
        steps=steps, lr=lr, batch_tokens=batch, record_every=max(1, steps // records), seed=seed, **others
    )


def follow(members: Sequence[Member], layers: Sequence[Layer]) -> list[Curve]:
    """Train the members as one, and measure each on its layer's held-out tokens at birth and at every record.

    A member that diverged keeps its last numbers.
    """
    curves: list[Curve] = [{"step": [], **{name: [] for name in MEASURES}} for _ in members]
    for curve, member, of in zip(curves, members, layers, strict=True):
        _measure(curve, member.sae, of, 0)
    for records in Training(members):
        for place, record in records.items():
            _measure(curves[place], members[place].sae, layers[place], record.step + 1)
    return curves


def train_draws(
    size: SizeAtRate, gamma: float, start: str, *, settings: Mapping[str, Any], **birth: Any
) -> tuple[dict[str, float], list[SAE], list[Layer]]:
    """(what all draws end with: means and spreads, dead at birth and at the record before the last one; the trained
    SAEs; their layers). settings: of the training; birth: of `newborn`.
    """
    layers = [layer(gamma, seed, tokens=size.tokens, held_out=size.held_out) for seed in range(size.draws)]
    members = [
        Member(
            sae=newborn(start, of, seed, **birth),
            tokens=of.tokens,
            config=config(steps=size.steps, lr=size.lr, records=4, **settings),
        )
        for seed, of in enumerate(layers)
    ]
    curves = mean_spread(follow(members, layers))
    ends = {**last(curves), "born": curves["dead"][0], "before": curves["dead"][-2]}
    return ends, [member.sae for member in members], layers


def _measure(curve: Curve, sae: SAE, of: Layer, step: int) -> None:
    found = evaluate(sae, of.held_out)
    measured = {
        "step": step,
        "dead": found.fates.dead,
        "relu": found.fates.dead_by_relu,
        "mse": found.mse_raw,
        "mmcs": mmcs(sae.W_dec, of.features),
        "bias": found.bias_captured,
        "l0": found.l0,
    }
    for name, value in measured.items():
        curve[name].append(float(f"{value:.4g}"))


def mean_spread(curves: Sequence[Curve], names: Sequence[str] = MEASURES) -> Curve:
    """Mean over draws and, under NAME_std, their standard deviation, along the steps; curves of one length."""
    made: Curve = {"step": curves[0]["step"]}
    for name in names:
        values = np.array([curve[name] for curve in curves])
        made[name] = _short(values.mean(axis=0))
        made[f"{name}_std"] = _short(values.std(axis=0, ddof=min(1, len(values) - 1)))
    return made


def last(curve: Curve) -> dict[str, float]:
    """What a curve ends with."""
    return {name: values[-1] for name, values in curve.items()}


def rank(
    figure: str, claim: str, first: Sequence[float], second: Sequence[float], *, paper: str, **more: Unpack[More]
) -> Claim:
    """Spearman's correlation of the two is 0.9 at least; 0 where one of them does not vary."""
    from scipy.stats import spearmanr

    varies = len({*first}) > 1 and len({*second}) > 1
    ours = float(spearmanr(first, second).statistic) if varies else 0.0
    return at_least(figure, claim, paper=paper, ours=ours, limit=0.9, **more)


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
