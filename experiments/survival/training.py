"""Every remedy trained on a layer at equal budgets: who dies in training, and what the reconstruction costs.

    python -m experiments.survival.training FOLDER LAYERS [--k 32] [--steps 1000] [--out results/training.json]

TopK, d_sae 2048, Adam 3e-4, 1,024 tokens a step, tokens scaled to a median norm of sqrt(d_in), the eight remedies
as one sweep. 20,480 tokens, evenly spaced, are held out: death and raw FVU are measured on them at birth and at the
end.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from experiments.rows import read_rows, write_rows
from experiments.training.remedies import remedies

from autopsae import Remedy, TopK, TrainConfig, born, evaluate, open_layers
from autopsae.activations.store import Activations
from autopsae.diagnosis.severity import severity
from autopsae.remedies import active_subspace
from autopsae.statistics import collect, geometric_median
from autopsae.statistics.collect import Statistics
from autopsae.statistics.spectrum import Spectrum
from autopsae.training import Member, Training

HERE = Path(__file__).parent
HELD_OUT, D_SAE, LR, BATCH = 20_480, 2048, 3e-4, 1024


def with_subspace(statistics: Statistics) -> list[Remedy]:
    """The remedies of `experiments.training`, and active subspace initialisation."""
    median = geometric_median(statistics.sample)
    rank = max(1, round(severity(statistics, median).effective_rank))
    spectrum = Spectrum.of(statistics.raw.covariance)
    return [*remedies(statistics), active_subspace(spectrum, median, rank=rank)]


def trained(tokens: Activations, *, k: int, steps: int) -> list[dict[str, Any]]:
    """A row per remedy: name, dead at birth and at the end (and by ReLU), raw FVU, L0."""
    training, held_out = tokens.split(HELD_OUT)
    statistics = collect(training)
    config = TrainConfig(steps=steps, lr=LR, batch_tokens=BATCH, record_every=steps)
    members = [
        Member(
            sae=born(
                remedy,
                d_sae=D_SAE,
                sparsity=TopK(k=k),
                sample=statistics.sample,
                generator=torch.Generator().manual_seed(0),
            ),
            config=config,
            name=remedy.name,
        )
        for remedy in with_subspace(statistics)
    ]
    births = [evaluate(member.sae, held_out) for member in members]
    for _ in Training(members, training):
        pass
    rows = []
    for member, birth in zip(members, births, strict=True):
        end = evaluate(member.sae, held_out)
        rows.append(
            {
                "remedy": member.name,
                "dead_birth": birth.fates.dead,
                "relu_birth": birth.fates.dead_by_relu,
                "dead_end": end.fates.dead,
                "relu_end": end.fates.dead_by_relu,
                "fvu_raw": end.fvu_raw,
                "fvu_typical": end.fvu_typical,
                "bias_captured": end.bias_captured,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("layers", help="names, comma-separated")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "training.json")
    asked = parser.parse_args()
    rows = read_rows(asked.out)
    available = open_layers(asked.folder)
    for layer in asked.layers.split(","):
        about = {"model": asked.folder.name, "layer": layer, "k": asked.k, "steps": asked.steps}
        if any(about.items() <= row.items() for row in rows):
            continue
        rows += [{**about, **row} for row in trained(available[layer], k=asked.k, steps=asked.steps)]
        write_rows(asked.out, rows)
        for row in rows[-8:]:
            print(
                *about.values(), row["remedy"], f"{row['dead_birth']:.2%} -> {row['dead_end']:.2%}", row["fvu_raw"]
            )


if __name__ == "__main__":
    main()
