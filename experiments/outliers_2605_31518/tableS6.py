"""Table S6: what LayerNorm per token changes: gamma beside gamma_raw on the authors' 454 layers and on ours.

    python -m experiments.outliers_2605_31518.tableS6

Left: the ratio gamma / gamma_raw over the layers of each model, from the least to the largest, with the median; the
paper's five rows beside it. Right: Spearman's correlation with dead-by-TopK within each model, for both gammas. A
star marks our own networks.
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
    near,
)
from experiments.outliers_2605_31518.own import LAYER_FILES, own_layers
from experiments.outliers_2605_31518.released import LAYERS, MODALITIES, Row, by_model, layers, spearman
from experiments.outliers_2605_31518.style import BLUE, ORANGE, sheet
from matplotlib.figure import Figure

PAPER = {
    "DINOv3-7B": (40, 5.3, 1.1, 16.9),
    "ModernBERT-L": (28, 4.3, 1.0, 10.7),
    "GPT-2": (12, 2.5, 1.0, 4.3),
    "ESM3": (48, 1.1, 1.0, 1.3),
    "AlphaFold3": (1, 1.1, 1.1, 1.1),
}
"""Layers, and the ratio's median, least and largest. Each but AlphaFold 3 has one layer more than was released."""
SHARE = 0.2
"""Tolerance, as a fraction of the paper's number."""


def compute(scale: Scale) -> Data:
    """A row per model, and the correlations over all layers."""
    rows = layers()
    return {
        "draws": scale.draws,
        "models": [{"model": model, **_ratios(some)} for model, some in by_model(rows).items()],
        "own": [{"model": f"{model} *", **_ratios(some)} for model, some in by_model(own_layers()).items()],
        "all": {
            gamma: {pathway: spearman(rows, gamma, pathway) for pathway in ("dead", "relu")}
            for gamma in ("gamma", "gamma_raw")
        },
    }


def _ratios(rows: list[Row]) -> dict[str, Any]:
    ratios = [row["gamma"] / row["gamma_raw"] for row in rows]
    return {
        "modality": rows[0]["modality"],
        "layers": len(rows),
        **{
            name: float(f"{of(ratios):.6g}")
            for name, of in (("median", np.median), ("least", min), ("largest", max))
        },
        **{f"spearman_{gamma}": spearman(rows, gamma, "dead") for gamma in ("gamma", "gamma_raw")},
    }


def draw(data: Data) -> Figure:
    models = sorted([*data["models"], *data["own"]], key=lambda row: float(row["median"]))
    figure, axes = sheet(1, 2, width=11, height=8, sharey=True, width_ratios=(1.2, 1))
    ratio, order = axes[0]
    for place, row in enumerate(models):
        colour = MODALITIES[row["modality"]]
        ratio.plot((row["least"], row["largest"]), (place, place), color=colour, linewidth=2.5, alpha=0.6)
        ratio.plot(row["median"], place, "o", color=colour, ms=6)
        if row["model"] in PAPER:
            _, median, least, largest = PAPER[row["model"]]
            ratio.plot((least, largest), (place - 0.28,) * 2, color="0.2", linewidth=1)
            ratio.plot(median, place - 0.28, "|", color="0.2", ms=9)
    ratio.set_xscale("log")
    ratio.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ratio.axvline(1, color="0.6", linewidth=1)
    ratio.set_yticks(range(len(models)), [f"{row['model']} ({row['layers']})" for row in models])
    ratio.set_xlabel("γ / γ_raw over the layers of a model: least, median, largest")
    ratio.set_title("grey lines: the paper's Table S6; *: ours; in brackets: layers", fontsize=9.5, loc="left")
    for gamma, colour, marker, label in (("gamma", BLUE, "o", "γ"), ("gamma_raw", ORANGE, "s", "γ_raw")):
        points = [
            (row[f"spearman_{gamma}"], at) for at, row in enumerate(models) if row["spearman_gamma"] is not None
        ]
        order.scatter(*zip(*points, strict=True), color=colour, marker=marker, s=30, label=label)
    order.axvline(0, color="0.6", linewidth=1)
    order.set_xlim(-1.05, 1.05)
    order.set_xlabel("Spearman with dead-by-TopK within a model")
    order.legend(loc="lower left", frameon=False, fontsize=9)
    return figure


def claims(data: Data) -> list[Claim]:
    models = {row["model"]: row for row in data["models"]}
    made = []
    for model, (_, median, _, largest) in PAPER.items():
        for name, paper in (("median", median), ("largest", largest)):
            if models[model]["layers"] > 1 or name == "median":
                ours, by = models[model][name], round(SHARE * paper, 3)
                made.append(near("tableS6", f"{model}: gamma / gamma_raw, {name}", paper=paper, ours=ours, by=by))
    return [*made, *_order_claims(data, models), *_own_claims(data["own"])]


def orders_as_well(models: list[Row]) -> list[bool]:
    """Of each model of several layers: whether gamma orders dead-by-TopK at least as well as gamma_raw does."""
    return [
        row["spearman_gamma"] >= row["spearman_gamma_raw"] for row in models if row["spearman_gamma"] is not None
    ]


def _own_claims(models: list[Row]) -> list[Claim]:
    """What of the paper's B.8 holds on our networks."""
    better = orders_as_well(models)
    protein = [row["median"] for row in models if row["modality"] == "protein"]
    return [
        at_most(
            "tableS6",
            f"our protein networks ({len(protein)}): |median of gamma / gamma_raw - 1|, most",
            paper="barely affected",
            ours=max(abs(ratio - 1) for ratio in protein),
            limit=0.3,
            key="our protein networks: |median of gamma / gamma_raw - 1|, most",
            own=True,
        ),
        at_least(
            "tableS6",
            f"our networks in which gamma orders dead-by-TopK as well as gamma_raw, fraction of {len(better)}",
            paper="-",
            ours=float(np.mean(better)),
            limit=0.5,
            key="our networks in which gamma orders dead-by-TopK at least as well as gamma_raw, fraction",
        ),
    ]


def _order_claims(data: Data, models: dict[str, Row]) -> list[Claim]:
    worst, words = models["DINOv3-7B"], "dead-by-TopK) over its layers"
    raw, normed = worst["spearman_gamma_raw"], worst["spearman_gamma"]
    vision = [row["median"] for row in models.values() if row["modality"] == "vision"]
    others = [row["median"] for row in models.values() if row["modality"] != "vision"]
    better = orders_as_well([*models.values()])
    return [
        at_most("tableS6", f"DINOv3-7B: Spearman(gamma_raw, {words}", paper="inverted", ours=raw, limit=0.0),
        at_least("tableS6", f"DINOv3-7B: Spearman(gamma, {words}", paper="-", ours=normed, limit=0.9),
        at_least(
            "tableS6",
            "largest median ratio of a vision model / largest of any other",
            paper="vision largest",
            ours=max(vision) / max(others),
            limit=1.0,
        ),
        *(
            at_least(
                "tableS6",
                f"Spearman(gamma, {name}) minus Spearman(gamma_raw, {name}), 454 layers",
                paper="gamma_raw understates",
                ours=data["all"]["gamma"][pathway] - data["all"]["gamma_raw"][pathway],
                limit=0.0,
            )
            for pathway, name in (("dead", "dead-by-TopK"), ("relu", "dead-by-ReLU"))
        ),
        at_least(
            "tableS6",
            f"models in which gamma orders dead-by-TopK at least as well as gamma_raw, fraction of {len(better)}",
            paper="-",
            ours=float(np.mean(better)),
            limit=0.5,
        ),
    ]


FIGURE = Reproduction(
    name="tableS6", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=(LAYERS, *LAYER_FILES)
)

if __name__ == "__main__":
    main(FIGURE)
