"""Table S7 and D.5: which centre. The geometric median, the arithmetic mean and robust centres on our layers.

    python -m experiments.outliers_2605_31518.tableS7

The authors' table has no death after centering by the arithmetic mean. Left: the layers of ours on which the mean
is furthest from the median, with death at birth without centering and by each centre. Right: on all layers, death
after centering by the coordinate-wise median, by a trimmed mean (a tenth of the values of each dimension cut off at
either end) and by the arithmetic mean, against death after centering by the geometric median.
"""

import numpy as np
from experiments.outliers_2605_31518.frame import REAL, Claim, Data, Reproduction, Scale, at_least, at_most, main
from experiments.outliers_2605_31518.own import LAYER_FILES, numbers_of_tokens, own_layers
from experiments.outliers_2605_31518.released import Row, by_model
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

CENTRES = {
    "none": ("not centered", BLACK, "o"),
    "mean": ("arithmetic mean", ORANGE, "s"),
    "trimmed": ("trimmed mean", PURPLE, "^"),
    "coordinates": ("coordinate-wise median", GREEN, "v"),
    "median": ("geometric median", BLUE, "D"),
}
SHOWN = 16
FAILS = 0.05
"""Centering by the mean fails where it leaves more dead than this, and more than the geometric median."""
ALIKE = 0.01
"""Two centres do the same where death differs by this at most."""


def compute(scale: Scale) -> Data:
    """A row per layer: how far the centres are from the geometric median, and death at birth under each."""
    rows = [
        {
            **{name: row[name] for name in ("model", "modality", "point", "tokens", "gamma", "rank")},
            "distance": row["mean_median_distance"],
            "angle": row["mean_median_angle"],
            "centres": row["centres"],
            **{centre: row["counted"][centre]["dead"] for centre in CENTRES},
        }
        for row in own_layers()
    ]
    return {"draws": scale.draws, "rows": rows}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=13, height=6, width_ratios=(1.2, 1))
    table, against = axes[0]
    rows = sorted(data["rows"], key=lambda row: float(row["distance"]))[-SHOWN:]
    for centre, (label, colour, marker) in CENTRES.items():
        table.scatter(
            [row[centre] for row in rows], range(len(rows)), color=colour, marker=marker, s=30, label=label
        )
    names = [f"{row['model']} {row['point']} ({row['distance']:.2f}; {row['angle']:.0f}°)" for row in rows]
    table.set_yticks(range(len(rows)), names, fontsize=9)
    table.set_xlabel("dead at birth, fraction of latents")
    table.set_title(
        "layers with the mean furthest from the median\n(in brackets: over the median token's distance; angle)",
        fontsize=9.5,
        loc="left",
    )
    for centre in ("mean", "trimmed", "coordinates"):
        label, colour, marker = CENTRES[centre]
        some = [row["median"] for row in data["rows"]], [row[centre] for row in data["rows"]]
        against.scatter(*some, color=colour, marker=marker, s=22, alpha=0.7, linewidth=0)
    against.plot((0, 1), (0, 1), color="0.4", linewidth=1)
    against.set_xlabel("dead at birth, centered by the geometric median")
    death_axis(against, "dead at birth, centered otherwise")
    tokens = numbers_of_tokens(data["rows"])
    against.set_title(f"{len(data['rows'])} layers, {tokens} tokens, d_sae 8192, k 64", fontsize=9.5, loc="left")
    legend_below(figure, table, 5)
    return figure


def mean_fails(row: Row) -> bool:
    """Whether the arithmetic mean leaves latents dead that the geometric median does not."""
    return bool(row["mean"] > FAILS and row["mean"] > row["median"] + ALIKE)


def claims(data: Data) -> list[Claim]:
    rows, number = data["rows"], len(data["rows"])
    alike = [abs(row["mean"] - row["median"]) <= ALIKE for row in rows]
    networks = [any(mean_fails(row) for row in some) for some in by_model(rows).values()]
    failures = [row for row in rows if mean_fails(row)]
    worse = [row for row in failures if row["mean"] > row["none"] + ALIKE]
    named = ", ".join(
        f"{row['model']} {row['point']} ({row['mean']:.0%}, median {row['median']:.0%})" for row in failures
    )
    made = [
        at_least(
            "tableS7",
            f"our {number} layers: mean and geometric median leave the same dead, fraction",
            paper="agree closely on 15 of 19 models",
            ours=float(np.mean(alike)),
            limit=0.75,
            key="our layers: mean and geometric median leave the same dead, fraction",
            own=True,
        ),
        at_least(
            "tableS7",
            f"our networks with a layer on which the mean fails, fraction of {len(networks)}",
            paper="4 of 19 models",
            ours=float(np.mean(networks)),
            limit=0.1,
            key="our networks with a layer on which the mean fails, fraction",
            own=True,
        ),
        at_least(
            "tableS7",
            f"our layers on which the mean fails: {named}",
            paper="increases dead features",
            ours=float(len(failures)),
            limit=1,
            key="our layers on which the mean fails",
            own=True,
        ),
        at_least(
            "tableS7",
            "our layers on which the mean leaves more dead than no centering",
            paper="in some cases worse than no centering at all",
            ours=float(len(worse)),
            limit=1,
            own=True,
        ),
    ]
    return [*made, *_robust_claims(rows)]


def _robust_claims(rows: list[Row]) -> list[Claim]:
    """Whether the robust centres do what the geometric median does."""
    made = []
    for centre in ("trimmed", "coordinates"):
        label = CENTRES[centre][0]
        off = {f"{row['model']} {row['point']}": abs(row[centre] - row["median"]) for row in rows}
        worst = max(off, key=lambda name: off[name])
        alike = float(np.mean([value <= ALIKE for value in off.values()]))
        made.append(
            at_least(
                "tableS7",
                f"our {len(rows)} layers: {label} and geometric median leave the same dead, fraction",
                paper="essentially identical",
                ours=alike,
                limit=0.95,
                key=f"our layers: {label} and geometric median leave the same dead, fraction",
                own=True,
            )
        )
        made.append(
            at_most(
                "tableS7",
                f"our layers: |dead by the {label} - dead by the geometric median|, most ({worst})",
                paper="essentially identical",
                ours=off[worst],
                limit=0.05,
                key=f"our layers: |dead by the {label} - dead by the geometric median|, most",
                own=True,
            )
        )
    return made


FIGURE = Reproduction(name="tableS7", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=LAYER_FILES)

if __name__ == "__main__":
    main(FIGURE)
