"""The table of docs/features.md from `results/concepts.json`.

    python -m experiments.features.table

A number is the mean over seeds. Where seeds differ, the least and the largest stand in brackets.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "concepts.json"
Row = dict[str, Any]
COLUMNS = (
    "layer",
    "SAE",
    "live",
    "covered",
    "by chance",
    "mean F1",
    "by a probe",
    "at equal live: its own",
    "baseline's",
)


def read_rows() -> list[Row]:
    return list(json.loads(RESULTS.read_text())["rows"])


def table(rows: Sequence[Row]) -> str:
    """A line for each layer, training and SAE."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for layer, training in dict.fromkeys((row["layer"], row["training"]) for row in rows):
        mine = [row for row in rows if (row["layer"], row["training"]) == (layer, training)]
        for sae in dict.fromkeys(row["sae"] for row in mine):
            some = [row for row in mine if row["sae"] == sae]
            gains = [row["gain"] for row in some if "gain" in row]
            cells = [
                layer if training == "all tokens" else f"{layer}, {training}",
                sae,
                spread([row["live"] for row in some], 0),
                f"{spread([row['covered'] for row in some], 1)} of {some[0]['concepts']}",
                spread([row["covered_by_chance"] for row in some], 1),
                spread([row["mean_f1"] for row in some], 3),
                spread([row["covered_by_probe"] for row in some], 1),
                spread([gain["covered_by_equal_live"] for gain in gains], 1),
                spread([gain["baseline_by_equal_live"] for gain in gains], 1),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and the ends in brackets where they differ."""
    if not values:
        return ""
    texts = [f"{value:,.{digits if value != int(value) else 0}f}" for value in (min(values), max(values))]
    mean = sum(values) / len(values)
    whole = f"{mean:,.{digits if mean != int(mean) else 0}f}"
    return whole if texts[0] == texts[1] else f"{whole} ({texts[0]} to {texts[1]})"


if __name__ == "__main__":
    print(table(read_rows()))
