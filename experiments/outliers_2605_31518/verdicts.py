"""The verdict from the sample against the verdict with counts, on our own layers: the project's own questions.

    python -m experiments.outliers_2605_31518.verdicts

`autopsae diagnose` estimates death at birth from a sample of 4,096 tokens; with `--exact` it counts on all tokens.
The prescription rests on the forecasts from the sample in both cases. What can differ are the dead fractions and so
the findings. Left: estimates against counts, with their intervals. Right: the differences.
"""

from typing import Any

import numpy as np
from experiments.outliers_2605_31518.frame import REAL, Claim, Data, Reproduction, Scale, at_least, at_most, main
from experiments.outliers_2605_31518.own import LAYER_FILES, numbers_of_tokens, own_layers
from experiments.outliers_2605_31518.released import Row
from experiments.outliers_2605_31518.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    death_axis,
    error_bars,
    legend_below,
    sheet,
)
from matplotlib.figure import Figure

REMEDIES = {
    "none": ("no remedy", BLACK),
    "mean": ("arithmetic mean", ORANGE),
    "median": ("geometric median", BLUE),
    "zscore": ("z-scored", GREEN),
}


def compute(scale: Scale) -> Data:
    """A row per layer: both kinds of findings, estimates with intervals, and counts."""
    rows = []
    for row in own_layers():
        rows.append(
            {
                **{name: row[name] for name in ("model", "modality", "point", "tokens", "prescribed")},
                "findings": row["findings"],
                "findings_estimated": row["findings_estimated"],
                "deaths": {
                    name: {
                        "counted": row["counted"][name]["dead"],
                        "estimated": row["estimated"][name]["dead"],
                        "interval": row["estimated"][name]["interval"],
                    }
                    for name in REMEDIES
                },
            }
        )
    return {"draws": scale.draws, "rows": rows}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=12, height=5.4)
    against, gaps = axes[0]
    against.plot((0, 1), (0, 1), color="0.5", linewidth=1)
    for remedy, (label, colour) in REMEDIES.items():
        deaths = [row["deaths"][remedy] for row in data["rows"]]
        counted = [death["counted"] for death in deaths]
        estimated = [death["estimated"] for death in deaths]
        span = error_bars(estimated, [death["interval"] for death in deaths])
        against.errorbar(counted, estimated, yerr=span, fmt="o", ms=3.5, lw=0.8, color=colour, label=label)
        off = [100 * (death["estimated"] - death["counted"]) for death in deaths]
        gaps.hist(off, bins=np.linspace(-10, 10, 41), histtype="step", color=colour, linewidth=1.5)
    against.set_xlabel("dead at birth, counted on all tokens")
    death_axis(against, "dead at birth, estimated from 4,096 tokens")
    against.set_xlim(-0.03, 1.03)
    gaps.set_yscale("log")
    gaps.set_xlabel("estimated minus counted, percentage points")
    gaps.set_ylabel("layers")
    same = sum(map(agrees, data["rows"]))
    tokens = numbers_of_tokens(data["rows"])
    against.set_title(
        f"{len(data['rows'])} layers, {tokens} tokens, d_sae 8192, k 64; bars: 90 %", fontsize=9.5, loc="left"
    )
    gaps.set_title(f"the same findings on {same} of {len(data['rows'])} layers", fontsize=9.5, loc="left")
    legend_below(figure, against, 4)
    return figure


def agrees(row: Row) -> bool:
    """Whether both diagnoses have the same findings, by name and in order."""
    return bool(row["findings"] == row["findings_estimated"])


def differences(row: Row) -> str:
    """The findings that only one of the two has."""
    exact, estimated = set(row["findings"]), set(row["findings_estimated"])
    only = [*(f"only with counts: {name}" for name in sorted(exact - estimated))]
    only += [f"only estimated: {name}" for name in sorted(estimated - exact)]
    return f"{row['model']} {row['point']}: {'; '.join(only)}"


def claims(data: Data) -> list[Claim]:
    rows = data["rows"]
    deaths = [death for row in rows for death in row["deaths"].values()]
    off = [abs(death["estimated"] - death["counted"]) for death in deaths]
    inside = [death["interval"][0] <= death["counted"] <= death["interval"][1] for death in deaths]
    differ = ", ".join(differences(row) for row in rows if not agrees(row)) or "none differs"
    return [
        _claim(
            at_least,
            f"our {len(rows)} layers: fraction with the same verdict from the sample as with counts ({differ})",
            "our layers: fraction with the same verdict from the sample as with counts",
            float(np.mean([*map(agrees, rows)])),
            0.99,
        ),
        _claim(
            at_most,
            f"|estimated - counted| dead, mean over {len(rows)} layers and {len(REMEDIES)} remedies",
            "|estimated - counted| dead, mean over our layers and four remedies",
            float(np.mean(off)),
            0.015,
        ),
        _claim(
            at_least,
            f"the interval of the estimate covers the count, fraction of {len(deaths)}",
            "the interval of the estimate covers the count, fraction",
            float(np.mean(inside)),
            0.9,
        ),
    ]


def _claim(make: Any, words: str, key: str, ours: float, limit: float) -> Claim:
    made: Claim = make("verdicts", words, paper="-", ours=ours, limit=limit, key=key)
    return made


FIGURE = Reproduction(name="verdicts", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=LAYER_FILES)

if __name__ == "__main__":
    main(FIGURE)
