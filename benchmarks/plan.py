"""The hours that `--plan` says, against a training that is timed: from a file, with records and its buffer.

Plans and trainings take turns, so that a slow spell of the machine meets both, and the medians are compared:
planned seconds for the steps of the training, and the seconds that it took. Run as `python -m benchmarks.plan`.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file

from autopsae.activations.store import open_activations
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.remedies.remedy import center
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.training.config import TrainConfig
from autopsae.training.one import train
from autopsae.training.plan import plan_training
from benchmarks.harness import save

ROUNDS = 3
SETTINGS = {
    "small": {"d_in": 256, "d_sae": 2048, "k": 32, "batch_tokens": 2048, "steps": 30},
    "large": {"d_in": 576, "d_sae": 8192, "k": 64, "batch_tokens": 4096, "steps": 10},
}


def compare(folder: Path, *, d_in: int, d_sae: int, k: int, batch_tokens: int, steps: int) -> dict[str, Any]:
    """Planned and real seconds of a training."""
    generator = torch.Generator().manual_seed(0)
    x = gaussian_tokens(steps * batch_tokens, d_in, gamma=1.0, spectrum=1.0, generator=generator).float()
    save_file({"layer": x}, folder / f"{d_in}.safetensors")
    tokens = open_activations(folder / f"{d_in}.safetensors")
    sample = x[:4096]
    config = TrainConfig(steps=steps, lr=3e-4, batch_tokens=batch_tokens)
    planned, real = [], []
    for _ in range(ROUNDS):
        sae = born(center(sample.mean(dim=0), "mean"), d_sae=d_sae, sparsity=TopK(k=k), sample=sample)
        planned.append(3600 * plan_training(sae, sample, config).hours)
        start = time.perf_counter()
        train(sae, tokens, config)
        real.append(time.perf_counter() - start)
    return {
        "setting": {"d_in": d_in, "d_sae": d_sae, "k": k, "batch_tokens": batch_tokens, "steps": steps},
        "planned_seconds": round(median(planned), 2),
        "real_seconds": round(median(real), 2),
        "real_of_planned": round(median(real) / median(planned), 3),
        "by_round": [round(took / said, 3) for took, said in zip(real, planned, strict=True)],
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        save("plan", {name: compare(Path(folder), **setting) for name, setting in SETTINGS.items()})


if __name__ == "__main__":
    main()
