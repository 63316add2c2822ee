"""Processes of this machine that exchange through gloo: how fast, and what a step of a training takes."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from autopsae.kernels.ranks import Ranks
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.ranks import part_of
from autopsae.training.sources import Member

ROUNDS = 20


def on_ranks(size: int, work: Callable[..., float], *arguments: Any) -> float:
    """What `work(ranks, *arguments)` returns on the first of so many processes, each with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (size, folder, work, arguments), nprocs=size)
        return float((Path(folder) / "seconds").read_text())


def _rank(rank: int, size: int, folder: str, work: Callable[..., float], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    seconds = work(Ranks.of_group(), *arguments)
    if rank == 0:
        (Path(folder) / "seconds").write_text(repr(seconds))
    dist.barrier()
    dist.destroy_process_group()


def _best(run: Callable[[], Any], rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter) -> float:
    """The least seconds of a run that all processes begin together."""
    seconds = []
    for _ in range(rounds + 2):
        dist.barrier()
        start = clock()
        run()
        seconds.append(clock() - start)
    return min(seconds[2:])


def reduce_alone(ranks: Ranks, numbers: int) -> float:
    """Seconds of an all-reduce of so many numbers in float32."""
    x = torch.randn(numbers)
    return _best(lambda: ranks.sum(x, "measured"))


def exchange(ranks: Ranks, d_in: int, k: int, batch_tokens: int) -> float:
    """Seconds of what a step of TopK exchanges, with nothing computed between."""
    summed, gathered, bias = torch.randn(batch_tokens, d_in), torch.randn(batch_tokens, k), torch.randn(d_in)

    def run() -> None:
        ranks.gather(gathered, "measured")
        ranks.sum(summed, "measured")
        ranks.sum(bias, "measured")

    return _best(run)


def step(ranks: Ranks, d_in: int, d_sae: int, k: int, batch_tokens: int, groups: int = 1) -> float:
    """Seconds of the processor, those of gloo included, that one of them takes for a step of a training that is
    spread over all. By the clock there would have to be a free core for each. groups: that share each batch.
    """
    ranks = ranks if groups == 1 else Ranks.of_group(groups=groups)
    x = torch.randn(4 * batch_tokens, d_in, generator=torch.Generator().manual_seed(1))
    whole = born(untouched(d_in), d_sae=d_sae, sparsity=TopK(k=k), sample=x[:1024])
    config = TrainConfig(steps=10**6, lr=3e-4, batch_tokens=batch_tokens, record_every=10**6)
    training = Training([Member(sae=part_of(whole, ranks), config=config)], x, ranks=ranks)
    return _best(training.advance, 9, time.process_time)
