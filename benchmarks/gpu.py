"""One command for a GPU: training steps beside those of other libraries, a wide diagnosis, and right numbers.

    python -m benchmarks.gpu                        # under eight minutes; writes results/gpu.json
    python -m benchmarks.gpu --device cpu --small   # tries the program itself, and writes nothing

Contestants are timed one after another, because at the large size not all fit in memory at once; the products are
timed first and last, so that a device that slows down shows it. What cannot be run is named in the result with its
reason. A step is whole: for autopsae with the account of deaths and the order of the tokens, for others as `peers`
has it.
"""

import argparse
import gc
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import diagnose
from autopsae.sae.init import draw_rows
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.sources import Member
from benchmarks.gpu_checks import CHECKS, new_sae
from benchmarks.harness import as_text, save
from benchmarks.peers import DISTRIBUTIONS, PEERS, Setting

OURS, FROM_MEMORY = "autopsae", "autopsae, tokens in main memory"
PRODUCTS = {"float32 product": torch.float32, "bfloat16 product": torch.bfloat16}
SECONDS = 400.0
"""After so many, what is left is not begun."""
ROUND, ROUNDS = 0.3, 5
"""Seconds of a round of steps, and how many rounds the median is of."""
BATCHES = 8
"""Batches of tokens that there are, so that an epoch does not end in every step."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is run."""

    steps: tuple[Setting, ...]
    diagnosis: dict[str, int]
    """tokens, d_in, d_sae and k of the wide layer."""
    checked: dict[str, int]
    """The same, of what is compared with float64 on the CPU."""


FULL = Sizes(
    steps=(
        Setting(batch_tokens=4096, d_in=768, d_sae=16_384, k=64),
        Setting(batch_tokens=4096, d_in=4096, d_sae=131_072, k=64),
    ),
    diagnosis={"tokens": 32_768, "d_in": 4096, "d_sae": 131_072, "k": 64},
    checked={"tokens": 4096, "d_in": 256, "d_sae": 4096, "k": 32},
)
SMALL = Sizes(
    steps=(Setting(batch_tokens=64, d_in=16, d_sae=128, k=4),),
    diagnosis={"tokens": 600, "d_in": 16, "d_sae": 128, "k": 4},
    checked={"tokens": 400, "d_in": 16, "d_sae": 128, "k": 4},
)


class Report:
    """What has been measured; what could not be, with the reason; and how much time is left."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.not_run = device, list[str]()
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._start

    def attempt(self, name: str, part: Callable[[], Any]) -> Any:
        """What the part returns. None, and a line of why, where it does not fit, is not installed or fails."""
        try:
            if self.seconds > SECONDS:
                raise TimeoutError(f"{SECONDS:g} seconds had passed")
            return part()
        except ImportError as error:
            reason = f"not installed ({error})"
        except torch.OutOfMemoryError:
            reason = "out of memory"
        except (InputError, TimeoutError) as error:
            reason = str(error)
        except Exception as error:  # of another library, which must not take the other figures with it
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        finally:
            if self.device.type == "cuda":
                gc.collect()
                torch.cuda.empty_cache()
        self.not_run.append(f"{name}: {reason}")
        return None


def ours(setting: Setting, tokens: Tensor) -> Callable[[], object]:
    """A step of ours on tokens that are on the device, or come from main memory."""
    sae = new_sae(d_in=setting.d_in, d_sae=setting.d_sae, k=setting.k).to(setting.device)
    config = TrainConfig(
        steps=10**9,
        record_every=10**9,
        lr=setting.lr,
        batch_tokens=setting.batch_tokens,
        clip_norm=None,
    )
    return Training([Member(sae=sae, config=config)], tokens).advance


def product(setting: Setting, tokens: Tensor, dtype: torch.dtype) -> Callable[[], object]:
    """A batch times the encoder, into memory that is used again."""
    x = tokens[: setting.batch_tokens].to(setting.device, dtype)
    W = torch.randn(setting.d_sae, setting.d_in, device=setting.device).to(dtype)
    out = torch.empty(setting.batch_tokens, setting.d_sae, device=setting.device, dtype=dtype)
    return lambda: torch.mm(x, W.T, out=out)


def peer(setting: Setting, tokens: Tensor, name: str) -> Callable[[], object]:
    return partial(PEERS[name](setting), tokens[: setting.batch_tokens].to(setting.device))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(step: Callable[[], object], device: torch.device) -> float:
    """Median over rounds of the time of a step; the device is waited for once a round."""

    def seconds(steps: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize(device)
        return (time.perf_counter() - start) / steps

    seconds(2)  # compiled, and memory found
    steps = max(1, min(50, int(ROUND / seconds(1))))
    return 1000 * statistics.median(seconds(steps) for _ in range(ROUNDS))


def waits(step: Callable[[], object], device: torch.device) -> int | None:
    """How often PyTorch makes the host wait for the GPU in a step; None on the CPU, where nothing is waited for.

    The least of three steps, because one of them may be the first of an epoch.
    """
    if device.type != "cuda":
        return None
    counts = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        for _ in range(3):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                step()
            counts.append(sum("synchronizing CUDA operation" in str(one.message) for one in said))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return min(counts)


def measure(make: Callable[[], Callable[[], object]], device: torch.device) -> dict[str, Any]:
    """A contestant's step: its time, the memory at its peak, and how often it waits."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step = make()
    result: dict[str, Any] = {"milliseconds": round(milliseconds(step, device), 3)}
    result["waits"] = waits(step, device)
    if device.type == "cuda":
        result["peak_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    return result


def contest(setting: Setting, report: Report) -> dict[str, Any]:
    """Everyone's step at one size, and how many of our steps, and bfloat16 products, go into it."""
    tokens = torch.randn(BATCHES * setting.batch_tokens, setting.d_in, generator=torch.Generator().manual_seed(1))
    # On the GPU the compiled way of SAELens takes minutes to compile at the large size.
    names = [name for name in PEERS if name != "SAELens compiled"]
    contestants: dict[str, Callable[[], Callable[[], object]]] = {
        **{name: partial(product, setting, tokens, dtype) for name, dtype in PRODUCTS.items()},
        OURS: lambda: ours(setting, tokens.to(setting.device)),
        FROM_MEMORY: partial(ours, setting, tokens),
        **{name: partial(peer, setting, tokens, name) for name in names},
        **{f"{name}, again": partial(product, setting, tokens, dtype) for name, dtype in PRODUCTS.items()},
    }
    size = f"B {setting.batch_tokens:,}, d_in {setting.d_in:,}, d_sae {setting.d_sae:,}"
    measured = {
        name: report.attempt(f"{name} at {size}", partial(measure, make, report.device))
        for name, make in contestants.items()
    }
    done = {name: result for name, result in measured.items() if result is not None}
    for of, base in (("of_ours", OURS), ("of_bfloat16_product", "bfloat16 product")):
        for result in done.values():
            if base in done:
                result[of] = round(result["milliseconds"] / done[base]["milliseconds"], 2)
    return {"setting": vars(setting), "contestants": done}


def diagnosed(sizes: dict[str, int], report: Report) -> dict[str, Any]:
    """Seconds of the diagnosis of a wide layer, and of its tokens times the encoder three times."""
    x = gaussian_tokens(sizes["tokens"], sizes["d_in"], 6.0, generator=torch.Generator().manual_seed(0))
    W = draw_rows(sizes["d_sae"], sizes["d_in"], generator=torch.Generator().manual_seed(1)).to(report.device)

    def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        result = run()
        synchronize(report.device)
        return round(time.perf_counter() - start, 2), result

    def products() -> None:
        for block in x.split(2048):
            for _ in range(3):
                block.to(report.device) @ W.T

    products()
    of_products, _ = seconds(products)
    del W
    of_diagnosis, result = seconds(
        lambda: diagnose(x, d_sae=sizes["d_sae"], k=sizes["k"], device=report.device, acceptable=1.0)
    )
    dead = {name: round(birth.dead, 4) for name, birth in result.birth.items()}
    return {"sizes": sizes, "seconds": of_diagnosis, "seconds_of_three_products": of_products, "dead": dead}


def machine_of(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": str(device)}
    about = torch.cuda.get_device_properties(device)
    return {
        "name": about.name,
        "memory_gb": round(about.total_memory / 1e9, 1),
        "capability": f"{about.major}.{about.minor}",
        "cuda": torch.version.cuda,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    installed = {}
    for name, distribution in DISTRIBUTIONS.items():
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(distribution)
    return installed


def measured(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """All of it. The order is that of importance: time may run out."""
    report = Report(device)
    on_device = [replace(setting, device=str(device)) for setting in sizes.steps]
    result: dict[str, Any] = {"device": machine_of(device), "versions": versions()}
    result["correctness"] = {
        name: report.attempt(f"correctness of the {name}", partial(check, sizes.checked, device))
        for name, check in CHECKS.items()
    }
    result["steps"] = [contest(on_device[0], report)]
    result["diagnosis"] = report.attempt("diagnosis of a wide layer", partial(diagnosed, sizes.diagnosis, report))
    result["steps"] += [contest(setting, report) for setting in on_device[1:]]
    return {**result, "not_run": report.not_run, "seconds": round(report.seconds, 1)}


def main(words: list[str] | None = None) -> int:
    """0, or 1 with one line of why where there is nothing to measure on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measures autopsae on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the program; writes nothing")
    options = parser.parse_args(words)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu: expected a GPU, PyTorch sees none; run it on another machine", file=sys.stderr)
        return 1
    if device.type != "cuda" and not options.small:
        print(f"benchmarks.gpu: expected a GPU, got --device {device}; add --small to try it", file=sys.stderr)
        return 1
    if options.small:
        print(as_text(measured(SMALL, device)))
    else:
        save("gpu", measured(FULL, device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
