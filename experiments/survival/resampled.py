"""The tables of `resampling`, as in docs/forecast.md.

    python -m experiments.survival.resampled [results/resampling.json]

Only rows with dead latents are in the tables of death: over 0.1 % dead on all tokens, or over 0.1 points off.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.survival.layers import LAYERS

HERE = Path(__file__).parent
Row = dict[str, Any]
LEAST = 0.001
SAMPLE = 4096
LITTLE_SHARED = ("minilm", "smollm2", "gemma3", "qwen", "antiberty")
"""Networks whose documents share little of the variance of firings."""
CHOSEN_ON = {f"{network}.{layer}" for network, layers in LAYERS.items() for layer in layers}
STORES = {
    "as harvested": ("as harvested", ""),
    "shuffled": ("shuffled", ""),
    "shuffled, nothing assumed": ("shuffled", "unassumed_"),
    "documents known": ("documents known", ""),
}
"""{name of a line: (store, what its columns begin with)}."""


def of_death(rows: Sequence[Row]) -> list[Row]:
    """The rows of death in which there is some."""
    return [row for row in rows if "dead" in row and max(row["dead"], row["worst"]) > LEAST]


def lines_of(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row], str]]:
    """(the first cells of a line, its rows, what its columns begin with)."""
    for layers, apart in (("chosen on", False), ("kept apart", True)):
        for origin, whole in (("all", True), ("few", False)):
            for name, (store, columns) in STORES.items():
                some = [
                    row
                    for row in rows
                    if (row["layer"] not in CHOSEN_ON) == apart
                    and (row["from"] == "all documents") == whole
                    and row["store"] == store
                ]
                if some:
                    yield f"{layers} | {origin} | {name}", some, columns


def death_table(rows: Sequence[Row]) -> str:
    """Errors and coverage by layers, by where the sample is from and by how the store is kept."""
    lines = ["| layers | documents | store | rows | mean error | interval holds | width |", "|---" * 7 + "|"]
    for name, some, columns in lines_of(of_death(rows)):
        error, holds, width = (mean(some, columns + key) for key in ("mean_error", "holds", "width"))
        lines.append(f"| {name} | {len(some)} | {100 * error:.2f} | {holds:.0%} | {100 * width:.1f} |")
    return "\n".join(lines)


def severity_table(rows: Sequence[Row]) -> str:
    """How often the intervals of gamma and rank hold the value of all tokens, and their widths relative to it."""
    names = ("gamma", "gamma_raw", "effective_rank")
    lines = ["| layers | documents | store | gamma | gamma_raw | effective rank |", "|---" * 6 + "|"]
    for name, some, columns in lines_of([row for row in rows if "severity" in row]):
        cells = []
        for number in names:
            judged = [row["severity"][number] for row in some]
            holds, width = (mean(judged, columns + key) for key in ("holds", "relative_width"))
            cells.append(f"{holds:.0%}, {100 * width:.0f} % wide")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def layer_table(rows: Sequence[Row]) -> str:
    """By layer: samples from all documents in stores as harvested, and from few documents in shuffled ones."""
    lines = [
        "| layer | d_in | samples | all: mean error | worst row | holds | few, shuffled: mean error | holds |",
        "|---" * 8 + "|",
    ]
    listed = of_death(rows)
    for layer in dict.fromkeys(row["layer"] for row in listed):
        of = [row for row in listed if row["layer"] == layer]
        every = [row for row in of if row["from"] == "all documents" and row["store"] == "as harvested"]
        few = [row for row in of if row["from"] != "all documents" and row["store"] == "shuffled"]
        cells = [layer, str(of[0]["d_in"]), str(of[0]["draws"])]
        for some, worst in ((every, True), (few, False)):
            cells.append(f"{100 * mean(some, 'mean_error'):.2f}" if some else "")
            if worst:
                cells.append(f"{100 * max((row['mean_error'] for row in some), default=0.0):.1f}")
            cells.append(f"{mean(some, 'holds'):.0%}" if some else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def correlations(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """{kind of layers: (smallest, largest) share of the variance of firings that lies between documents}.

    It is (design effect - 1) / (tokens of each document - 1), from the samples of few documents that are known.
    """
    by_layer: dict[str, list[float]] = {}
    for row in rows:
        if "dead" in row and row["from"] != "all documents" and row["store"] == "documents known":
            effect, of_each = SAMPLE / row["effective_tokens"], SAMPLE / int(row["from"].split()[0])
            by_layer.setdefault(row["layer"], []).append((effect - 1) / (of_each - 1))
    kinds: dict[str, list[float]] = {}
    for layer, values in by_layer.items():
        kind = "text and AntiBERTy" if layer.split(".")[0] in LITTLE_SHARED else "UniRep, SpliceAI and DINOv2"
        kinds.setdefault(kind, []).append(sum(values) / len(values))
    return {kind: (min(values), max(values)) for kind, values in kinds.items()}


def mean(rows: Sequence[Row], key: str) -> float:
    """The mean over rows."""
    return float(sum(row[key] for row in rows) / len(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=HERE / "results" / "resampling.json")
    rows: list[Row] = json.loads(parser.parse_args().results.read_text())
    print("\n\n".join([death_table(rows), severity_table(rows), layer_table(rows)]))
    print()
    for kind, (least, most) in correlations(rows).items():
        print(f"{kind}: documents share {least:.2g} to {most:.2g} of the variance of firings")


if __name__ == "__main__":
    main()
