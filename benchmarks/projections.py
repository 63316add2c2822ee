"""What very large work would take by the cost model, and the wall that it meets first: a table of docs/scaling.md.

Rates of a thread are those of results/scaling.json. Those of an NVIDIA H200 follow from the smaller of the two
steps of results/gpu.json, and the larger one judges them. How fast a GPU's machine reads and sends, and how much a
machine holds, are assumptions (`Machine`). Run as `python -m benchmarks.projections`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from autopsae.activations.room import in_words
from autopsae.costs import Rates, Work, first_wall, seconds_of
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.statistics.costs import work_of_statistics
from autopsae.training.config import TrainConfig
from autopsae.training.costs import work_of_step
from autopsae.training.memory import bytes_of
from autopsae.training.sources import Member
from benchmarks.harness import RESULTS

STORED, K, BATCH = 2, 64, 4096
"""Bytes of a number in a store (bfloat16), latents of a token, tokens of a batch."""
LABELS = 24
"""Bytes of a token's labels in a store."""
WORDS = {
    "float32": "products in float32",
    "bfloat16": "products in bfloat16",
    "float64": "products in float64",
    "streamed": "memory traffic",
    "gathered": "memory traffic (rows)",
    "counted": "passing over the numbers",
    "updated": "moving weights",
    "compared": "choosing latents",
    "stored": "reading the store",
    "sent": "the network",
    "steps": "the number of steps",
    "memory": "memory",
    "disk": "disk",
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine has."""

    name: str
    rates: Rates
    memory: float
    """Bytes."""
    disk: float
    """Bytes; an assumption."""


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def thread() -> Machine:
    """One thread of the machine of results/scaling.json, with 24 GB of memory and a disk of 250 GB."""
    return Machine(name="one thread", rates=Rates(**_read("scaling")["rates"]), memory=24e9, disk=250e9)


def gpu() -> Machine:
    """An H200. Assumed are a disk of 30 TB that is read with 5 GB/s, and a network that sends 50 GB/s."""
    step, memory = _read("gpu")["steps"][0], _read("gpu")["device"]["memory_gb"]
    product, whole = (step["contestants"][name]["milliseconds"] / 1000 for name in ("float32 product", "autopsae"))
    work = _step(step["setting"]["d_in"], step["setting"]["d_sae"])
    rates = Rates(float32=work.float32 / product, stored=5e9, sent=50e9, steps=float("inf"))
    moved = (work.streamed + work.gathered) / (whole - product)
    rates = replace(rates, streamed=moved, gathered=moved)
    return Machine(name="H200", rates=rates, memory=memory * 1e9, disk=30e12)


def _step(d_in: int, d_sae: int, ranks: int = 1) -> Work:
    config = TrainConfig(steps=1, lr=3e-4, batch_tokens=BATCH)
    return work_of_step(config, TopK(k=K), d_in, d_sae, products=None, ranks=ranks)


def judged_gpu() -> tuple[float, float]:
    """Predicted and measured seconds of the larger step of results/gpu.json."""
    step = _read("gpu")["steps"][1]
    work = _step(step["setting"]["d_in"], step["setting"]["d_sae"])
    measured = step["contestants"]["autopsae"]["milliseconds"] / 1000
    return sum(seconds_of(work, gpu().rates).values()), measured


def memory_of(d_in: int, d_sae: int, ranks: int) -> int:
    """Bytes that a training takes on each GPU, from an SAE that has shapes and no numbers."""
    latents = -(-d_sae // ranks)
    W = torch.empty(latents, d_in, device="meta")
    sae = SAE(W_enc=W, W_dec=W, b_dec=torch.empty(d_in, device="meta"), sparsity=TopK(k=K))
    sae.center = torch.zeros(d_in)  # it is compared with itself
    return bytes_of([Member(sae=sae, config=TrainConfig(steps=1, lr=3e-4, batch_tokens=BATCH))])


@dataclass(frozen=True, kw_only=True)
class Projection:
    """What some work takes on some machines."""

    what: str
    on: Machine
    work: Work
    """On each machine."""
    machines: int = 1
    """How many work at once on one SAE."""
    memory: float = 0
    """Bytes on each machine."""
    disk: float = 0
    """Bytes on all machines."""

    @property
    def seconds(self) -> dict[str, float]:
        """By resource."""
        return seconds_of(self.work, self.on.rates)

    @property
    def wall(self) -> str:
        """What is met first."""
        needed = {"memory": self.memory, "disk": self.disk}
        there = {"memory": self.on.memory, "disk": self.on.disk}
        return first_wall(needed, there, self.seconds)

    @property
    def busiest(self) -> str:
        """The resource that is busy longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    def cells(self) -> list[str]:
        """A row of the table."""
        on = self.on.name if self.machines == 1 else f"{self.machines} x {self.on.name}"
        sizes = [_large(self.memory), _large(self.disk)]
        return [self.what, on, *sizes, in_time(sum(self.seconds.values())), WORDS[self.busiest], WORDS[self.wall]]


def _large(size: float) -> str:
    if not size:
        return ""
    for unit, of in (("PB", 1e15), ("TB", 1e12)):
        if size >= of:
            return f"{size / of:.3g} {unit}"
    return in_words(int(size))


def in_time(seconds: float) -> str:
    """Seconds in hours, days or years."""
    for unit, of in (("years", 365.25 * 86_400), ("days", 86_400)):
        if seconds >= 2 * of:
            return f"{seconds / of:,.3g} {unit}"
    return f"{seconds / 3600:,.3g} hours"


def store_bytes(d_in: int, tokens: float, layers: int = 1) -> float:
    """Of activations on disk in bfloat16, labels included."""
    return layers * tokens * (d_in * STORED + LABELS)


def _train(what: str, d_in: int, d_sae: int, tokens: float, *, ranks: int = 1, layers: int = 1) -> Projection:
    """A training of an SAE on each of some layers, one after the other, that reads a store."""
    read = Work(stored=store_bytes(d_in, tokens))
    work = (_step(d_in, d_sae, ranks) * (tokens / BATCH) + read) * layers
    memory, disk = memory_of(d_in, d_sae, ranks), store_bytes(d_in, tokens, layers)
    return Projection(what=what, on=gpu(), work=work, machines=ranks, memory=memory, disk=disk)


def projections() -> Iterator[Projection]:
    """What is asked of docs/scaling.md."""
    layers, tokens, d_in, d_sae = 1000, 1e8, 4096, 32_768
    everything = work_of_statistics(d_in, int(tokens), stored=STORED) * layers
    yield Projection(
        what="statistics of all tokens of 1,000 layers x 100 M",
        on=thread(),
        work=everything,
        disk=store_bytes(d_in, tokens, layers),
    )
    yield Projection(
        what="the same of 131,072 tokens of each layer",
        on=thread(),
        work=work_of_statistics(d_in, 2**17, stored=STORED) * layers,
        disk=store_bytes(d_in, 2**17, layers),
    )
    yield _train("an SAE of 32,768 latents on each of them", d_in, d_sae, tokens, layers=layers)
    for ranks in (1, 4, 8, 16):
        yield _train("a million latents, d_in 8,192, 1 G tokens", 8192, 1 << 20, 1e9, ranks=ranks)
    for ranks in (1, 8):
        yield _train("a trillion tokens, d_in 4,096, 131,072 latents", d_in, 131_072, 1e12, ranks=ranks)


def table() -> str:
    """Of all projections, in Markdown."""
    header = ["work", "on", "memory of each", "disk", "time", "busy longest", "first wall"]
    rows = [header, ["---"] * len(header), *(projection.cells() for projection in projections())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def main() -> None:
    print(table())
    predicted, measured = judged_gpu()
    print(f"the larger step on the GPU: predicted {predicted:.4g} s, measured {measured:.4g} s")


if __name__ == "__main__":
    main()
