"""Figure 4b: death at birth on real layers against outlier severity, with the closed forms.

    python -m experiments.outliers_2605_31518.fig4b

The authors' 454 layers (authors/init_stats.csv, 100,000 tokens) and our own (results/layers, on as many tokens as
each row says). Above: death against gamma, with the closed forms. Below: the same death against what the closed
forms say from gamma and the number of tokens. Right: Spearman's correlation within each model.
"""

from typing import Any

import numpy as np
from experiments.outliers_2605_31518.births import mean_deviation
from experiments.outliers_2605_31518.frame import (
    REAL,
    Claim,
    Data,
    Reproduction,
    Scale,
    Value,
    at_least,
    at_most,
    main,
)
from experiments.outliers_2605_31518.own import LAYER_FILES, numbers_of_tokens, own_layers
from experiments.outliers_2605_31518.ranks import PATHWAYS, correlations, own_rank_claims, rank_claims
from experiments.outliers_2605_31518.released import (
    D_SAE,
    LAYERS,
    MODALITIES,
    TOKENS,
    K,
    Row,
    by_model,
    layers,
)
from experiments.outliers_2605_31518.style import RELU, TOPK, death_axis, gamma_axis, sheet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autopsae.survival.closed_form import predicted_dead, predicted_dead_by_relu

LIMITS = {"dead": 1.03, "relu": 0.53}
"""Of the axes: at most half of the latents are dead-by-ReLU."""
HEAVY_TAILS = ("ESM3", "ESM2-650M")
"""The models on which the paper sees fewer dead-by-ReLU than predicted (B.9)."""


def compute(scale: Scale) -> Data:
    """The rows with the closed forms beside them, and the correlations."""
    rows = [_predict(row, TOKENS, D_SAE, K) for row in layers()]
    own = [_predict(row, row["tokens"], row["d_sae"], row["k"]) for row in own_layers()]
    kept = ("model", "modality", "layer", "gamma", "dead", "relu", "dead_theory", "relu_theory")
    return {
        "draws": scale.draws,
        "correlations": {pathway: correlations(rows, pathway) for pathway in PATHWAYS},
        "own_correlations": {pathway: correlations(own, pathway) for pathway in PATHWAYS},
        "rows": [{name: row[name] for name in kept} for row in rows],
        "own": [{name: row[name] for name in (*kept, "point", "tokens")} for row in own],
    }


def _predict(row: Row, tokens: int, d_sae: int, k: int) -> Row:
    dead = predicted_dead(row["gamma"], tokens, d_sae=d_sae, k=k)
    relu = predicted_dead_by_relu(row["gamma"], tokens)
    return {**row, "dead_theory": float(f"{dead:.6g}"), "relu_theory": float(f"{relu:.6g}")}


def draw(data: Data) -> Figure:
    figure, axes = sheet(2, 3, width=14, height=9, width_ratios=(1, 1, 0.75))
    for place, pathway in enumerate(PATHWAYS):
        _against_gamma(axes[0, place], data, pathway)
        _against_theory(axes[1, place], data, pathway)
    column = axes[0, 2].get_gridspec()[:, 2]
    for axis in axes[:, 2]:
        axis.remove()
    _within_models(figure.add_subplot(column), data)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.8", markeredgecolor="black", marker="D", linestyle="", ms=5))
    figure.legend(handles, [*labels, "ours"], loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    own = data["own"]
    figure.suptitle(
        f"dots: the authors' {len(data['rows'])} layers of {len(data['correlations']['dead']['models'])} models, "
        f"{TOKENS:,} tokens; diamonds: {len(own)} layers of {len({row['model'] for row in own})} networks of ours, "
        f"{numbers_of_tokens(own)} tokens; all d_sae {D_SAE}, k {K}",
        fontsize=10.5,
    )
    return figure


def _against_gamma(axis: Any, data: Data, pathway: str) -> None:
    _scatter(axis, data, "gamma", pathway)
    gammas = [float(gamma) for gamma in np.geomspace(0.2, 60, 200)]
    curve = [_predict({"gamma": gamma}, TOKENS, D_SAE, K)[f"{pathway}_theory"] for gamma in gammas]
    axis.plot(gammas, curve, color="0.2", linewidth=1.3, label=f"closed form, {TOKENS:,} tokens")
    gamma_axis(axis)
    death_axis(axis, f"{PATHWAYS[pathway]}, fraction of latents")
    axis.set_ylim(-0.03, LIMITS[pathway])
    lines = []
    for of, name in (("theirs", "correlations"), ("ours", "own_correlations")):
        some = data[name][pathway]
        over = [some[f"interval_over_{what}"] for what in ("layers", "models")]
        spans = [f"[{low:.2f}, {high:.2f}]" for low, high in over]
        lines.append(f"{of}: Spearman {some['layers']:.3f}; layers {spans[0]}, models {spans[1]}")
    axis.set_title("\n".join(lines), fontsize=8.5, loc="left")


def _against_theory(axis: Any, data: Data, pathway: str) -> None:
    axis.plot((0, 1), (0, 1), color="0.2", linewidth=1.0)
    _scatter(axis, data, f"{pathway}_theory", pathway)
    axis.set_xlabel("closed form from γ")
    death_axis(axis, f"{PATHWAYS[pathway]}, measured")
    axis.set_xlim(-0.03, LIMITS[pathway])
    axis.set_ylim(-0.03, LIMITS[pathway])
    off = [f"{100 * mean_deviation(data[rows], pathway):.1f}" for rows in ("rows", "own")]
    axis.set_title(f"mean |measured - closed form|: {off[0]} points, ours {off[1]}", fontsize=9, loc="left")


def _scatter(axis: Any, data: Data, x: str, pathway: str) -> None:
    for modality, colour in MODALITIES.items():
        rows = [row for row in data["rows"] if row["modality"] == modality]
        points = [row[x] for row in rows], [row[pathway] for row in rows]
        axis.scatter(*points, s=13, color=colour, alpha=0.55, linewidth=0, label=modality)
        own = [row for row in data["own"] if row["modality"] == modality]
        axis.scatter(
            [row[x] for row in own],
            [row[pathway] for row in own],
            s=17,
            color=colour,
            edgecolor="black",
            linewidth=0.7,
            marker="D",
        )


def _within_models(axis: Any, data: Data) -> None:
    """A line per model, the lowest correlation at the bottom; our networks with a star."""
    found = {
        pathway: data["correlations"][pathway]["models"]
        | {f"{model} *": value for model, value in data["own_correlations"][pathway]["models"].items()}
        for pathway in PATHWAYS
    }
    order = sorted((model for model, value in found["dead"].items() if value is not None), key=found["dead"].get)
    for pathway, colour, marker in (("dead", TOPK, "o"), ("relu", RELU, "s")):
        some = [(found[pathway][model], place) for place, model in enumerate(order)]
        points = [(value, place) for value, place in some if value is not None]
        axis.scatter(*zip(*points, strict=True), color=colour, marker=marker, s=28, label=PATHWAYS[pathway])
    axis.axvline(0, color="0.6", linewidth=1)
    axis.set_yticks(range(len(order)), order, fontsize=9)
    axis.set_xlim(-1.05, 1.05)
    axis.set_xlabel("Spearman(γ, death) within a model (*: ours)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)


def claims(data: Data) -> list[Claim]:
    made = [claim for pathway in PATHWAYS for claim in rank_claims(data["correlations"][pathway], pathway)]
    found, number = data["own_correlations"], len(data["own"])
    own = [claim for pathway in PATHWAYS for claim in own_rank_claims(found[pathway], pathway, number)]
    return [*made, *_level_claims(data["rows"]), *own, *_own_level_claims(data["own"])]


def _own_level_claims(rows: list[Row]) -> list[Claim]:
    """How close the closed forms are on our layers."""
    high = [row for row in rows if row["gamma"] > 3]
    return [
        at_most(
            "fig4b",
            f"our layers with gamma > 3 ({len(high)}): mean |{name} - closed form|",
            paper="accurate for gamma > 3" if pathway == "dead" else "tracks closely",
            ours=mean_deviation(high, pathway),
            limit=0.05,
            key=f"our layers with gamma > 3: mean |{name} - closed form|",
            own=True,
        )
        for pathway, name in PATHWAYS.items()
    ]


def _level_claims(rows: list[Row]) -> list[Claim]:
    """How close the closed forms are, with the tolerances of fig4a."""
    high = [row for row in rows if row["gamma"] > 3]
    above = max(row["relu"] - row["relu_theory"] for row in rows)
    closeness: list[tuple[str, Value, float, float]] = [
        ("mean |dead-by-ReLU - closed form| over all layers", "tracks closely", mean_deviation(rows, "relu"), 0.03),
        (
            "mean |dead-by-TopK - closed form| over layers with gamma > 3",
            "accurate for gamma > 3",
            mean_deviation(high, "dead"),
            0.05,
        ),
        ("mean |dead-by-TopK - closed form| over all layers", "-", mean_deviation(rows, "dead"), 0.05),
        ("largest dead-by-ReLU above the closed form, of any layer", "upper bound", above, 0.05),
    ]
    under = {model: max(row["relu_theory"] - row["relu"] for row in some) for model, some in by_model(rows).items()}
    closeness += [
        (f"{model}: largest dead-by-ReLU under the closed form", "0.05 to 0.15", under[model], 0.15)
        for model in HEAVY_TAILS
    ]
    esm3 = [row["dead"] for row in by_model(rows)["ESM3"]]
    closeness.append(("ESM3: dead at birth, least of its layers", "under 0.2, later layers", min(esm3), 0.2))
    far = [row["model"] in HEAVY_TAILS for row in rows if row["relu_theory"] - row["relu"] >= 0.05]
    most = "ESM3: dead at birth, most of its layers"
    return [
        at_least("fig4b", most, paper="over 0.8, early layers", ours=max(esm3), limit=0.8),
        *(at_most("fig4b", words, paper=paper, ours=ours, limit=limit) for words, paper, ours, limit in closeness),
        at_least(
            "fig4b",
            "layers with 0.05 or more under the closed form for dead-by-ReLU: fraction from ESM3 and ESM2-650M",
            paper="most visibly",
            ours=sum(far) / len(far),
            limit=0.5,
        ),
    ]


FIGURE = Reproduction(
    name="fig4b", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=(LAYERS, *LAYER_FILES)
)

if __name__ == "__main__":
    main(FIGURE)
