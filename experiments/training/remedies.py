"""Birth and end of the same SAE under every remedy, with and without AuxK, at equal budgets, on real activations.

    python experiments/training/remedies.py ACTIVATIONS LAYER OUT.json [STEPS]

TopK, d_sae 2048, k 32, Adam 3e-4, 1,024 tokens a step, tokens scaled to a median norm of sqrt(d_in), decoder rows
of unit norm. 4,096 tokens, drawn at random, are held out: death, raw FVU and L0 are measured on them, at birth, at
the end and every 50 steps in between.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

import autopsae
from autopsae.evaluation.reconstruction import evaluate
from autopsae.files import write_text
from autopsae.remedies.remedy import Remedy, center, untouched, whiten
from autopsae.run.measured import numbers_of
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.spectrum import Spectrum
from autopsae.training.config import TrainConfig
from autopsae.training.one import steps
from autopsae.training.revival import AuxK

HELD_OUT, D_SAE, K, EVERY = 4096, 2048, 32, 50
ALPHAS = (0.15, 0.3, 0.5, 1.0)


def split(path: str, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(training tokens, held-out tokens), at random."""
    x = torch.cat([batch.float() for batch in autopsae.open_activations(path, layer)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[HELD_OUT:]], x[order[:HELD_OUT]]


def remedies(statistics: Statistics) -> list[Remedy]:
    """Every remedy of the training tokens."""
    median = autopsae.statistics.geometric_median(statistics.sample)
    spectrum = Spectrum.of(statistics.raw.covariance)
    listed = [untouched(statistics.d_in), center(statistics.raw.mean, "mean"), center(median, "median")]
    return listed + [whiten(spectrum, median, alpha=alpha) for alpha in ALPHAS]


def main() -> None:
    path, layer, out = sys.argv[1:4]
    config = TrainConfig(steps=int(sys.argv[4]) if len(sys.argv) > 4 else 1000, lr=3e-4, batch_tokens=1024)
    training, held_out = split(path, layer)
    statistics = collect(training)
    listed, sample = remedies(statistics), statistics.sample
    rows: list[dict[str, Any]] = []
    for auxk in (None, AuxK()):
        settings = TrainConfig(**{**vars(config), "revival": auxk})
        for remedy in listed:
            generator = torch.Generator().manual_seed(0)
            sae = born(remedy, d_sae=D_SAE, sparsity=TopK(k=K), sample=sample, generator=generator)
            curve = [{"step": 0, **numbers_of(evaluate(sae, held_out))}]
            for record in steps(sae, training, settings):
                if (record.step + 1) % EVERY == 0:
                    curve.append({"step": record.step + 1, **numbers_of(evaluate(sae, held_out))})
            rows.append({"remedy": remedy.name, "auxk": auxk is not None, "curve": curve})
            print(layer, remedy.name, "AuxK" if auxk else "", curve[0]["dead"], curve[-1], flush=True)
            write_text(Path(out), json.dumps({"layer": layer, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
