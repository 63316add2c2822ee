"""The rates of this machine: how much of each resource of `autopsae.costs` one thread has in a second.

They are measured on work that is none of what `benchmarks.scaling` predicts from them: products, sums and gathers
of PyTorch and NumPy alone, a plain file, a plain all-reduce; a choice among latents of 128 dimensions and
statistics of tokens of 320 dimensions, of both less their products and rows; and a training that has next to
nothing to compute. Adam is measured on a matrix of its own.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from autopsae.costs import Rates, Work, seconds_of
from autopsae.kernels.adam import Adam, adam
from autopsae.kernels.screen import Screen
from autopsae.kernels.screen_choices import largest
from autopsae.kernels.workspace import Workspace
from autopsae.statistics.collect import collect
from autopsae.statistics.costs import work_of_statistics
from autopsae.training.costs import candidates
from benchmarks.peers import Setting
from benchmarks.scaling_ranks import on_ranks, reduce_alone
from benchmarks.train_step import ours

ROUNDS = 5
_REDUCED = 1 << 21
"""Numbers of the all-reduce that the network is measured with."""


def best(run: Callable[[], Any], rounds: int = ROUNDS, clock: Callable[[], float] = time.process_time) -> float:
    """The least seconds of some runs after a first one, by the processor time of this process: what other processes
    do then counts only through the memory that they share.
    """
    run()
    seconds = []
    for _ in range(rounds):
        start = clock()
        run()
        seconds.append(clock() - start)
    return min(seconds)


def rates(folder: Path) -> Rates:
    """All rates of this machine. folder: on the disk that is measured."""
    plain = Rates(
        float64=_float64(),
        float32=_product(torch.float32),
        bfloat16=_product(torch.bfloat16),
        streamed=_streamed(),
        gathered=_gathered(),
        stored=_stored(folder / "plain"),
        sent=2 * _REDUCED / 2 * 4 / on_ranks(2, reduce_alone, _REDUCED),
        steps=1 / best(ours(Setting(d_in=16, d_sae=32, k=4, batch_tokens=32), torch.randn(32, 16)), 100),
    )
    return replace(plain, updated=_updated(), compared=_compared(plain), counted=_counted(plain))


def _float64(tokens: int = 4096, d_in: int = 640) -> float:
    x = np.random.default_rng(0).standard_normal((tokens, d_in))
    return 2 * tokens * d_in**2 / best(lambda: x.T @ x)


def _product(dtype: torch.dtype, tokens: int = 1024, d_in: int = 640, d_sae: int = 8192) -> float:
    x, W = torch.randn(tokens, d_in).to(dtype), torch.randn(d_sae, d_in).to(dtype)
    out = torch.empty(tokens, d_sae, dtype=dtype)
    return 2 * tokens * d_in * d_sae / best(lambda: torch.mm(x, W.T, out=out))


def _streamed(numbers: int = 1 << 26) -> float:
    a, b = torch.randn(numbers), torch.randn(numbers)
    out = torch.empty_like(a)
    return 3 * 4 * numbers / best(lambda: torch.add(a, b, out=out))


def _gathered(rows: int = 12_288, d_in: int = 640, tokens: int = 2048, k: int = 48) -> float:
    W, chosen = torch.randn(rows, d_in), torch.randint(rows, (tokens, k))
    return tokens * k * d_in * 4 / best(lambda: embedding_bag(chosen, W, mode="sum"))


def _updated(d_sae: int = 12_288, d_in: int = 640) -> float:
    rows, grads, first, second = torch.randn(4, d_sae, d_in).mul_(0.1).unbind()
    second.abs_()
    rate, memory = torch.tensor([1e-6], dtype=torch.float64), Workspace()

    def step() -> None:
        for unit in (True, False):
            adam(rows, grads, first, second, rate, Adam(step=5, unit=unit))
        Screen("bfloat16", rows, memory)

    return d_sae * d_in / best(step)


def _compared(known: Rates, tokens: int = 1024, d_in: int = 128, d_sae: int = 8192, k: int = 48) -> float:
    x, W = torch.randn(tokens, d_in), torch.randn(d_sae, d_in)
    screen = Screen.of("bfloat16", W, torch.zeros(d_sae), Workspace())
    assert screen is not None
    positive = torch.zeros(d_sae, dtype=torch.bool)
    rows = candidates(k, d_sae, d_in, products="bfloat16") * tokens * d_in * 4
    aside = Work(bfloat16=2 * tokens * d_in * d_sae, gathered=rows)
    seconds = best(lambda: largest(screen, x, positive, k)) - sum(seconds_of(aside, known).values())
    return tokens * d_sae / seconds


def _counted(known: Rates, tokens: int = 60_000, d_in: int = 320) -> float:
    x = torch.randn(tokens, d_in)
    aside = replace(work_of_statistics(d_in, tokens), counted=0)
    return tokens * d_in / (best(lambda: collect(x), 5) - sum(seconds_of(aside, known).values()))


def _stored(path: Path, size: int = 1 << 28) -> float:
    path.write_bytes(os.urandom(size))

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 23):
                pass

    return size / best_from_disk(read, path)


def best_from_disk(read: Callable[[], Any], *paths: Path, rounds: int = 5) -> float:
    """The least seconds by the clock of reading files that are not in the system's cache."""
    seconds = []
    for _ in range(rounds):
        for path in paths:
            forget(path)
        start = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def forget(path: Path) -> None:
    """Write a file to the disk, and drop it from the system's cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
