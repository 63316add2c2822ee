"""The cost model of docs/scaling.md against this machine: what it predicts, and what is measured.

Rates come from `benchmarks.scaling_rates`, which measures them on other work. All is on one thread, by the
processor time of the process and the fastest of some runs, because other programs may share the machine. Reading
from disk and an exchange alone are by the clock. Run as

    OMP_NUM_THREADS=1 python -m benchmarks.scaling       # about five minutes; writes results/scaling.json
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from autopsae.activations.store import open_activations
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import chunks
from autopsae.costs import Rates, Work, seconds_of
from autopsae.diagnosis.diagnose import diagnose
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.costs import work_of_statistics
from autopsae.statistics.wide import WIDE
from autopsae.training.config import TrainConfig
from autopsae.training.costs import work_of_step
from autopsae.training.rank_traffic import bytes_of_step
from benchmarks import scaling_ranks
from benchmarks.harness import save
from benchmarks.scaling_rates import best, best_from_disk, rates
from benchmarks.train_step import Setting, ours

STEPS = [(256, 4096, 32, 1024), (384, 8192, 64, 2048), (512, 16_384, 32, 1024), (512, 4096, 64, 4096)]
STEPS += [(768, 8192, 32, 2048), (768, 16_384, 64, 1024), (1024, 4096, 64, 2048), (1024, 16_384, 128, 1024)]
STEPS += [(768, 32_768, 64, 512), (2048, 8192, 64, 1024)]
"""d_in, d_sae, k, tokens of a batch."""
PRODUCTS = [("float32", (512, 8192, 32, 1024)), ("float32", (1024, 8192, 64, 1024))]
STATISTICS = [(256, 60_000), (512, 50_000), (768, 30_000), (1024, 20_000), (1536, 12_000), (2304, 20_000)]
"""d_in, tokens."""
STORES = [(512, 100_000, torch.float32), (1024, 100_000, torch.bfloat16)]
EXCHANGES = [(384, 64, 2048), (768, 32, 4096), (1024, 64, 1024)]
"""d_in, k, tokens of a batch."""
ON_RANKS = [(384, 8192, 64, 2048), (768, 16_384, 64, 1024)]
JUDGED = [(256, 4096), (256, 16_384), (768, 4096), (768, 16_384)]
"""d_in, d_sae of diagnoses from a sample."""


def row(of: str, setting: dict[str, Any], work: Work, measured: float, rates: Rates) -> dict[str, Any]:
    """Predicted and measured seconds, and their ratio."""
    parts = seconds_of(work, rates)
    predicted = sum(parts.values())
    made = {
        "of": of,
        "setting": setting,
        "seconds": {name: float(f"{seconds:.3g}") for name, seconds in parts.items()},
        "predicted": float(f"{predicted:.4g}"),
        "measured": float(f"{measured:.4g}"),
        "predicted_of_measured": round(predicted / measured, 3),
    }
    print(of, setting, f"{predicted:.4g} of {measured:.4g}: {predicted / measured:.2f}", file=sys.stderr, flush=True)
    return made


def _config(batch_tokens: int) -> TrainConfig:
    return TrainConfig(steps=1, lr=3e-4, batch_tokens=batch_tokens)


def steps(rates: Rates) -> Iterator[dict[str, Any]]:
    """Steps of training."""
    for products, (d_in, d_sae, k, tokens) in [*(("bfloat16", size) for size in STEPS), *PRODUCTS]:
        setting = Setting(d_in=d_in, d_sae=d_sae, k=k, batch_tokens=tokens)
        measured = best(ours(setting, torch.randn(tokens, d_in), products=products))
        work = work_of_step(_config(tokens), TopK(k=k), d_in, d_sae, products=products)  # type: ignore[arg-type]
        told = {"d_in": d_in, "d_sae": d_sae, "k": k, "batch_tokens": tokens, "products": products}
        yield row("step", told, work, measured, rates)


def _tokens(count: int, d_in: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return gaussian_tokens(count, d_in, gamma=3.0, spectrum=1.0, generator=generator).float()


def statistics(rates: Rates) -> Iterator[dict[str, Any]]:
    """Passes of statistics over tokens in memory."""
    for d_in, count in STATISTICS:
        x = _tokens(count, d_in)
        measured = best(partial(collect, x, wide=WIDE), 3)
        yield row("statistics", {"d_in": d_in, "tokens": count}, work_of_statistics(d_in, count), measured, rates)


def stores(rates: Rates, folder: Path) -> Iterator[dict[str, Any]]:
    """Reading of files that are not in the system's cache, by the clock."""
    for d_in, count, dtype in STORES:
        path = folder / f"{d_in}.safetensors"
        save_file({"layer": _tokens(count, d_in).to(dtype)}, path)
        work = Work(stored=count * d_in * dtype.itemsize)
        tokens = open_activations(path)
        measured = best_from_disk(lambda: sum(float(x.sum()) for x in chunks(tokens, dtype=None)), path)  # noqa: B023
        setting = {"d_in": d_in, "tokens": count, "dtype": str(dtype).removeprefix("torch.")}
        yield row("reading", setting, work, measured, rates)


def exchanges(rates: Rates) -> Iterator[dict[str, Any]]:
    """What two processes exchange in a step, without and with what they compute."""
    for d_in, k, tokens in EXCHANGES:
        sent = sum(bytes_of_step(_config(tokens), TopK(k=k), d_in, ranks=2).values())
        measured = scaling_ranks.on_two(scaling_ranks.exchange, d_in, k, tokens)
        setting = {"d_in": d_in, "k": k, "batch_tokens": tokens, "bytes": sent}
        yield row("exchange", setting, Work(sent=sent), measured, rates)
    for d_in, d_sae, k, tokens in ON_RANKS:
        work = work_of_step(_config(tokens), TopK(k=k), d_in, d_sae, products="bfloat16", ranks=2)
        measured = scaling_ranks.on_two(scaling_ranks.step, d_in, d_sae, k, tokens)
        setting = {"d_in": d_in, "d_sae": d_sae, "k": k, "batch_tokens": tokens, "ranks": 2}
        yield row("step on two processes", setting, work, measured, rates)


def judgements() -> Iterator[dict[str, Any]]:
    """Seconds of a diagnosis from a sample beside its pass, which nothing predicts: it depends on the layer."""
    for d_in, d_sae in JUDGED:
        x = _tokens(4096, d_in)
        seconds = best(partial(diagnose, x, d_sae=d_sae, k=64, exact=False), 1)
        yield {"d_in": d_in, "d_sae": d_sae, "seconds": round(seconds, 2)}


def main() -> None:
    start = time.perf_counter()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        known = rates(Path(folder))
        print(known, file=sys.stderr, flush=True)
        rows = [*steps(known), *statistics(known), *stores(known, Path(folder)), *exchanges(known)]
    measured = {name: float(f"{rate:.4g}") for name, rate in asdict(known).items()}
    result = {"rates": measured, "rows": rows, "judgements": [*judgements()]}
    save("scaling", {**result, "seconds": round(time.perf_counter() - start)})


if __name__ == "__main__":
    main()
