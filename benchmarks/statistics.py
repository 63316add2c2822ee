"""gamma, effective rank and geometric median of 60,000 x 640 float32 tokens against the plain way, and the memory.

The plain way: LayerNorm in float64, singular values of the whole matrix, Weiszfeld over all tokens to a step of
1e-7 of the iterate. Ours: `collect` (which also gathers the raw covariance, kurtosis, norms, copies and a sample),
the eigenvalues, the median of the whole stream. Products: the two that `collect` makes of these tokens, alone: one
in float64, one in float32. Run as `python -m benchmarks.statistics`.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autopsae.activations.store import open_activations
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import CHUNK_TOKENS
from autopsae.diagnosis.severity import gamma
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import gram
from autopsae.statistics.spectrum import effective_rank
from benchmarks.harness import interleaved, peak_memory, save

TOKENS, D_IN, ROUNDS = 60_000, 640, 3
# Exponents of the spectrum: about a third of the directions carry the variance, or (as in Gemma 3's early
# layers) about 3 %. Both with gamma 3, heavy tails and 1 % of huge tokens.
CASES = {"mild": 0.5, "low rank": 1.2}

Answer = tuple[float, float, NDArray[Any]]


def plain(x: NDArray[Any]) -> Answer:
    x = x.astype(np.float64)
    normed = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    mean = normed.mean(axis=0)
    p = np.linalg.svd(normed - mean, compute_uv=False) ** 2
    p /= p.sum()
    rank = np.exp(-(p * np.log(p)).sum())
    median = np.median(x, axis=0)
    for _ in range(200):
        weights = 1 / np.linalg.norm(x - median, axis=1)
        ahead = weights @ x / weights.sum()
        step, median = np.linalg.norm(ahead - median), ahead
        if step < 1e-7 * np.linalg.norm(median):
            break
    return float(np.linalg.norm(mean) / np.linalg.norm(normed.std(axis=0))), float(rank), median


def ours(x: torch.Tensor) -> Answer:
    found = collect(x)
    rank = effective_rank(torch.linalg.eigvalsh(found.normed.covariance))
    return gamma(found.normed), rank, geometric_median(x, sample=found.sample).numpy()


def products(x: torch.Tensor) -> None:
    for chunk in x.split(CHUNK_TOKENS):
        gram(chunk.double())
        gram(chunk)


def largest_difference(a: Answer, b: Answer) -> float:
    """The largest relative difference of the three answers."""
    median = float(np.linalg.norm(a[2] - b[2]) / np.linalg.norm(b[2]))
    return max(abs(a[0] / b[0] - 1), abs(a[1] / b[1] - 1), median)


def tokens(exponent: float, count: int = TOKENS) -> torch.Tensor:
    return gaussian_tokens(
        count,
        D_IN,
        3.0,
        spectrum=exponent,
        tail=6,
        outlier_fraction=0.01,
        outlier_norm=50.0,
        generator=torch.Generator().manual_seed(0),
    )


def mapped_memory(count: int) -> float:
    """Peak MB over the mapped file while `ours` runs on a .npy of `count` tokens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, tokens(CASES["mild"], count).numpy())
        source = open_activations(path)
        with peak_memory() as peak:
            found = collect(source)
            effective_rank(torch.linalg.eigvalsh(found.normed.covariance))
            geometric_median(source, sample=found.sample)
    return peak.megabytes


def main() -> None:
    ours(tokens(CASES["mild"], 500))  # what is imported and compiled is nobody's time or memory
    memory = {f"{count:,} tokens": round(mapped_memory(count)) for count in (TOKENS, 2 * TOKENS)}
    cases = {}
    for name, exponent in CASES.items():
        x = tokens(exponent)
        whole = x.numpy()
        difference = largest_difference(ours(x), plain(whole))
        contestants: dict[str, Callable[[], Any]] = {
            "plain": partial(plain, whole),
            "ours": partial(ours, x),
            "products": partial(products, x),
        }
        seconds = interleaved(contestants, ROUNDS)
        cases[name] = {
            "effective_rank": round(ours(x)[1], 1),
            "seconds": {who: round(value, 2) for who, value in seconds.items()},
            "of_plain": round(seconds["ours"] / seconds["plain"], 3),
            "times_faster": round(seconds["plain"] / seconds["ours"], 1),
            "largest_relative_difference": float(f"{difference:.1e}"),
        }
    save("statistics", {"tokens": TOKENS, "d_in": D_IN, "cases": cases, "peak_megabytes": memory})


if __name__ == "__main__":
    main()
