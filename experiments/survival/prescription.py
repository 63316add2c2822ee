"""What is prescribed, and what the paper's rule would choose, held against every remedy trained.

    python -m experiments.survival.prescription FOLDER...   # those of `results/training.json`

For each trained layer the remedies' outlooks are forecast from the training tokens, for the SAE that was trained,
and the rule of `prescribe` is applied. Kept: `results/prescription.json`, a row per layer and remedy.
"""

import argparse
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from experiments.survival.training import D_SAE, HELD_OUT, with_subspace

from autopsae import AmongLargest, collect, forecast_births, geometric_median, open_layers
from autopsae.diagnosis.diagnose import AT_TOKENS
from autopsae.diagnosis.prescribe import paper_rule, prescribe
from autopsae.diagnosis.severity import severity
from autopsae.files import write_text

HERE = Path(__file__).parent
UNTRIED = ("mean",)
"""Trained to compare, never prescribed."""


def judged(folder: Path, layer: str, k: int, trained: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per remedy, with its outlook and whether it is prescribed."""
    training, _ = open_layers(folder)[layer].split(HELD_OUT)
    statistics = collect(training)
    geometry = severity(statistics, geometric_median(statistics.sample))
    remedies = with_subspace(statistics)
    forecasts = forecast_births(
        statistics.sample,
        remedies,
        AmongLargest(k),
        d_sae=D_SAE,
        generator=torch.Generator().manual_seed(0),
    )
    expected = {name: found.at(AT_TOKENS) for name, found in forecasts.items()}
    ladder = [remedy for remedy in remedies if remedy.name not in UNTRIED]
    chosen = prescribe(expected, ladder, layer=layer, d_sae=D_SAE, k=k).remedy
    return [
        {
            **{name: row[name] for name in ("model", "layer", "k", "steps", "remedy")},
            "alpha": _alpha(row["remedy"]),
            **{name: row[name] for name in ("dead_birth", "dead_end", "fvu_raw", "fvu_typical")},
            "expected": expected[row["remedy"]].dead.value,
            "usage": expected[row["remedy"]].usage,
            "dominance": expected[row["remedy"]].dominance,
            "gamma": geometry.gamma,
            "effective_rank_fraction": geometry.effective_rank_fraction,
            "stray_square": geometry.stray_square,
            "prescribed": row["remedy"] == chosen,
            "paper": row["remedy"] == paper_rule(geometry.effective_rank_fraction),
        }
        for row in trained
    ]


def _alpha(remedy: str) -> float | None:
    """Of whitening: 0 only centers."""
    name, _, alpha = remedy.partition("_")
    return {"mean": 0.0, "median": 0.0, "whiten": float(alpha or 1)}.get(name) if name != "asi" else None


def table(rows: list[dict[str, Any]]) -> None:
    """A line per layer: the best, ours and the paper's choice."""
    met: dict[str, list[bool]] = {"prescribed": [], "paper": []}
    print(
        "| layer | k | best raw FVU | prescribed | dead | raw FVU | paper's rule | dead | raw FVU |\n"
        + "|---" * 9
        + "|"
    )
    for (model, layer, k), group in groupby(rows, key=lambda row: (row["model"], row["layer"], row["k"])):
        trained = list(group)
        best = min(trained, key=lambda row: row["fvu_raw"])
        cells = [f"{model} {layer}", str(k), f"{best['fvu_raw']:.4g} ({best['remedy']})"]
        for who in met:
            [row] = [row for row in trained if row[who]]
            ratio = row["fvu_raw"] / best["fvu_raw"]
            cells += [row["remedy"], f"{row['dead_end']:.2%}", f"x {ratio:.3f}"]
            met[who].append(row["dead_end"] < 0.01 and ratio <= 1.05)
        print("| " + " | ".join(cells) + " |")
    for who, each in met.items():
        print(f"{who}: under 1 % dead and within 5 % of the best on {sum(each)} of {len(each)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    folders = {folder.name: folder for folder in parser.parse_args().folders}
    trained = json.loads((HERE / "results" / "training.json").read_text())
    rows: list[dict[str, Any]] = []
    for (model, layer, k), group in groupby(trained, key=lambda row: (row["model"], row["layer"], row["k"])):
        rows += judged(folders[model], layer, k, list(group))
    write_text(HERE / "results" / "prescription.json", json.dumps(rows, indent=1) + "\n")
    table(rows)


if __name__ == "__main__":
    main()
