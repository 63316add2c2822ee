"""Two users' layers, from their files to what training confirms: ViT tokens with registers, and tokens like VGGT's.

    python -m experiments.users.cases DATA WORK

vit.npy: [300, 197, 768], a class token and 196 patches of each of 300 photographs. It holds two hidden states of
DINOv2-small side by side (hs9 and hs12), so that it is as wide as a ViT-B's. One patch in 42 is replaced by an
artefact as large ViTs without register tokens have them (Darcet et al. 2024, arXiv:2309.16588: 2.37 % of the
patches): 15 times the typical norm, all in nearly one direction.

vggt.npy: [40000, 1024], three hidden states of DINOv2-small side by side, given the geometry that a user of another
library reported of VGGT: cosine 0.91 between tokens, 30 % of the variance in the first direction, 95 % in 34.

Each goes through `autopsae diagnose` as a file; then TopK SAEs are trained without a remedy and as prescribed, with
three seeds. results/cases.json holds what was said and what came of it.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.zoo import crops
from torch import Tensor

from autopsae import Prescription, Remedy, TopK, TrainConfig, born, evaluate
from autopsae.activations.hooks import hooked
from autopsae.files import write_text
from autopsae.models import load_network
from autopsae.remedies import untouched
from autopsae.training import Member, Training

RESULTS = Path(__file__).parent / "results" / "cases.json"
IMAGES, SIDE = 300, 196
D_SAE, K, STEPS, BATCH, LR, SEEDS = 1024, 32, 400, 512, 3e-4, (0, 1, 2)
HELD_OUT = 0.2
"""Share of the tokens, the last ones, on which death and the error are measured."""
ARTEFACTS, TIMES = 1 / 42, 15.0
COSINE, FIRST, HELD, DIRECTIONS = 0.91, 0.30, 0.95, 34


def image_tokens(data: Path, layers: tuple[str, ...]) -> Tensor:
    """[images, tokens, d_in]: hidden states of DINOv2-small side by side. data: the unpacked photographs."""
    network, parts = load_network("dinov2-small"), []
    with torch.no_grad(), hooked(network.model, layers) as capture:
        for batch in crops(data, size=SIDE, batch=10):
            network.model(**batch)
            states = capture.take()
            parts.append(torch.cat([states[layer] for layer in layers], dim=1).unflatten(0, (10, -1)))
            if 10 * len(parts) == IMAGES:
                break
    return torch.cat(parts)


def with_artefacts(x: Tensor, generator: torch.Generator) -> Tensor:
    """Some patches of each image, never the class token, made large and alike. x: [images, tokens, d_in]."""
    direction = torch.nn.functional.normalize(torch.randn(x.shape[2], generator=generator), dim=0)
    typical = x.norm(dim=2).median()
    chosen = torch.rand(x.shape[:2], generator=generator) < ARTEFACTS
    chosen[:, 0] = False
    # What a patch was stays in it as a tenth of its norm.
    large = TIMES * typical * direction + 0.1 * TIMES * x
    return torch.where(chosen[..., None], large, x)


def like_vggt(x: Tensor, generator: torch.Generator) -> Tensor:
    """x, [tokens, d_in], with another mean and other variances along its principal directions.

    Tokens of one mean have the cosine gamma^2 / (1 + gamma^2) with each other on average, so the norm of the mean
    follows from the cosine. It lies in a random direction.
    """
    d_in = x.shape[1]
    centered = (x - x.mean(dim=0)).double()
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(x))
    scores = (centered @ directions.flip(1)) / variances.flip(0).clamp_min(1e-9 * variances[-1]).sqrt()
    wanted = vggt_variances(d_in)
    mean = torch.nn.functional.normalize(torch.randn(d_in, generator=generator, dtype=torch.float64), dim=0)
    moved: Tensor = scores * wanted.sqrt() @ directions.flip(1).T + (COSINE / (1 - COSINE)) ** 0.5 * mean
    return moved.float()


def vggt_variances(d_in: int) -> Tensor:
    """[d_in], of sum 1: the first is 0.30, and the first 34 have 0.95.

    After the first they fall as a power of their place plus 10, so that the second is far under the first.
    """
    places = torch.arange(1, d_in, dtype=torch.float64) + 10
    low, high = 0.0, 100.0
    for _ in range(60):
        power = (low + high) / 2
        tail = places.pow(-power)
        share = float(tail[: DIRECTIONS - 1].sum() / tail.sum())
        low, high = (power, high) if share < (HELD - FIRST) / (1 - FIRST) else (low, power)
    return torch.cat([torch.tensor([FIRST], dtype=torch.float64), (1 - FIRST) * tail / tail.sum()])


def describe(x: Tensor) -> dict[str, float]:
    """The numbers by which a user would describe a layer. x: [tokens, d_in]."""
    some = torch.nn.functional.normalize(x[torch.randperm(len(x))[:2000]].double(), dim=1)
    between = some @ some.T
    norms = x.norm(dim=1)
    variances = torch.linalg.eigvalsh(torch.cov(x.double().T)).flip(0)
    share = variances.cumsum(0) / variances.sum()
    return {
        "cosine": float((between.sum() - len(some)) / (len(some) * (len(some) - 1))),
        "first_direction": float(share[0]),
        "directions_with_95_percent": int((share < HELD).sum()) + 1,
        "tokens_over_10_norms": float((norms > 10 * norms.median()).double().mean()),
    }


def say(path: Path) -> list[str]:
    """The lines that `autopsae diagnose` prints on a file; the prescription is written beside it."""
    command = [sys.executable, "-m", "autopsae", "diagnose", path.name, "--d-sae", str(D_SAE), "--k", str(K)]
    command += ["--prescriptions", "prescriptions"]
    printed = subprocess.run(command, cwd=path.parent, check=True, capture_output=True, text=True).stdout
    return [line.rstrip() for line in printed.splitlines() if line.strip()]


def train_both(x: Tensor, prescribed: Remedy, *, steps: int = STEPS) -> list[dict[str, Any]]:
    """A row for each seed and remedy: dead at birth and at the end, and the error, on held-out tokens."""
    held = int(HELD_OUT * len(x))
    training, rest = x[:-held], x[-held:]
    sample = training[:: max(1, len(training) // 4096)]
    config = TrainConfig(steps=steps, lr=LR, batch_tokens=BATCH, record_every=steps)
    runs = [(seed, remedy) for seed in SEEDS for remedy in (untouched(x.shape[1]), prescribed)]
    members, births = [], []
    for seed, remedy in runs:
        chance = torch.Generator().manual_seed(seed)
        sae = born(remedy, d_sae=D_SAE, sparsity=TopK(k=K), sample=sample, generator=chance)
        births.append(evaluate(sae, rest))
        members.append(Member(sae=sae, config=config, name=f"{remedy.name} {seed}"))
    for _ in Training(members, training):
        pass
    rows = []
    for (seed, remedy), member, birth in zip(runs, members, births, strict=True):
        end = evaluate(member.sae, rest)
        rows.append(
            {
                "remedy": remedy.name,
                "seed": seed,
                "dead_birth": round(birth.fates.dead, 5),
                "dead_end": round(end.fates.dead, 5),
                "fvu_raw": None if end.fvu_raw is None else round(end.fvu_raw, 5),
                "fvu_typical": None if end.fvu_typical is None else round(end.fvu_typical, 5),
            }
        )
    return rows


def study(path: Path, x: Tensor) -> dict[str, Any]:
    """A case: what the layer is, what is said of it, and what training makes of that. x: written to `path`."""
    start = time.perf_counter()
    np.save(path, x.numpy())
    tokens = x.flatten(0, -2)
    says = say(path)
    prescribed = Prescription.load(path.parent / "prescriptions" / f"{path.stem}.json").remedy
    return {
        "shape": list(x.shape),
        **describe(tokens),
        "d_sae": D_SAE,
        "k": K,
        "steps": STEPS,
        "says": says,
        "prescribed": prescribed.name,
        "trained": train_both(tokens, prescribed),
        "minutes": round((time.perf_counter() - start) / 60, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that the Debian packages were unpacked to")
    parser.add_argument("work", type=Path, help="folder for the two files, 350 MB")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    chance = torch.Generator().manual_seed(0)
    wide = image_tokens(asked.data, ("hs9", "hs12", "hs6"))
    vit = with_artefacts(wide[:, :, :768], chance)
    order = torch.randperm(IMAGES * wide.shape[1], generator=chance)[:40_000]
    made = {"vit": vit, "vggt": like_vggt(wide.flatten(0, 1)[order, :1024], chance)}
    kept = {name: study(asked.work / f"{name}.npy", x) for name, x in made.items()}
    write_text(RESULTS, json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
