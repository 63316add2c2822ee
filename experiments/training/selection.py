"""Is what a screen selects right on every token of a training? Each token of 200 steps against float64.

    python -m experiments.training.selection ACTIVATIONS --layer hs12     # a harvested layer of a real network

Beside the given layer it trains on layers that are made to be hard: near-ties, a huge mean, outlier dimensions, and
scales of 1e-20 and 1e20. Of every token it compares the chosen latents with the k largest of the float64
pre-activations of the same weights. They may differ only where float64 values are closer than the rounding bound of
float32; these are counted too. It writes results/selection.json beside it.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopsae.activations.store import open_activations
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.kernels import screen_choices
from autopsae.kernels.screen import Screen
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.sources import Member

RESULTS = Path(__file__).parent / "results" / "selection.json"
D_SAE, K, BATCH = 8192, 64, 2048


@dataclass
class Checked:
    """What was compared, token by token."""

    tokens: int = 0
    differing_within_rounding: int = 0
    """Tokens whose set is not that of float64, by latents that are closer than the rounding bound."""
    wrong: int = 0
    """Tokens with a latent on the wrong side of the k-th by more than that."""
    positive_wrong: int = 0
    """Latents called positive that are not on any token of the batch, or the other way, by more than that."""
    candidates: list[float] = field(default_factory=list)
    """Latents per token that the bounds leave, median of each step."""

    def see(self, one: Screen, x: Tensor, positive: Tensor, latents: Tensor) -> None:
        """Compare one selection."""
        surely, perhaps = torch.zeros_like(positive), torch.zeros_like(positive)
        for block, chosen in zip(x.split(512), latents.split(512), strict=True):
            pre = block.double() @ one.W_enc.double().T + one.b_enc.double()
            sizes = block.double().norm(dim=1, keepdim=True) * one.W_enc.double().norm(dim=1)
            rounding = (x.shape[1] + 2) * 2.0**-23 * (sizes + pre.abs()) + x.shape[1] * 2.0**-126
            kth = pre.topk(K, dim=1).values[:, -1:]
            is_chosen = torch.zeros_like(pre, dtype=torch.bool).scatter(1, chosen, True)
            fires = pre > rounding
            # 2: both values may be off.
            lost = fires & ~is_chosen & (pre > kth + 2 * rounding)
            gained = fires & is_chosen & (pre < kth - 2 * rounding)
            self.wrong += int((lost | gained).any(dim=1).sum())
            differs = (is_chosen != (pre >= kth)) & (pre > 0)
            self.differing_within_rounding += int(differs.any(dim=1).sum())
            self.tokens += len(block)
            surely |= fires.any(dim=0)
            perhaps |= (pre > -rounding).any(dim=0)
        self.positive_wrong += int(((surely & ~positive) | (positive & ~perhaps)).sum())
        self._count_candidates(one, x[:256])

    def _count_candidates(self, one: Screen, x: Tensor) -> None:
        s = one.scores(x)
        scores = torch.from_numpy(s.scores).view(torch.bfloat16).double()
        value = scores + torch.from_numpy(s.bias).double()
        error = torch.from_numpy(s.sizes).double()[:, None] * torch.from_numpy(s.slack).double()
        error = error + float(s.limits[0]) * scores.abs()
        floor = (value - error).topk(K, dim=1).values[:, -1:]
        self.candidates.append(float((value + error >= floor).sum(dim=1).double().median()))


@contextmanager
def every_selection(checked: Checked) -> Iterator[None]:
    """Compare every selection of a training."""
    largest = screen_choices.largest

    def watched(one: Any, x: Tensor, positive: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, latents = largest(one, x, positive, k)
        checked.see(one, x, positive, latents)
        return values, latents

    screen_choices.largest = watched
    try:
        yield
    finally:
        screen_choices.largest = largest


def train(x: Any, d_in: int, steps: int, *, scaled: bool) -> Checked:
    """Train on a layer, and compare."""
    sample = next(iter(x)) if not isinstance(x, Tensor) else x
    sae = born(
        untouched(d_in),
        d_sae=D_SAE,
        sparsity=TopK(k=K),
        sample=sample[:4096] if scaled else None,
        scaled=scaled,
        encoder_bias=True,
    )
    config = TrainConfig(steps=steps, lr=3e-4, batch_tokens=BATCH, products="bfloat16")
    checked = Checked()
    with every_selection(checked):
        for _ in Training([Member(sae=sae, config=config)], x):
            pass
    return checked


def hard_layers() -> Iterator[tuple[str, Tensor]]:
    """Layers on which rounding decides most."""
    plain = gaussian_tokens(8192, 256, gamma=0.5, spectrum=0.7, generator=torch.Generator().manual_seed(0))
    yield (
        "near-ties: every token a thousand times, but for 1e-6",
        plain[:8].repeat(1024, 1) * (1 + 1e-6 * torch.randn(8192, 1)),
    )
    yield "a mean of 100 times the spread", plain + 100 * plain.norm(dim=1).median() / 16 * torch.ones(256)
    outliers = plain.clone()
    outliers[:, :2] *= 1e4
    yield "two outlier dimensions of 1e4", outliers
    yield "scale 1e-20", plain * 1e-20
    yield "scale 1e20", plain * 1e20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("activations", type=Path)
    parser.add_argument("--layer", required=True)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    layer = open_activations(given.activations, layer=given.layer)
    results = {f"{given.activations.name} {given.layer}": train(layer, layer.d_in, given.steps, scaled=True)}
    for name, x in hard_layers():
        results[name] = train(x, x.shape[1], max(10, given.steps // 10), scaled=False)
    content = {
        name: {**asdict(checked), "candidates": sorted(checked.candidates)[len(checked.candidates) // 2]}
        for name, checked in results.items()
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
