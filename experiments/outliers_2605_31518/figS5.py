"""Figure S5: heavy tails rescue latents that the closed form calls dead-by-ReLU; on our own layers.

    python -m experiments.outliers_2605_31518.figS5

Above: tokens along one random direction on the most Gaussian and on the most heavy-tailed of the layers that were
measured in detail, and the largest value along each of 500 directions; kurtosis along the layers. Below, on all our
layers, the excess kurtosis of dimensions against that of random projections, against what the closed form predicts
too much, and against the largest projection.
"""

from typing import Any

import numpy as np
from experiments.outliers_2605_31518.frame import REAL, Claim, Data, Reproduction, Scale, at_least, at_most, main
from experiments.outliers_2605_31518.measure_details import EDGES
from experiments.outliers_2605_31518.own import DETAIL_FILES, LAYER_FILES, details, numbers_of_tokens, own_layers
from experiments.outliers_2605_31518.released import MODALITIES, by_model, spearman
from experiments.outliers_2605_31518.style import BLUE, MARKERS, RED, legend_below, sheet
from matplotlib.figure import Figure

from autopsae.survival.closed_form import reach

HEAVY = 0.5
"""The paper's: excess kurtosis over which the closed form predicts too much."""
DEAD = 0.01
"""Predicted dead-by-ReLU under which there is nothing to predict too much of."""


def compute(scale: Scale) -> Data:
    """Histograms of two layers, and of every layer kurtosis and over-prediction."""
    some = sorted((row for row in details() if row["kurtosis"] is not None), key=lambda row: float(row["kurtosis"]))
    shown = [
        {name: row[name] for name in ("model", "point", "tokens", "kurtosis", "projections")}
        for row in (some[0], some[-1])
    ]
    rows = [
        {
            "model": row["model"],
            "modality": row["modality"],
            "layer": row["layer"],
            "point": row["point"],
            "tokens": row["tokens"],
            "gamma": row["gamma"],
            "kurtosis": row["kurtosis"],
            **{f"projected_{name}": row["projections"][name] for name in ("kurtosis", "largest")},
            "predicted": row["predicted"]["relu"],
            "over": row["predicted"]["relu"] - row["relu"],
        }
        for row in own_layers()
    ]
    return {"draws": scale.draws, "shown": shown, "rows": rows}


def draw(data: Data) -> Figure:
    figure, axes = sheet(2, 3, width=14, height=8.4)
    _draw_histograms(axes[0, 0], data["shown"])
    _draw_largest(axes[0, 1], data["shown"])
    _draw_along(axes[0, 2], data["rows"])
    projected, over, tail = axes[1]
    for axis, name in ((projected, "projected_kurtosis"), (over, "over"), (tail, "projected_largest")):
        for modality, colour in MODALITIES.items():
            some = [
                row for row in data["rows"] if row["modality"] == modality and (name != "over" or _can_be_over(row))
            ]
            points = [row["kurtosis"] for row in some], [row[name] for row in some]
            axis.scatter(*points, s=16, color=colour, alpha=0.7, linewidth=0, label=modality)
        axis.set_xscale("symlog", linthresh=0.5)
        axis.set_xlabel("excess kurtosis, mean over dimensions")
    projected.set_yscale("symlog", linthresh=0.5)
    projected.set_ylabel("excess kurtosis of random projections, median")
    over.axhline(0, color="0.6", linewidth=1)
    over.set_ylabel("predicted minus counted dead-by-ReLU")
    over.set_title(f"{sum(map(_can_be_over, data['rows']))} layers with over 1 % predicted", fontsize=9, loc="left")
    tail.set_ylabel("largest value of 500 projections, median, in std")
    for axis, name in ((projected, "projected_kurtosis"), (tail, "projected_largest")):
        order = spearman(data["rows"], "kurtosis", name) or 0.0
        tokens = numbers_of_tokens(data["rows"])
        axis.set_title(f"{len(data['rows'])} layers, {tokens} tokens; Spearman {order:.2f}", fontsize=9, loc="left")
    legend_below(figure, projected, 4)
    return figure


def _can_be_over(row: dict[str, Any]) -> bool:
    return bool(row["predicted"] > DEAD)


def _draw_histograms(axis: Any, shown: list[dict[str, Any]]) -> None:
    edges = np.array(EDGES)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    for row, colour in zip(shown, (BLUE, RED), strict=True):
        density = np.array(row["projections"]["histogram"]) / row["tokens"] / width
        axis.step(
            middle,
            np.where(density > 0, density, np.nan),
            where="mid",
            color=colour,
            linewidth=1.4,
            label=_name(row),
        )
    axis.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), ":", color="0.2", label="Gaussian")
    axis.set_yscale("log")
    axis.set_ylim(bottom=1e-6)
    axis.set_xlabel("token along one random direction, in std (ends: all beyond)")
    axis.set_ylabel("density")
    axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _draw_largest(axis: Any, shown: list[dict[str, Any]]) -> None:
    for row, colour in zip(shown, (BLUE, RED), strict=True):
        axis.hist(row["projections"]["largest"], bins=40, color=colour, alpha=0.6, label=_name(row))
        axis.axvline(reach(row["tokens"]), color="0.2", linestyle=":")
    axis.set_xlabel("largest of all tokens along a direction, in std (dotted: C)")
    axis.set_ylabel("directions of 500")
    axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _draw_along(axis: Any, rows: list[dict[str, Any]]) -> None:
    for (model, some), marker in zip(by_model(rows).items(), MARKERS * 2, strict=False):
        hidden = [row for row in some if row["point"].startswith(("hs", "layer ", "block "))]
        depth = [place / max(1, len(hidden) - 1) for place in range(len(hidden))]
        colour = MODALITIES[some[0]["modality"]]
        axis.plot(depth, [row["kurtosis"] for row in hidden], marker=marker, ms=4, lw=1, color=colour, label=model)
    axis.axhline(HEAVY, color="0.4", linestyle=":")
    axis.set_yscale("symlog", linthresh=0.5)
    axis.set_xlabel("hidden state, from the first to the last")
    axis.set_ylabel("excess kurtosis, mean over dimensions")
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} {row['point']}: kurtosis {row['kurtosis']:.2g}, {row['tokens']:,} tokens"


def claims(data: Data) -> list[Claim]:
    rows = data["rows"]
    some = [row for row in rows if _can_be_over(row)]
    light = [abs(row["over"]) for row in some if row["kurtosis"] < HEAVY]
    heavy = [row["over"] for row in some if row["kurtosis"] >= HEAVY]
    near_gauss, far = data["shown"]
    gain = np.median(far["projections"]["largest"]) / np.median(near_gauss["projections"]["largest"])
    return [
        at_least(
            "figS5",
            "our layers: Spearman(kurtosis of dimensions, kurtosis of random projections)",
            paper="tight correlation",
            ours=spearman(rows, "kurtosis", "projected_kurtosis") or 0.0,
            limit=0.8,
            own=True,
        ),
        at_least(
            "figS5",
            f"our layers with over 1 % predicted dead-by-ReLU ({len(some)}): Spearman(kurtosis, over-prediction)",
            paper="correlates",
            ours=spearman(some, "kurtosis", "over") or 0.0,
            limit=0.5,
            key="our layers with over 1 % predicted dead-by-ReLU: Spearman(kurtosis, over-prediction)",
            own=True,
        ),
        at_most(
            "figS5",
            f"those with a kurtosis under 0.5 ({len(light)}): mean |over-prediction|",
            paper="within 1 % near zero",
            ours=float(np.mean(light)) if light else 0.0,
            limit=0.02,
            key="our layers with a kurtosis under 0.5: mean |over-prediction|",
            own=True,
        ),
        at_least(
            "figS5",
            f"those with a larger one ({len(heavy)}): median over-prediction",
            paper="5 to 9 %",
            ours=float(np.median(heavy)) if heavy else 0.0,
            limit=0.0,
            key="our layers with a kurtosis over 0.5: median over-prediction",
            own=True,
        ),
        at_least(
            "figS5",
            f"median largest projection on {far['model']} {far['point']} / on {near_gauss['model']} "
            f"{near_gauss['point']}",
            paper="nearly double",
            ours=float(gain),
            limit=1.2,
            key="median largest projection on the most heavy-tailed layer / on the most Gaussian one",
            own=True,
        ),
    ]


FIGURE = Reproduction(
    name="figS5", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=(*LAYER_FILES, *DETAIL_FILES)
)

if __name__ == "__main__":
    main(FIGURE)
