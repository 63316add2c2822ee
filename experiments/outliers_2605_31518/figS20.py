"""Figure S20: low-rank tokens: what centering leaves dead, and interpolated whitening repairs.

    python -m experiments.outliers_2605_31518.figS20 --scale quick|full

The paper's figure shows Evo1 layer 14 (4,096 dimensions, 4 principal components with 99 % of the variance,
effective rank 0.07 % of d_in, 96 % born dead). In its stead: Gaussian tokens around a large mean, with eigenvalues
j^-4, where 3 directions hold 99 %. d_in 512, d_sae and k in the paper's proportions (2 d_in, d_sae / 128).
Everything but the raw tokens is centered by the geometric median. At most 50,000 tokens; draws are a fifth of the
scale's, four at most.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, main, near
from experiments.outliers_2605_31518.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, death_axis, sheet
from matplotlib.figure import Figure

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.diagnosis.severity import severity
from autopsae.remedies.remedy import active_subspace, center, untouched, whiten, z_score
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import measure_birth

D_IN, D_SAE, K = 512, 1024, 8
GAMMA, EXPONENT = 10.0, 4.0
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RANKS = (2, 4, 8, 16, 64, 256)
TOKENS, DRAWS = 50_000, 4


def compute(scale: Scale) -> Data:
    """Means over draws: the geometry, and death at birth under each remedy."""
    tokens, draws = min(TOKENS, scale.tokens), max(1, min(DRAWS, scale.draws // 5))
    drawn = [_one_draw(tokens, seed) for seed in range(draws)]
    return {"tokens": tokens, "draws": draws, **_mean(drawn)}


def _one_draw(tokens: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    x = gaussian_tokens(tokens, D_IN, GAMMA, spectrum=EXPONENT, generator=generator)
    statistics = collect(x)
    median, spectrum = geometric_median(statistics.sample), Spectrum.of(statistics.raw.covariance)
    remedies = {
        "raw": untouched(D_IN),
        "centered": center(median, "median"),
        "z_scored": z_score(statistics.raw.std, median),
        **{f"alpha {alpha:g}": whiten(spectrum, median, alpha=alpha) for alpha in ALPHAS},
        **{f"asi {rank}": active_subspace(spectrum, median, rank=rank) for rank in RANKS},
    }
    born = measure_birth(x, list(remedies.values()), d_sae=D_SAE, k=K, generator=generator)
    share = spectrum.eigenvalues.cumsum(0) / spectrum.eigenvalues.sum()
    geometry = severity(statistics, median)
    return {
        "gamma": geometry.gamma,
        "effective_rank_fraction": geometry.effective_rank_fraction,
        "directions_with_99_percent": int((share < 0.99).sum()) + 1,
        "relu_centered": born["median"].dead_by_relu,
        "dead": {label: born[remedy.name].dead for label, remedy in remedies.items()},
    }


def _mean(drawn: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = {key: round(float(np.mean([one[key] for one in drawn])), 5) for key in drawn[0] if key != "dead"}
    dead = {label: [one["dead"][label] for one in drawn] for label in drawn[0]["dead"]}
    return {
        **numbers,
        "dead": {label: round(float(np.mean(values)), 5) for label, values in dead.items()},
        "dead_range": {label: [round(min(values), 5), round(max(values), 5)] for label, values in dead.items()},
    }


def draw(data: Data) -> Figure:
    figure, (axes,) = sheet(1, 2, width=10, height=4.5, sharey=True, width_ratios=(1.25, 1))
    whitening, subspace = axes
    _line(whitening, data, {0.0: "centered", **{alpha: f"alpha {alpha:g}" for alpha in ALPHAS}}, BLUE, "o")
    whitening.set_xlabel("α: each eigenvalue λ becomes λ$^{1-α}$ (0: only centered, 1: whitened)")
    _line(subspace, data, {rank: f"asi {rank}" for rank in RANKS}, PURPLE, "D")
    subspace.set_xscale("log", base=2)
    subspace.set_xticks(RANKS, [f"{rank}" for rank in RANKS])
    subspace.set_xlabel("rank r of active subspace initialisation")
    for axis in axes:
        for label, colour, name in (
            ("raw", BLACK, "raw tokens"),
            ("centered", ORANGE, "centered"),
            ("z_scored", GREEN, "z-scored"),
        ):
            axis.axhline(data["dead"][label], color=colour, linestyle="--", linewidth=1.2, label=name)
        death_axis(axis)
    subspace.set_ylabel("")
    whitening.set_title("interpolated whitening", fontsize=10, loc="left")
    subspace.set_title("active subspace initialisation", fontsize=10, loc="left")
    handles, labels = whitening.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(
        f"γ = {data['gamma']:.1f}, effective rank {data['effective_rank_fraction']:.2%} of d_in = {D_IN}, "
        f"d_sae {D_SAE}, k {K}, {data['tokens']:,} tokens, {data['draws']} draws (bars: least and most)",
        fontsize=9.5,
    )
    return figure


def _line(axis: Any, data: Data, labels: dict[float, str], colour: str, marker: str) -> None:
    dead = np.array([data["dead"][label] for label in labels.values()])
    low, high = np.array([data["dead_range"][label] for label in labels.values()]).T
    axis.errorbar(
        list(labels), dead, yerr=[dead - low, high - dead], color=colour, marker=marker, ms=5, lw=1.3, capsize=2
    )


def claims(data: Data) -> list[Claim]:
    dead = data["dead"]
    along = {0.0: dead["centered"], **{alpha: dead[f"alpha {alpha:g}"] for alpha in ALPHAS}}
    rises = [after - before for before, after in pairwise(along.values())]
    none_dead = [alpha for alpha, share in along.items() if share == 0]
    return [
        at_most(
            "figS20",
            "effective rank, fraction of d_in",
            paper=0.0007,
            ours=data["effective_rank_fraction"],
            limit=0.015,
        ),
        near("figS20", "dead on raw tokens", paper=0.96, ours=dead["raw"], by=0.06),
        near("figS20", "dead after centering", paper=0.73, ours=dead["centered"], by=0.23),
        near("figS20", "dead-by-ReLU after centering", paper=0.0, ours=data["relu_centered"], by=0.001),
        near(
            "figS20",
            "dead after z-scoring: it does not reach zero",
            paper=0.49,
            ours=dead["z_scored"],
            by=0.15,
        ),
        at_most(
            "figS20", "largest rise of death from one alpha to the next", paper=0.0, ours=max(rises), limit=0.0
        ),
        near("figS20", "dead after full whitening, alpha = 1", paper=0.0, ours=along[1.0], by=0),
        at_most(
            "figS20",
            "least alpha from which none is dead",
            paper="below 1",
            ours=min(none_dead, default=1.0),
            limit=0.9,
        ),
        at_most(
            "figS20", f"dead after ASI of rank {RANKS[0]}", paper="low", ours=dead[f"asi {RANKS[0]}"], limit=0.05
        ),
        at_most(
            "figS20",
            f"|what ASI of rank {RANKS[-1]} takes off the death after centering|",
            key=f"what ASI of rank {RANKS[-1]} takes off the death after centering",
            paper="not meaningful",
            ours=abs(dead["centered"] - dead[f"asi {RANKS[-1]}"]),
            limit=0.05,
        ),
    ]


FIGURE = Reproduction(name="figS20", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
