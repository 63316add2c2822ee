"""The tables of `resampling`, as in docs/forecast.md.

    python -m experiments.survival.resampled [results/resampling.json]

Only rows with dead latents are in the tables of death: over 0.1 % dead on all tokens, or over 0.1 points off.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = dict[str, Any]
LEAST = 0.001
ORIGINS = {"all of the documents": True, "few of the documents": False}
STORES = ("as harvested", "shuffled", "documents known")


def of_death(rows: Sequence[Row]) -> list[Row]:
    """The rows of death in which there is some."""
    return [row for row in rows if "dead" in row and max(row["dead"], row["worst"], row["before_worst"]) > LEAST]


def death_table(rows: Sequence[Row]) -> str:
    """Errors and coverage by where the sample is from and how the store is kept, before and now."""
    lines = [
        "| sample from | store | rows | mean error before | now | holds before | now | width before | now |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for origin, whole in ORIGINS.items():
        for store in STORES:
            some = [
                row for row in of_death(rows) if (row["from"] == "all documents") == whole and row["store"] == store
            ]
            holds = [f"{mean(some, f'{when}holds'):.0%}" for when in ("before_", "")]
            errors, widths = (
                [f"{100 * mean(some, f'{when}{key}'):.{digits}f}" for when in ("before_", "")]
                for key, digits in (("mean_error", 2), ("width", 1))
            )
            lines.append(f"| {origin} | {store} | {len(some)} | {' | '.join([*errors, *holds, *widths])} |")
    return "\n".join(lines)


def layer_table(rows: Sequence[Row]) -> str:
    """By layer: samples from all documents, stores as harvested."""
    some = [row for row in of_death(rows) if row["from"] == "all documents" and row["store"] == "as harvested"]
    lines = [
        "| layer | d_in | rows | mean error before | now | worst row before | now | holds before | now |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for layer in dict.fromkeys(row["layer"] for row in some):
        of = [row for row in some if row["layer"] == layer]
        errors = [f"{100 * mean(of, f'{when}mean_error'):.2f}" for when in ("before_", "")]
        worst = [f"{100 * max(row[f'{when}mean_error'] for row in of):.1f}" for when in ("before_", "")]
        holds = [f"{mean(of, f'{when}holds'):.0%}" for when in ("before_", "")]
        lines.append(f"| {layer} | {of[0]['d_in']} | {len(of)} | {' | '.join([*errors, *worst, *holds])} |")
    return "\n".join(lines)


def severity_table(rows: Sequence[Row]) -> str:
    """How often the intervals of gamma and rank hold the value of all tokens."""
    lines = ["| sample from | store | gamma | gamma_raw | effective rank |", "|---|---|---|---|---|"]
    for origin, whole in ORIGINS.items():
        for store in STORES:
            some = [
                row["severity"]
                for row in rows
                if "severity" in row and (row["from"] == "all documents") == whole and row["store"] == store
            ]
            names = ("gamma", "gamma_raw", "effective_rank")
            shares = [f"{sum(one[name]['holds'] for one in some) / len(some):.0%}" for name in names]
            lines.append(f"| {origin} | {store} | {' | '.join(shares)} |")
    return "\n".join(lines)


def mean(rows: Sequence[Row], key: str) -> float:
    """The mean over rows."""
    return float(sum(row[key] for row in rows) / len(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=HERE / "results" / "resampling.json")
    rows: list[Row] = json.loads(parser.parse_args().results.read_text())
    print("\n\n".join([death_table(rows), layer_table(rows), severity_table(rows)]))


if __name__ == "__main__":
    main()
