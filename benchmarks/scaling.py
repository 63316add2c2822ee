"""The cost model of docs/scaling.md against this machine: what it predicts, and what is measured.

Rates come from `benchmarks.scaling_rates`, which measures them on other work. All is on one thread, by the
processor time of the process; reading from disk and an exchange alone are by the clock. Rates and what is predicted
from them are measured in turn, twice. Of each turn the fastest run counts, and the mean over the turns is taken:
other programs may share the machine, and a product in bfloat16 is two to three times as slow in some minutes as in
others. Run as

    OMP_NUM_THREADS=1 python -m benchmarks.scaling       # about eight minutes; writes results/scaling.json
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from autopsae.activations.store import open_activations
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.costs import Rates, Work, seconds_of
from autopsae.diagnosis.diagnose import diagnose
from autopsae.kernels.screen import Products
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.costs import work_of_statistics
from autopsae.statistics.wide import WIDE
from autopsae.training.config import TrainConfig
from autopsae.training.costs import work_of_step
from autopsae.training.devices import share_to_measure
from autopsae.training.loop import Training
from autopsae.training.rank_traffic import bytes_of_step
from autopsae.training.sources import Member
from benchmarks import scaling_ranks
from benchmarks.harness import save
from benchmarks.peers import Setting
from benchmarks.scaling_rates import best, best_from_disk, rates
from benchmarks.train_step import ours

TURNS = 2
STEPS: list[tuple[Products, int, int, int, int]] = [
    ("bfloat16", 256, 4096, 32, 1024),
    ("bfloat16", 384, 8192, 64, 2048),
    ("bfloat16", 512, 16_384, 32, 1024),
    ("bfloat16", 512, 4096, 64, 4096),
    ("bfloat16", 768, 8192, 32, 2048),
    ("bfloat16", 768, 16_384, 64, 1024),
    ("bfloat16", 1024, 4096, 64, 2048),
    ("bfloat16", 1024, 16_384, 128, 1024),
    ("bfloat16", 768, 32_768, 64, 512),
    ("bfloat16", 2048, 8192, 64, 1024),
    ("float32", 512, 8192, 32, 1024),
    ("float32", 1024, 8192, 64, 1024),
]
"""Type of the products, d_in, d_sae, k, tokens of a batch."""
STATISTICS = [(256, 50_000), (512, 30_000), (768, 20_000), (1024, 15_000), (1536, 10_000), (2304, 16_000)]
"""d_in, tokens."""
STORES = [(512, 100_000, torch.float32), (1024, 100_000, torch.bfloat16)]
EXCHANGES = [(384, 64, 2048), (768, 32, 4096)]
"""d_in, k, tokens of a batch."""
ON_RANKS = [(2, 384, 8192, 64, 2048), (2, 768, 16_384, 64, 1024), (4, 768, 16_384, 64, 1024)]
"""Processes, d_in, d_sae, k, tokens of a batch."""
JUDGED = [(256, 4096), (1024, 16_384)]
"""d_in, d_sae of diagnoses from a sample."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is predicted, and how it is measured."""

    of: str
    setting: dict[str, Any]
    work: Work
    measure: Callable[[], float]

    def row(self, known: Rates, measured: float) -> dict[str, Any]:
        """Predicted and measured seconds, and their ratio."""
        parts = seconds_of(self.work, known)
        predicted = sum(parts.values())
        return {
            "of": self.of,
            "setting": self.setting,
            "seconds": {name: float(f"{seconds:.3g}") for name, seconds in parts.items()},
            "predicted": float(f"{predicted:.4g}"),
            "measured": float(f"{measured:.4g}"),
            "predicted_of_measured": round(predicted / measured, 3),
        }


def _config(batch_tokens: int) -> TrainConfig:
    return TrainConfig(steps=1, lr=3e-4, batch_tokens=batch_tokens)


def steps() -> Iterator[Case]:
    """Steps of training."""
    for products, d_in, d_sae, k, tokens in STEPS:
        setting = Setting(d_in=d_in, d_sae=d_sae, k=k, batch_tokens=tokens)
        work = work_of_step(_config(tokens), TopK(k=k), d_in, d_sae, products=products)
        told = {"d_in": d_in, "d_sae": d_sae, "k": k, "batch_tokens": tokens, "products": products}
        measure = partial(_time_step, setting, products)
        yield Case(of="step", setting=told, work=work, measure=measure)


def _time_step(setting: Setting, products: Products) -> float:
    return best(ours(setting, torch.randn(setting.batch_tokens, setting.d_in), products=products), 4)


def _tokens(count: int, d_in: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return gaussian_tokens(count, d_in, gamma=3.0, spectrum=1.0, generator=generator).float()


def statistics() -> Iterator[Case]:
    """Passes of statistics over tokens in memory."""
    for d_in, count in STATISTICS:
        measure = partial(_time_statistics, count, d_in)
        work, setting = work_of_statistics(d_in, count), {"d_in": d_in, "tokens": count}
        yield Case(of="statistics", setting=setting, work=work, measure=measure)


def _time_statistics(count: int, d_in: int) -> float:
    x = torch.randn(count, d_in) + 1
    return best(lambda: collect(x, wide=WIDE), 2)


def stores(folder: Path) -> Iterator[Case]:
    """Files that are not in the system's cache. What a pass does with the tokens, checks included, is not there."""
    for d_in, count, dtype in STORES:
        path = folder / f"{d_in}.safetensors"
        save_file({"layer": torch.randn(count, d_in).to(dtype)}, path)
        setting = {"d_in": d_in, "tokens": count, "dtype": str(dtype).removeprefix("torch.")}
        work = Work(stored=count * d_in * dtype.itemsize)
        yield Case(of="reading", setting=setting, work=work, measure=partial(_time_reading, path))


def _time_reading(path: Path) -> float:
    tokens = open_activations(path)
    return best_from_disk(lambda: sum(float(x[:, 0].sum()) for x in tokens), path)


def exchanges() -> Iterator[Case]:
    """What processes exchange in a step, without and with what they compute."""
    for d_in, k, tokens in EXCHANGES:
        sent = sum(bytes_of_step(_config(tokens), TopK(k=k), d_in, ranks=2).values())
        setting = {"d_in": d_in, "k": k, "batch_tokens": tokens, "bytes": sent}
        measure = partial(scaling_ranks.on_ranks, 2, scaling_ranks.exchange, d_in, k, tokens)
        yield Case(of="exchange", setting=setting, work=Work(sent=sent), measure=measure)
    for size, d_in, d_sae, k, tokens in ON_RANKS:
        work = work_of_step(_config(tokens), TopK(k=k), d_in, d_sae, products="bfloat16", ranks=size)
        setting = {"d_in": d_in, "d_sae": d_sae, "k": k, "batch_tokens": tokens, "ranks": size}
        measure = partial(scaling_ranks.on_ranks, size, scaling_ranks.step, d_in, d_sae, k, tokens)
        yield Case(of="step on ranks", setting=setting, work=work, measure=measure)


def shares() -> Iterator[Case]:
    """Steps of the share of one device, as `--plan` measures them: of these the exchange is told from its bytes."""
    for size, d_in, d_sae, k, tokens in ON_RANKS:
        setting = {"d_in": d_in, "d_sae": d_sae, "k": k, "batch_tokens": tokens, "ranks": size}
        measure = partial(_time_share, size, d_in, d_sae, k, tokens)
        sent = sum(bytes_of_step(_config(tokens), TopK(k=k), d_in, ranks=size).values())
        yield Case(of="share", setting=setting, work=Work(sent=sent), measure=measure)


def _time_share(size: int, d_in: int, d_sae: int, k: int, batch_tokens: int) -> float:
    x = torch.randn(batch_tokens, d_in)
    sae = share_to_measure(born(untouched(d_in), d_sae=d_sae, sparsity=TopK(k=k), sample=x), size)
    config = TrainConfig(steps=10**6, lr=3e-4, batch_tokens=batch_tokens)
    return best(Training([Member(sae=sae, config=config)], x).advance, 5)


def plans(
    cases: list[Case], rows: list[dict[str, Any]], seconds: list[float], known: Rates
) -> list[dict[str, Any]]:
    """What `--plan` says of a step on several devices, and the processor time of such a step."""
    steps = {str(row["setting"]): row["measured"] for row in rows if row["of"] == "step on ranks"}
    made = []
    for case, measured in zip(cases, seconds, strict=True):
        if case.of == "share":
            planned = measured + sum(seconds_of(case.work, known).values())
            step = steps[str(case.setting)]
            said = {"planned": float(f"{planned:.4g}"), "measured": step}
            made.append({"setting": case.setting, **said, "planned_of_measured": round(planned / step, 3)})
    return made


def judgements() -> Iterator[dict[str, Any]]:
    """Seconds of a diagnosis from a sample beside its pass, which nothing predicts: it depends on the layer."""
    for d_in, d_sae in JUDGED:
        x, start = _tokens(4096, d_in), time.process_time()
        diagnose(x, d_sae=d_sae, k=64, exact=False)
        yield {"d_in": d_in, "d_sae": d_sae, "seconds": round(time.process_time() - start, 1)}


def mean_rates(several: list[Rates]) -> Rates:
    """Of each resource, one by the mean of the seconds that a unit takes."""
    each = [asdict(one) for one in several]
    return Rates(**{name: len(each) / sum(1 / one[name] for one in each) for name in each[0]})


def compare(folder: Path) -> dict[str, Any]:
    """The rates, a row for each case, and what a plan says."""
    turns: list[Rates] = []
    cases = [*steps(), *statistics(), *stores(folder), *exchanges(), *shares()]
    seconds = [0.0] * len(cases)
    for turn in range(TURNS):
        turns.append(rates(folder))
        print(f"turn {turn + 1}: {turns[-1]}", file=sys.stderr, flush=True)
        seconds = [so_far + case.measure() / TURNS for so_far, case in zip(seconds, cases, strict=True)]
    known = mean_rates(turns)
    pairs = zip(cases, seconds, strict=True)
    rows = [case.row(known, measured) for case, measured in pairs if case.of != "share"]
    for row in rows:
        print(row["of"], row["setting"], row["predicted_of_measured"], file=sys.stderr)
    measured = {name: float(f"{rate:.4g}") for name, rate in asdict(known).items()}
    return {"rates": measured, "rows": rows, "plans": plans(cases, rows, seconds, known)}


def main() -> None:
    start = time.perf_counter()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        result = {**compare(Path(folder)), "judgements": [*judgements()]}
    save("scaling", {**result, "seconds": round(time.perf_counter() - start)})


if __name__ == "__main__":
    main()
