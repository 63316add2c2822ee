"""Is it the bias that kills centered latents? The median of remedies.py again, with other learning rates.

python -m experiments.training.bias ACTIVATIONS LAYER OUT.json
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from experiments.training.remedies import D_SAE, K, remedies, split

from autopsae.evaluation.reconstruction import evaluate
from autopsae.files import write_text
from autopsae.run.measured import numbers_of
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import collect
from autopsae.training.config import TrainConfig
from autopsae.training.one import train

AS_BEFORE = TrainConfig(steps=1000, lr=3e-4, batch_tokens=1024)
WAYS = {
    "b_dec frozen": replace(AS_BEFORE, frozen=("b_dec",)),
    "warm-up of 300 steps": replace(AS_BEFORE, warmup_steps=300),
    "a third of the learning rate": replace(AS_BEFORE, lr=1e-4),
}


def main() -> None:
    path, layer, out = sys.argv[1:4]
    training, held_out = split(path, layer)
    statistics = collect(training)
    [median] = [remedy for remedy in remedies(statistics) if remedy.name == "median"]
    ends = {}
    for name, config in WAYS.items():
        generator = torch.Generator().manual_seed(0)
        sae = born(median, d_sae=D_SAE, sparsity=TopK(k=K), sample=statistics.sample, generator=generator)
        train(sae, training, config)
        ends[name] = numbers_of(evaluate(sae, held_out))
        print(layer, name, ends[name], flush=True)
    write_text(Path(out), json.dumps({"layer": layer, "remedy": "median", "ends": ends}, indent=1) + "\n")


if __name__ == "__main__":
    main()
