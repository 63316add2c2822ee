"""The tables of docs/features.md from `results/concepts.json` and `results/probes.json`.

    python -m experiments.features.table

A number of the first is the mean over seeds. Where seeds differ, the least and the largest stand in brackets. The
second has the AUC of each task and representation at 1, 16 and 128 columns, and the mean over tasks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "concepts.json"
PROBES = RESULTS.with_name("probes.json")
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


def probe_table(rows: Sequence[Row]) -> str:
    """A line for each task, and one for the mean; the last column has the shuffled labels of the first SAE."""
    names = [*dict.fromkeys(score["representation"] for score in rows[0]["scores"])]
    lines = [f"| task | texts | {' | '.join(names)} | shuffled |", "|---" * (len(names) + 3) + "|"]
    means = dict[str, list[list[float]]]()
    for row in rows:
        cells = {name: _aucs(row["scores"], name) for name in names}
        cells["shuffled"] = _aucs(row["shuffled"], names[0])
        for name, aucs in cells.items():
            means.setdefault(name, []).append(aucs)
        lines.append(f"| {row['task']} | {row['texts']} | {' | '.join(map(_join, cells.values()))} |")
    mean = [[sum(column) / len(column) for column in zip(*aucs, strict=True)] for aucs in means.values()]
    return "\n".join([*lines, f"| mean | | {' | '.join(map(_join, mean))} |"])


def _aucs(scores: Sequence[Row], name: str) -> list[float]:
    return [score["auc"] for score in scores if score["representation"] == name]


def _join(aucs: Sequence[float]) -> str:
    return " / ".join(f"{auc:.2f}" for auc in aucs)


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
    if PROBES.exists():
        print("", probe_table(json.loads(PROBES.read_text())["rows"]), sep="\n")
