"""Tables S7 and S8: death at birth on raw, centered and whitened tokens against the effective rank.

    python -m experiments.outliers_2605_31518.tableS8

The authors' 454 layers, and our own as diamonds. Left: the layers of Table S8, and those of ours with the lowest
rank. Right: death after centering against the effective rank on all layers, with the rule of 1.5 % of d_in.
Of Table S7 the authors' table holds two columns, not centered and centered by the geometric median; death after
centering by the arithmetic mean was not released (`tableS7` has it for our layers).
"""

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
from experiments.outliers_2605_31518.own import LAYER_FILES, numbers_of_tokens, own_layers
from experiments.outliers_2605_31518.released import LAYERS, MODALITIES, Row, by_model, layers
from experiments.outliers_2605_31518.style import BLACK, GREEN, ORANGE, death_axis, sheet
from matplotlib.figure import Figure

TABLE_S8 = {
    ("Evo1", 14): (0.07, 95.9, 73.0, 0.0),
    ("DINOv3-7B", 1): (0.12, 74.6, 23.5, 0.0),
    ("ESM2-3B", 1): (1.22, 98.1, 25.7, 0.0),
    ("ESM3", 1): (1.44, 98.9, 20.8, 0.0),
    ("ProGen2-base", 1): (1.44, 59.5, 22.6, 0.0),
    ("DINOv2-L", 1): (1.30, 55.8, 2.3, 0.0),
    ("SD3.5-L", 4): (1.80, 61.4, 0.0, 0.0),
    ("ProGen2-Large", 1): (1.85, 51.0, 0.5, 0.0),
    ("DINOv3-B", 1): (2.85, 86.4, 1.0, 0.0),
    ("DINOv2-B", 1): (5.43, 54.9, 0.0, 0.0),
    ("ESM2-650M", 1): (7.92, 91.6, 0.0, 0.0),
    ("AlphaFold3", 0): (8.13, 99.0, 1.0, 0.0),
    ("ESM2-35M", 1): (10.41, 82.0, 0.0, 0.0),
    ("GLM2", 27): (19.70, 49.0, 0.0, 0.0),
    ("ModernBERT-L", 25): (19.75, 51.3, 0.0, 0.0),
    ("Pythia-410M", 18): (31.09, 10.3, 0.0, 0.0),
    ("Pythia-70M", 2): (37.49, 3.6, 0.0, 0.0),
    ("ModernBERT", 5): (37.63, 67.5, 0.0, 0.0),
    ("GPT-2", 11): (45.53, 32.7, 0.0, 0.0),
}
"""The paper's effective rank in % of d_in, and its dead latents in %: raw, centered, whitened."""
COLUMNS = {
    "rank": "effective rank",
    "dead": "dead, raw",
    "centered": "dead, centered",
    "whitened": "dead, whitened",
}
TABLE_S7 = {
    ("DINOv3-B", 3): (57.6, 0.0),
    ("DINOv3-7B", 4): (87.6, 2.3),
    ("ModernBERT", 16): (55.1, 0.0),
    ("ModernBERT-L", 20): (34.5, 0.0),
}
"""The paper's dead latents in %: not centered, and centered by the geometric median."""
RULE = 0.015
"""The paper's: below this effective rank, as a fraction of d_in, centering leaves many dead."""
SHOWN = 8
"""Layers of ours that are listed."""
SUBSTANTIAL = 0.05
"""Ours: more dead latents than this after centering are "substantial residual death"."""
RESIDUAL = {"Evo1", "DINOv3-7B", "ESM2-3B", "ESM3", "ProGen2-base"}
"""The models on which, in the paper, latents stay dead after centering."""


def compute(scale: Scale) -> Data:
    """The columns of all layers."""
    kept = ("model", "modality", "layer", *COLUMNS)
    own = [{name: row[name] for name in (*kept, "point", "tokens")} for row in own_layers()]
    return {"draws": scale.draws, "rows": [{name: row[name] for name in kept} for row in layers()], "own": own}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=13, height=8, width_ratios=(1.15, 1))
    table, ranks = axes[0]
    lowest = sorted(data["own"], key=lambda row: float(row["rank"]))[:SHOWN]
    rows = [*reversed(lowest), *(_row(data, *place) for place in reversed(TABLE_S8))]
    for column, colour, marker in (("dead", BLACK, "o"), ("centered", ORANGE, "s"), ("whitened", GREEN, "D")):
        table.scatter(
            [row[column] for row in rows],
            range(len(rows)),
            color=colour,
            marker=marker,
            s=30,
            label=COLUMNS[column],
        )
    names = [f"{row['model']} {row.get('point', row['layer'])} ({100 * row['rank']:.2f} %)" for row in rows]
    table.axhline(len(lowest) - 0.5, color="0.6", linewidth=1)
    table.set_yticks(range(len(rows)), names, fontsize=9)
    table.set_xlabel("dead at birth, fraction of latents")
    tokens = numbers_of_tokens(data["own"])
    table.set_title(
        f"above: Table S8, 100,000 tokens; below: ours of the lowest rank, {tokens}\n"
        "(in brackets: effective rank / d_in)",
        fontsize=9.5,
        loc="left",
    )
    table.legend(loc="lower right", frameon=False, fontsize=9)
    for modality, colour in MODALITIES.items():
        for of, marker, edge, label in (("rows", "o", "none", modality), ("own", "D", "black", None)):
            some = [row for row in data[of] if row["modality"] == modality]
            points = [row["rank"] for row in some], [row["centered"] for row in some]
            ranks.scatter(*points, s=17, color=colour, marker=marker, edgecolor=edge, linewidth=0.7, label=label)
    ranks.axvline(RULE, color="0.4", linestyle=":", linewidth=1.2)
    ranks.axhline(SUBSTANTIAL, color="0.7", linestyle=":", linewidth=1.2)
    ranks.set_xscale("log")
    ranks.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    ranks.set_xlabel("effective rank / d_in")
    death_axis(ranks, "dead at birth after centering")
    ranks.set_title(
        f"{len(data['rows'])} layers, diamonds: {len(data['own'])} of ours; dotted: {RULE:.1%}, {SUBSTANTIAL:.0%}",
        fontsize=9.5,
        loc="left",
    )
    ranks.legend(frameon=False, fontsize=9)
    return figure


def _row(data: Data, model: str, layer: int) -> Row:
    [found] = [row for row in data["rows"] if (row["model"], row["layer"]) == (model, layer)]
    return dict(found)


def claims(data: Data) -> list[Claim]:
    made = []
    for place, name in enumerate(COLUMNS):
        off = [abs(100 * _row(data, *of)[name] - values[place]) for of, values in TABLE_S8.items()]
        said = f"Table S8, {COLUMNS[name]}: largest difference over its {len(off)} layers, percentage points"
        made.append(near("tableS8", said, paper=0.0, ours=max(off), by=0.051 if place else 0.0051))
    for place, name in enumerate(("dead", "centered")):
        off = [abs(100 * _row(data, *of)[name] - values[place]) for of, values in TABLE_S7.items()]
        which = "centered by the median" if place else "not centered"
        said = f"Table S7, {which}: largest difference over its {len(off)} layers, percentage points"
        made.append(near("tableS8", said, paper=0.0, ours=max(off), by=0.051))
    return [*made, *_remedy_claims(data["rows"]), *_rule_claims(data["rows"]), *_own_claims(data["own"])]


def _own_claims(rows: list[Row]) -> list[Claim]:
    """The rule of 1.5 % on our layers."""
    wrong = [row for row in rows if (row["rank"] < RULE) != (row["centered"] > SUBSTANTIAL)]
    named = ", ".join(
        f"{row['model']} {row['point']} ({row['rank']:.1%}, {row['centered']:.1%} dead)" for row in wrong
    )
    return [
        at_most(
            "tableS8",
            f"our {len(rows)} layers: fraction on which the rule of 1.5 % is wrong ({named or 'none'})",
            paper="effective rank under 1.5 %: substantial residual death",
            ours=len(wrong) / len(rows),
            limit=0.05,
            key="our layers: fraction on which the rule of 1.5 % is wrong",
            own=True,
        )
    ]


def _remedy_claims(rows: list[Row]) -> list[Claim]:
    worst = {model: max(some, key=lambda row: row["centered"]) for model, some in by_model(rows).items()}
    residual = {model for model, row in worst.items() if row["centered"] > SUBSTANTIAL}
    whitened = max(row["whitened"] for row in rows)
    differ = "models with over 5 % dead after centering on some layer that are not the paper's five, or the reverse"
    return [
        near("tableS8", "dead after whitening, most of 454 layers", paper=0.0, ours=whitened, by=0),
        near("tableS8", differ, paper=0.0, ours=float(len(residual ^ RESIDUAL)), by=0),
        near("tableS8", "Evo1: most dead after centering", paper=0.73, ours=worst["Evo1"]["centered"], by=0.005),
        *_other_claims([worst[model] for model in sorted(RESIDUAL - {"Evo1"})]),
        at_least(
            "tableS8",
            "models with under 5 % dead after centering on every layer, fraction of 19",
            paper="most",
            ours=1 - len(residual) / len(worst),
            limit=0.5,
        ),
    ]


def _other_claims(worst: list[Row]) -> list[Claim]:
    """On the worst layers of the models other than Evo1 on which latents stay dead."""
    dead = [row["centered"] for row in worst]
    words, paper = "the four other models: dead after centering on the worst layer", "0.20 to 0.25"
    first = float(np.mean([row["layer"] == 1 for row in worst]))
    return [
        at_least("tableS8", f"{words}, least", paper=paper, ours=min(dead), limit=0.2),
        at_most("tableS8", f"{words}, most", paper=paper, ours=max(dead), limit=0.25),
        near(
            "tableS8",
            "the four other models: fraction whose worst layer is layer 1",
            paper=1.0,
            ours=first,
            by=0.25,
        ),
    ]


def _rule_claims(rows: list[Row]) -> list[Claim]:
    low = [row for row in rows if row["rank"] < RULE]
    high = [row for row in rows if row["rank"] >= RULE]
    missed = [row for row in high if row["centered"] > SUBSTANTIAL]

    def named(some: list[Row]) -> str:
        return ", ".join(f"{row['model']} {row['layer']}" for row in some) or "none"

    return [
        at_least(
            "tableS8",
            f"layers with an effective rank under 1.5 % ({len(low)}): fraction with over 5 % dead after centering",
            paper="substantial residual death",
            ours=float(np.mean([row["centered"] > SUBSTANTIAL for row in low])),
            limit=0.9,
            key="layers with an effective rank under 1.5 %: fraction with over 5 % dead after centering",
        ),
        near(
            "tableS8",
            f"layers with an effective rank of 1.5 % or more and over 5 % dead after centering ({named(missed)})",
            paper=0.0,
            ours=float(len(missed)),
            by=0,
            key="layers with an effective rank of 1.5 % or more and over 5 % dead after centering",
        ),
    ]


FIGURE = Reproduction(
    name="tableS8", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=(LAYERS, *LAYER_FILES)
)

if __name__ == "__main__":
    main(FIGURE)
