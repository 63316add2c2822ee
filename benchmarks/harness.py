"""What the benchmarks share: medians of interleaved runs, peak memory, the machine, and the results file."""

import json
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each contestant, run in turn, so that a slow spell of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Peak:
    """Peak anonymous memory in MB over what was held at the start; file-backed pages do not count."""

    megabytes: float = 0.0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watches the process every few milliseconds (Linux: RssAnon)."""
    peak, start, done = Peak(), _anonymous(), threading.Event()

    def watch() -> None:
        while not done.wait(0.004):
            peak.megabytes = max(peak.megabytes, _anonymous() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _anonymous() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def save(name: str, result: dict[str, Any]) -> None:
    """Print the result and write it, with the machine, to results/NAME.json."""
    text = as_text(result)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def as_text(result: dict[str, Any]) -> str:
    """The result as JSON, with the machine."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    machine = {
        "cpu": cpu.partition(":")[2].strip(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return json.dumps({"machine": machine, **result}, indent=2)
