"""Nine layers of our own in detail: what Figures 2b, S1, S2, S5, S19 and S20 show of real layers.

    python -m experiments.outliers_2605_31518.measure_details DATA WORK [--networks smollm2,...] [--tokens 10000]

Writes results/details/NETWORK.POINT.json for each layer of LAYERS that has no file yet. Nothing is trained.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from experiments.outliers_2605_31518.measure_layers import (
    ASKED,
    DIRECTIONS,
    random_projections,
    shorten,
    take_tokens,
)
from experiments.outliers_2605_31518.networks import ZOO, load, run_over_inputs
from experiments.outliers_2605_31518.own import DETAILS
from torch import Tensor

from autopsae.diagnosis.births import DRAW
from autopsae.diagnosis.outliers import outlier_dimensions
from autopsae.diagnosis.severity import severity
from autopsae.files import write_text
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten, z_score
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.seeds import stream
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import layer_norm
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import measure_birth

LAYERS = {
    "spliceai": ("skips.3",),
    "unirep256": ("layers.3",),
    "minilm": ("encoder.layer.5.output.dense",),
    "dinov2": ("hs12", "encoder.layer.11.mlp.activation_fn"),
    "antiberty": ("hs1",),
    "smollm2": ("hs12", "model.layers.0.self_attn"),
    "gemma3": ("hs2",),
}
SWEPT = ("encoder.layer.5.output.dense", "encoder.layer.11.mlp.activation_fn", "model.layers.0.self_attn", "hs2")
"""The layers of low rank, on which whitening and active subspaces are varied."""
COUNTS = (1_000, 2_000, 5_000, 10_000, 25_000, 50_000, 100_000)
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RANKS = (2, 4, 8, 16, 64, 256)
SWEEP_TOKENS = 10_000
SHOWN_TOKENS, SHOWN_LATENTS = 24, 1500
EDGES = tuple(round(-8 + 0.25 * step, 2) for step in range(65))
"""Of the histogram of projections, in standard deviations; what lies outside is in the first and the last bin."""


def measure(x: Tensor, *, swept: bool) -> dict[str, Any]:
    """All of a layer. x: its tokens in a random order."""
    start = time.perf_counter()
    statistics = collect(x)
    median = geometric_median(statistics.sample)
    geometry = severity(statistics, median)
    found: dict[str, Any] = {
        "tokens": len(x),
        "d_in": statistics.d_in,
        "d_sae": ASKED.d_sae,
        "k": ASKED.sparsity.l0,
        "gamma": geometry.gamma,
        "rank": geometry.effective_rank_fraction,
        "kurtosis": geometry.kurtosis,
        "outlier_dimensions": [vars(dimension) for dimension in outlier_dimensions(statistics.normed)],
        "landscape": layer_norm(x[:SHOWN_TOKENS].double()).round(decimals=2).tolist(),
        "curve": _curve(x, median),
        "projections": _projections(x, statistics),
        "latents": _latents(x, statistics, median),
        "sweep": _sweep(x[:SWEEP_TOKENS], statistics, median, geometry.effective_rank) if swept else None,
    }
    shortened: dict[str, Any] = shorten({**found, "minutes": (time.perf_counter() - start) / 60})
    return shortened


def _births(x: Tensor, remedies: list[Remedy]) -> dict[str, dict[str, float]]:
    chance = stream(ASKED.seed, DRAW)
    births = measure_birth(x, remedies, d_sae=ASKED.d_sae, sparsity=ASKED.sparsity, generator=chance)
    return {name: {"dead": birth.dead, "relu": birth.dead_by_relu} for name, birth in births.items()}


def _curve(x: Tensor, median: Tensor) -> list[dict[str, Any]]:
    """Death on the first tokens of a random order, without a remedy and centered by the median."""
    remedies = [untouched(x.shape[1]), center(median, "median")]
    return [{"tokens": n, **_births(x[:n], remedies)} for n in COUNTS if n <= len(x)]


def _projections(x: Tensor, statistics: Statistics) -> dict[str, Any]:
    """A histogram of the tokens along one random direction, and the largest value along each of 500."""
    on_directions, largest = random_projections(statistics), torch.full((DIRECTIONS,), -torch.inf)
    counts = torch.zeros(len(EDGES) - 1, dtype=torch.int64)
    for block in x.split(2048):
        y = on_directions(block)
        largest = torch.maximum(largest, y.amax(dim=0))
        counts += torch.histogram(y[:, 0].clamp(EDGES[0], EDGES[-1]), torch.tensor(EDGES)).hist.long()
    return {"histogram": counts.tolist(), "first": float(largest[0]), "largest": largest.tolist()}


def _latents(x: Tensor, statistics: Statistics, median: Tensor) -> dict[str, Any]:
    """Of latents centered by the median: mean and standard deviation of the pre-activation, and whether it fires.

    Both in units of the median latent's standard deviation.
    """
    sae = born(
        center(median, "median"),
        d_sae=ASKED.d_sae,
        sparsity=ASKED.sparsity,
        sample=statistics.sample,
        generator=stream(ASKED.seed, DRAW),
    )
    alive = fates(sae, x).fired > 0
    rows = sae.W_enc.detach().double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    mean = rows @ (statistics.raw.mean - median)
    std = ((rows @ statistics.raw.covariance) * rows).sum(dim=1).sqrt()
    unit = std.median()
    shown = torch.randperm(ASKED.d_sae, generator=torch.Generator().manual_seed(0))[:SHOWN_LATENTS]
    return {
        "dead": float((~alive).double().mean()),
        "mean": (mean / unit)[shown].tolist(),
        "std": (std / unit)[shown].tolist(),
        "alive": alive[shown].int().tolist(),
        "std_alive": float((std[alive] / unit).median()),
        "std_dead": float((std[~alive] / unit).median()) if bool((~alive).any()) else None,
    }


def _sweep(x: Tensor, statistics: Statistics, median: Tensor, rank: float) -> dict[str, Any]:
    """Death under interpolated whitening by alpha and under active subspaces by rank, on 10,000 tokens."""
    spectrum = Spectrum.of(statistics.raw.covariance)
    share = spectrum.eigenvalues.cumsum(0) / spectrum.eigenvalues.sum()
    ranks = sorted({max(1, round(rank)), *(r for r in RANKS if r <= x.shape[1])})
    whitened = {alpha: whiten(spectrum, median, alpha=alpha) for alpha in ALPHAS}
    subspaces = {r: active_subspace(spectrum, median, rank=r) for r in ranks}
    fixed = [untouched(x.shape[1]), center(median, "median"), z_score(statistics.raw.std, median)]
    dead = _births(x, [*fixed, *whitened.values(), *subspaces.values()])
    return {
        "tokens": len(x),
        "directions_with_99_percent": int((share < 0.99).sum()) + 1,
        "first_share": float(share[0]),
        "effective_rank": rank,
        "fixed": {remedy.name: dead[remedy.name]["dead"] for remedy in fixed},
        "alpha": {f"{alpha:g}": dead[remedy.name]["dead"] for alpha, remedy in whitened.items()},
        "rank": {f"{r}": dead[remedy.name]["dead"] for r, remedy in subspaces.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that the Debian packages were unpacked to")
    parser.add_argument("work", type=Path, help="folder for tokens")
    parser.add_argument("--networks", default=",".join(LAYERS))
    parser.add_argument("--tokens", type=int, default=10_000)
    asked = parser.parse_args()
    for key in asked.networks.split(","):
        paths = {point: DETAILS / f"{key}.{point}.json" for point in LAYERS[key]}
        missing = [point for point, path in paths.items() if not path.exists()]
        if not missing:
            continue
        folder = asked.work / f"{key}.details"
        layers = run_over_inputs(ZOO[key], load(ZOO[key]), asked.data, missing, folder, asked.tokens)
        for point, layer in layers.items():
            kept = {"model": ZOO[key].name, "modality": ZOO[key].modality, "point": point}
            kept |= measure(take_tokens(layer), swept=point in SWEPT)
            write_text(paths[point], json.dumps(kept, allow_nan=False) + "\n")
            print(f"{key} {point}: {kept['minutes']:.1f} min", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
