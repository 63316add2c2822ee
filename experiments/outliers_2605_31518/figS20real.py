"""Figure S20 on real layers: interpolated whitening and active subspaces on our own layers of low rank.

    python -m experiments.outliers_2605_31518.figS20real

Everything but the raw tokens is centered by the geometric median. The layers are outputs of attention and MLP
blocks and a hidden state, with the effective ranks that the picture says.
"""

from itertools import pairwise
from typing import Any

from experiments.outliers_2605_31518.frame import (
    REAL,
    Claim,
    Data,
    Reproduction,
    Scale,
    at_least,
    at_most,
    main,
    near,
)
from experiments.outliers_2605_31518.own import DETAIL_FILES, details
from experiments.outliers_2605_31518.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    death_axis,
    legend_below,
    sheet,
)
from matplotlib.figure import Figure

FIXED = (("none", BLACK, "raw tokens"), ("median", ORANGE, "centered"), ("zscore", GREEN, "z-scored"))


def compute(scale: Scale) -> Data:
    """The layers that were swept, by rising effective rank."""
    rows = sorted((row for row in details() if row["sweep"]), key=lambda row: float(row["rank"]))
    kept = ("model", "point", "modality", "d_in", "d_sae", "k", "gamma", "rank", "sweep")
    return {"draws": scale.draws, "rows": [{name: row[name] for name in kept} for row in rows]}


def draw(data: Data) -> Figure:
    rows = data["rows"]
    figure, axes = sheet(2, len(rows), width=max(6.5, 3.9 * len(rows)), height=7.4, sharey=True)
    for (whitening, subspace), row in zip(axes.T, rows, strict=True):
        sweep = row["sweep"]
        alphas = {0.0: sweep["fixed"]["median"], **{float(alpha): dead for alpha, dead in sweep["alpha"].items()}}
        whitening.plot(list(alphas), list(alphas.values()), marker="o", ms=5, color=BLUE, label="varied")
        whitening.set_xlabel("α: λ becomes λ$^{1-α}$ (1: whitened)")
        ranks = {int(rank): dead for rank, dead in sweep["rank"].items()}
        subspace.plot(list(ranks), list(ranks.values()), marker="D", ms=5, color=PURPLE)
        subspace.axvline(sweep["effective_rank"], color=PURPLE, linestyle=":", linewidth=1.2)
        subspace.set_xscale("log", base=2)
        subspace.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        subspace.set_xlabel("rank r of active subspaces (dotted: effective rank)")
        for axis in (whitening, subspace):
            for name, colour, label in FIXED:
                axis.axhline(sweep["fixed"][name], color=colour, linestyle="--", linewidth=1.2, label=label)
            death_axis(axis, "dead at birth" if axis in axes[:, 0] else "")
        whitening.set_title(
            f"{row['model']} {row['point']}: effective rank {row['rank']:.2%} of {row['d_in']},\n"
            f"γ {row['gamma']:.2g}, {sweep['first_share']:.0%} of the variance in one direction",
            fontsize=9,
            loc="left",
        )
    legend_below(figure, axes[0, 0], 4)
    figure.suptitle(
        f"d_sae {rows[0]['d_sae']}, k {rows[0]['k']}, {rows[0]['sweep']['tokens']:,} tokens", fontsize=10
    )
    return figure


def claims(data: Data) -> list[Claim]:
    rows = data["rows"]
    rises, full, first, last = [], [], {}, {}
    for row in rows:
        sweep, name = row["sweep"], f"{row['model']} {row['point']}"
        along = [sweep["fixed"]["median"], *sweep["alpha"].values()]
        rises += [after - before for before, after in pairwise(along)]
        full.append(along[-1])
        dead = [*sweep["rank"].values()]
        first[name], last[name] = dead[0], sweep["fixed"]["median"] - dead[-1]
    return [
        at_most(
            "figS20real",
            f"{len(rows)} layers of low rank: largest rise of death from one alpha to the next",
            paper=0.0,
            ours=max(rises),
            limit=0.0,
            key="our layers of low rank: largest rise of death from one alpha to the next",
            own=True,
        ),
        near(
            "figS20real",
            "the same layers: dead after full whitening, most",
            paper=0.0,
            ours=max(full),
            by=0,
            key="our layers of low rank: dead after full whitening, most",
            own=True,
        ),
        _z_score_claim(rows),
        at_most(
            "figS20real",
            "the same layers: dead after active subspaces of rank 2, most",
            paper="low",
            ours=max(first.values()),
            limit=0.05,
            key="our layers of low rank: dead after active subspaces of rank 2, most",
            own=True,
        ),
        at_most(
            "figS20real",
            "the same layers: what active subspaces of the largest rank take off the death after centering, most",
            paper="does not meaningfully reduce",
            ours=max(last.values()),
            limit=0.05,
            key="our layers of low rank: what active subspaces of the largest rank take off, most",
            own=True,
        ),
    ]


def _z_score_claim(rows: list[dict[str, Any]]) -> Claim:
    """Z-scoring, on the layer that centering leaves most dead on."""
    worst = max(rows, key=lambda row: float(row["sweep"]["fixed"]["median"]))
    return at_least(
        "figS20real",
        f"the layer with the most dead after centering ({worst['model']} {worst['point']}): dead after z-scoring",
        paper="does not reach zero",
        ours=worst["sweep"]["fixed"]["zscore"],
        limit=1e-4,
        key="our layer with the most dead after centering: dead after z-scoring",
        own=True,
    )


FIGURE = Reproduction(
    name="figS20real", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=DETAIL_FILES
)

if __name__ == "__main__":
    main(FIGURE)
