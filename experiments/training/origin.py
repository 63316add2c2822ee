"""Where a learned `b_dec` goes, and whom it kills, on tokens whose true origin is known.

    python -m experiments.training.origin [--seeds 0,1,2] [--steps 3000] [--out results/origin.json]
    python -m experiments.training.origin --table  # of the kept rows

Tokens are x = origin + a F: 128 unit directions F in 64 dimensions. Each is active on its own, with a probability
from 0.1 down to 0.005 and a coefficient of 0.5 + |Normal(0, 1)|. So codes are not negative, and the mean of the
tokens is not the origin of the code. In the world "dense", 4 of the directions have a probability of 0.9 and four
times the coefficients, so that the mean is far from the origin. TopK SAEs with 256 latents, k the mean number of
active features, are born with `b_dec` at the geometric median or at the true origin, and trained with every way in
which `b_dec` learns, side by side. 20,000 other tokens judge. Kept, per world, seed and SAE: dead latents, FVU, the
share of the true features that some living latent has (cosine of at least 0.9), where encoder centre and `b_dec`
are, and which way the rows of dead latents looked at birth.
"""

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from autopsae import SAE, TopK, TrainConfig, born, evaluate
from autopsae.files import write_text
from autopsae.remedies import center
from autopsae.statistics import geometric_median
from autopsae.training import Member, Training
from autopsae.training.bias import BIASES

HERE = Path(__file__).parent
D_IN, FEATURES, D_SAE, TOKENS, HELD_OUT = 64, 128, 256, 400_000, 20_000
MOST, LEAST = 0.1, 0.005
"""Probabilities of the most and the least frequent feature; the others lie evenly between them in the logarithm."""
SAME = 0.9
"""A latent has a feature from this cosine of its decoder row on."""


DENSE = {"sparse": 0, "dense": 4}
"""Number of features that are nearly always active, by world."""
OFTEN, TIMES = 0.9, 4.0
"""Their probability, and what their coefficients are multiplied by."""


class World:
    """Tokens of known features and a known origin."""

    def __init__(self, name: str, seed: int) -> None:
        dense = torch.arange(FEATURES) < DENSE[name]
        self._generator = torch.Generator().manual_seed(1000 + seed)
        self.features = normalize(self._normal(FEATURES, D_IN), dim=1)
        rates = torch.logspace(torch.tensor(MOST).log10(), torch.tensor(LEAST).log10(), FEATURES)
        self.rates, self.sizes = torch.where(dense, OFTEN, rates), torch.where(dense, TIMES, 1.0)
        self.origin = 2 * self._normal(D_IN)

    def draw(self, tokens: int) -> Float[Tensor, "tokens d_in"]:
        """Other tokens at each call."""
        pieces = []
        for n in [4096] * (tokens // 4096) + [tokens % 4096]:
            active = torch.rand(n, FEATURES, generator=self._generator) < self.rates
            codes = torch.where(active, self.sizes * (0.5 + self._normal(n, FEATURES).abs()), 0)
            pieces.append(self.origin + codes @ self.features)
        return torch.cat(pieces)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)


def along(sae: SAE, point: Tensor, world: World, mean: Tensor) -> dict[str, float]:
    """Where a point of the SAE's space lies along the line from the true origin (0) to the mean (1), and how far
    beside that line; in units of the distance between the two.
    """
    raw = sae.affine.invert(point.detach()[None])[0] - world.origin
    line = mean - world.origin
    share = float(raw @ line / (line @ line))
    return {"share": share, "beside": float((raw - share * line).norm() / line.norm())}


def has_feature(sae: SAE, world: World, alive: Bool[Tensor, "d_sae"]) -> Bool[Tensor, "features"]:
    """Which true features some living latent has."""
    rows = normalize(sae.W_dec.detach()[alive], dim=1)
    return (rows @ world.features.T).amax(dim=0) >= SAME


def rows_of(name: str, seed: int, steps: int) -> list[dict[str, Any]]:
    """A row per start and bias."""
    world = World(name, seed)
    x, held_out = world.draw(TOKENS), world.draw(HELD_OUT)
    mean, k = x.double().mean(dim=0).float(), round(float(world.rates.sum()))
    sample = x[:4096]
    points = {"median": geometric_median(sample.double()), "origin": world.origin.double()}
    starts = {start: center(point, start) for start, point in points.items()}
    config = TrainConfig(steps=steps, lr=1e-3, batch_tokens=1024, record_every=steps, seed=seed)
    members = [
        Member(
            sae=born(
                remedy,
                d_sae=D_SAE,
                sparsity=TopK(k=k),
                sample=sample,
                generator=torch.Generator().manual_seed(seed),
            ),
            config=replace(config, bias=bias),
            name=f"{start}_{way}",
        )
        for start, remedy in starts.items()
        for way, bias in BIASES.items()
    ]
    at_birth = [member.sae.W_enc.detach().clone() for member in members]
    for _ in Training(members, x):
        pass
    towards = mean - world.origin
    rows = []
    for member, born_rows in zip(members, at_birth, strict=True):
        sae, end = member.sae, evaluate(member.sae, held_out)
        alive = end.fates.fired > 0
        look = cosine_similarity(born_rows, towards[None])
        found = has_feature(sae, world, alive)
        start, _, bias = member.name.partition("_")
        rows.append(
            {
                "world": name,
                "seed": seed,
                "start": start,
                "bias": bias,
                "steps": steps,
                "k": k,
                "dead": end.fates.dead,
                "fvu": end.fvu_raw,
                "features": float(found.float().mean()),
                "rare_features": float(found[FEATURES // 2 :].float().mean()),
                "encoder": along(sae, sae.encoder_center, world, mean),
                "b_dec": along(sae, sae.b_dec, world, mean),
                "look_of_dead": float(look[~alive].mean()) if bool((~alive).any()) else None,
                "look_of_alive": float(look[alive].mean()),
            }
        )
    return rows


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per world, start and bias: the means over the seeds."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["world"], row["start"], row["bias"]), []).append(row)
    told = []
    for (world, start, bias), same in groups.items():
        numbers = {name: fmean(row[name] for row in same) for name in ("dead", "fvu", "features")}
        places = {name: fmean(row[name]["share"] for row in same) for name in ("encoder", "b_dec")}
        told.append({"world": world, "start": start, "bias": bias, **numbers, **places})
    return told


def table(rows: list[dict[str, Any]]) -> None:
    """The means as a table."""
    print("| world | starts at | bias | encoder's centre | `b_dec` | dead | FVU | features that some latent has |")
    print("|---" * 8 + "|")
    for row in means(rows):
        cells = [f"{row['encoder']:.2f}", f"{row['b_dec']:.2f}", f"{row['dead']:.1%}", f"{row['fvu']:.4f}"]
        cells.append(f"{row['features']:.0%}")
        print(f"| {row['world']} | {row['start']} | {row['bias']} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "origin.json")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        table(json.loads(asked.out.read_text()))
        return
    rows: list[dict[str, Any]] = []
    for name, seed in product(DENSE, map(int, asked.seeds.split(","))):
        rows += rows_of(name, seed, asked.steps)
        write_text(asked.out, json.dumps(rows, indent=1) + "\n")
        for row in rows[-8:]:
            print({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}, flush=True)


if __name__ == "__main__":
    main()
