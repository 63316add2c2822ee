"""What is prescribed, held against the paper's rule, one remedy for every layer, and all that was trained.

    python -m experiments.survival.prescription FOLDER...   # those of `results/training.json`
    python -m experiments.survival.prescription             # compare the rules again on the kept rows, a second

For each trained layer the remedies' outlooks are forecast from the training tokens, for the SAE that was trained,
and the rule of `prescribe` is applied. Kept: `results/prescription.json`, with `rows`, one per layer and remedy,
and `rules`: on how many layers each rule ends with under 1 % dead, and also has a raw FVU within 5 % of the best.
"""

import argparse
import json
from itertools import groupby
from math import exp, log
from pathlib import Path
from typing import Any

import torch
from experiments.survival.training import D_SAE, HELD_OUT, with_subspace

from autopsae import TopK, open_layers
from autopsae.defaults import AT_TOKENS
from autopsae.diagnosis.prescribe import paper_rule, prescribe
from autopsae.diagnosis.severity import severity
from autopsae.files import write_text
from autopsae.statistics import collect, geometric_median
from autopsae.survival import forecast_births

HERE = Path(__file__).parent
UNTRIED = ("mean",)
"""Trained to compare, never prescribed."""

JUDGED = (("gemma3", "hs14"), ("gemma3", "hs17"), ("smollm2", "hs12"), ("smollm2", "hs30"), ("antiberty", "hs1"))
"""Trained after the rule was set; its three numbers were chosen on the other layers."""

CONSTANTS = ("none", "mean", "median", "whiten_0.15", "whiten_0.3", "whiten_0.5", "whiten")
"""Rivals of a rule: the same remedy on every layer."""

FEW, NEAR = 0.01, 1.05
"""Under FEW dead at the end, and at most NEAR times the best raw FVU."""

Row = dict[str, Any]


def judged(folder: Path, layer: str, k: int, trained: list[Row]) -> list[Row]:
    """A row per remedy, with its outlook and whether it is prescribed."""
    training, _ = open_layers(folder)[layer].split(HELD_OUT)
    statistics = collect(training)
    geometry = severity(statistics, geometric_median(statistics.sample))
    remedies = with_subspace(statistics)
    forecasts = forecast_births(
        statistics.sample,
        remedies,
        TopK(k=k),
        d_sae=D_SAE,
        generator=torch.Generator().manual_seed(0),
    )
    expected = {name: found.at(AT_TOKENS) for name, found in forecasts.items()}
    ladder = [remedy for remedy in remedies if remedy.name not in UNTRIED]
    chosen = prescribe(expected, ladder, layer=layer, d_sae=D_SAE, sparsity=TopK(k=k)).remedy.name
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


def by_layer(rows: list[Row]) -> list[list[Row]]:
    """The remedies that were trained on each layer."""
    return [list(group) for _, group in groupby(rows, key=lambda row: (row["model"], row["layer"], row["k"]))]


def choice(rule: str, trained: list[Row]) -> Row:
    """What a rule chooses among the remedies of a layer: "prescribed", "paper", or always the same one."""
    [row] = [row for row in trained if (row[rule] if rule in ("prescribed", "paper") else row["remedy"] == rule)]
    return row


def over_best(row: Row, trained: list[Row]) -> float:
    """The row's raw FVU over the best of its layer."""
    return float(row["fvu_raw"] / min(other["fvu_raw"] for other in trained))


def compared(rows: list[Row]) -> dict[str, dict[str, float]]:
    """By rule: on how many layers few die, and the error is near the best besides; the error over the best, as
    geometric mean and at worst.
    """
    layers, found = by_layer(rows), {}
    for rule in ("prescribed", "paper", *CONSTANTS):
        chosen = [choice(rule, trained) for trained in layers]
        over = [over_best(row, trained) for row, trained in zip(chosen, layers, strict=True)]
        few = [row["dead_end"] < FEW for row in chosen]
        found[rule] = {
            "layers": len(layers),
            "few_dead": sum(few),
            "few_dead_and_near_best": sum(each and ratio <= NEAR for each, ratio in zip(few, over, strict=True)),
            "most_dead": max(row["dead_end"] for row in chosen),
            "over_best_mean": exp(sum(map(log, over)) / len(over)),
            "over_best_worst": max(over),
        }
    return found


def rules(rows: list[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """`compared` on all layers, and on those that were trained after the rule was set."""
    return {
        "all": compared(rows),
        "judged": compared([row for row in rows if (row["model"], row["layer"]) in JUDGED]),
    }


def table(rows: list[Row]) -> None:
    """A line per layer: the best, ours and the paper's choice. Then a line per rule."""
    print(
        "| layer | k | best raw FVU | prescribed | dead | raw FVU | paper's rule | dead | raw FVU |\n"
        + "|---" * 9
        + "|"
    )
    for trained in by_layer(rows):
        best = min(trained, key=lambda row: row["fvu_raw"])
        cells = [f"{best['model']} {best['layer']}", str(best["k"]), f"{best['fvu_raw']:.4g} ({best['remedy']})"]
        for who in ("prescribed", "paper"):
            row = choice(who, trained)
            cells += [row["remedy"], f"{row['dead_end']:.2%}", f"x {over_best(row, trained):.3f}"]
        print("| " + " | ".join(cells) + " |")
    for which, found in rules(rows).items():
        print(f"\n| rule, {which} | under 1 % dead | and near best FVU | most dead | FVU over best, mean | worst |")
        print("|---" * 6 + "|")
        for rule, said in found.items():
            cells = [rule, f"{said['few_dead']} of {said['layers']}", str(said["few_dead_and_near_best"])]
            cells += [f"{said['most_dead']:.1%}", f"{said['over_best_mean']:.3f}", f"{said['over_best_worst']:.3f}"]
            print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="none: the rows that are kept")
    folders = {folder.name: folder for folder in parser.parse_args().folders}
    kept = HERE / "results" / "prescription.json"
    if folders:
        layers = by_layer(json.loads((HERE / "results" / "training.json").read_text()))
        rows = [
            row
            for trained in layers
            for row in judged(folders[trained[0]["model"]], trained[0]["layer"], trained[0]["k"], trained)
        ]
    else:
        rows = json.loads(kept.read_text())["rows"]
    write_text(kept, json.dumps({"rules": rules(rows), "rows": rows}, indent=1) + "\n")
    table(rows)


if __name__ == "__main__":
    main()
