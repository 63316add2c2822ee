"""Figures 2b and S1: landscapes of activations of our own layers, with the outlier dimensions marked.

    python -m experiments.outliers_2605_31518.fig2b

A panel per layer, by rising gamma: 24 tokens after LayerNorm per token, as they are in every dimension. A triangle
marks a dimension that holds at least a tenth of ||mu||^2. The layers are those of `measure_details`.
"""

from typing import Any

import numpy as np
from experiments.outliers_2605_31518.frame import (
    REAL,
    Claim,
    Data,
    Reproduction,
    Scale,
    at_least,
    at_most,
    main,
)
from experiments.outliers_2605_31518.own import DETAIL_FILES, LAYER_FILES, details, own_layers
from experiments.outliers_2605_31518.style import RED
from matplotlib.figure import Figure

BRIGHTEST = 6.0
"""Of the colours, in standard deviations of a token: larger values look the same."""
MARKED = 0.1


def compute(scale: Scale) -> Data:
    """The landscapes, and of every layer how constant its leading dimension is."""
    shown = ("model", "modality", "point", "tokens", "d_in", "gamma", "outlier_dimensions", "landscape")
    layers = [
        {
            "model": row["model"],
            "point": row["point"],
            "gamma": row["gamma"],
            "held": sum(dimension["share"] for dimension in row["outlier_dimensions"]),
            "leading": _constancy(row["outlier_dimensions"][0]),
        }
        for row in own_layers()
    ]
    return {
        "draws": scale.draws,
        "landscapes": [{name: row[name] for name in shown} for row in details()],
        "layers": layers,
    }


def _constancy(dimension: dict[str, Any]) -> float:
    """|mean| / std: over 1, the dimension has one sign on almost all tokens."""
    return float(f"{abs(dimension['mean']) / max(dimension['std'], 1e-12):.6g}")


def draw(data: Data) -> Figure:
    rows = data["landscapes"]
    figure = Figure(figsize=(14, 2.5 * -(-len(rows) // 3) + 0.6), layout="constrained")
    axes = figure.subplots(-(-len(rows) // 3), 3, squeeze=False)
    for axis in axes.flat[len(rows) :]:
        axis.remove()
    for axis, row in zip(axes.flat, rows, strict=False):
        image = axis.imshow(
            np.abs(row["landscape"]),
            aspect="auto",
            cmap="magma",
            vmin=0,
            vmax=BRIGHTEST,
            interpolation="nearest",
        )
        marked = [dimension for dimension in row["outlier_dimensions"] if dimension["share"] >= MARKED]
        for dimension in marked:
            axis.plot(dimension["index"], -1.6, "v", color=RED, ms=5, clip_on=False)
        named = ", ".join(f"{dimension['index']}" for dimension in marked) or "none"
        axis.set_title(
            f"{row['model']} {row['point']}, {row['modality']}: γ {row['gamma']:.2g}; marked: {named}",
            fontsize=9,
            loc="left",
            pad=10,
        )
        axis.tick_params(labelsize=8)
        axis.set_xlabel(f"dimension of {row['d_in']}", fontsize=8)
        axis.set_ylabel("token", fontsize=8)
    shown = [*axes.flat[: len(rows)]]
    figure.colorbar(image, ax=shown, label="|activation| after LayerNorm (typical: 1)", shrink=0.5, pad=0.01)
    return figure


def claims(data: Data) -> list[Claim]:
    severe = [row for row in data["layers"] if row["gamma"] > 1]
    mild = [row for row in data["layers"] if row["gamma"] <= 1]
    least = min(row["leading"] for row in severe)
    worst = max(data["layers"], key=lambda row: row["gamma"])
    return [
        at_least(
            "fig2b",
            f"our layers with gamma > 1 ({len(severe)}): |mean| / std of the leading dimension, least",
            paper="high mean, low variance",
            ours=least,
            limit=1.0,
            key="our layers with gamma > 1: |mean| / std of the leading dimension, least",
            own=True,
        ),
        at_most(
            "fig2b",
            f"our layers with gamma of 1 or less ({len(mild)}): |mean| / std of the leading dimension, median",
            paper="no dimension stands out",
            ours=float(np.median([row["leading"] for row in mild])),
            limit=float(np.median([row["leading"] for row in severe])),
            key="our layers with gamma of 1 or less: |mean| / std of the leading dimension, median",
            own=True,
        ),
        at_least(
            "fig2b",
            f"our most severe layer ({worst['model']} {worst['point']}): share of ||mu||^2 in ten dimensions",
            paper="certain dimensions",
            ours=worst["held"],
            limit=0.5,
            key="our most severe layer: share of ||mu||^2 in ten dimensions",
            own=True,
        ),
    ]


FIGURE = Reproduction(
    name="fig2b", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=(*LAYER_FILES, *DETAIL_FILES)
)

if __name__ == "__main__":
    main(FIGURE)
