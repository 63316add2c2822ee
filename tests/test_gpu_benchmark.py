"""Laws of `benchmarks.gpu`: it runs whole, says what it could not run, and writes nothing without a GPU."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import gpu, harness
from benchmarks.peers import Setting

from autopsae.survival import tails
from tests.pretended_device import pretended_device


def missing(setting: Setting) -> Any:
    raise ImportError("No module named 'theirs'")


def too_large(setting: Setting) -> Any:
    raise torch.OutOfMemoryError("tried to allocate")


def broken(setting: Setting) -> Any:
    raise KeyError("W_dec\nmore")


PEERS: dict[str, Callable[[Setting], Any]] = {
    "there": lambda setting: torch.square,
    "missing": missing,
    "large": too_large,
    "broken": broken,
}


@pytest.fixture(autouse=True)
def quick_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gpu, "PEERS", PEERS)
    monkeypatch.setattr(gpu, "ROUND", 0.0)
    return tmp_path


def contestants(result: dict[str, Any]) -> set[str]:
    [steps] = result["steps"]
    return set(steps["contestants"])


def test_small_on_the_cpu_it_runs_whole_and_writes_nothing(
    quick_and_elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main(["--device", "cpu", "--small"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert not list(quick_and_elsewhere.iterdir())
    products = {"float32 product", "bfloat16 product", "float32 product, again", "bfloat16 product, again"}
    assert contestants(result) == {gpu.OURS, gpu.FROM_MEMORY, "there", *products}
    assert result["steps"][0]["contestants"][gpu.OURS]["of_ours"] == 1.0
    assert result["correctness"]["selection"]["largest_gap"] < 4
    assert result["correctness"]["training"]["largest_relative_error_of_a_loss"] == 0
    assert result["correctness"]["diagnosis"]["same_prescription"]
    assert result["diagnosis"]["dead"]["none"] > result["diagnosis"]["dead"]["median"]
    at = "at B 64, d_in 16, d_sae 128"
    assert result["not_run"] == [
        f"missing {at}: not installed (No module named 'theirs')",
        f"large {at}: out of memory",
        f"broken {at}: KeyError: 'W_dec\\nmore'",
    ]


def test_without_a_gpu_it_says_so_in_one_line_and_writes_nothing(
    quick_and_elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    none = "benchmarks.gpu: expected a GPU, PyTorch sees none; run it on another machine\n"
    assert capsys.readouterr().err == none
    assert gpu.main(["--device", "cpu"]) == 1
    other = "benchmarks.gpu: expected a GPU, got --device cpu; add --small to try it\n"
    assert capsys.readouterr().err == other
    assert not list(quick_and_elsewhere.iterdir())


def test_on_a_pretended_gpu_all_its_tensors_are_there_and_it_writes_one_file(
    quick_and_elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = SimpleNamespace(name="none", total_memory=1, major=0, minor=0)
    returned = {"max_memory_allocated": 1, "get_device_properties": about}
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "set_sync_debug_mode", *returned):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: returned.get(name))
    monkeypatch.setattr("gc.collect", lambda: None)  # it takes seconds in a process that runs tests
    monkeypatch.setattr(tails, "_BISECTIONS", 3)  # as these are many small operators
    tiny = {"tokens": 120, "d_in": 8, "d_sae": 32, "k": 2}
    monkeypatch.setattr(gpu, "FULL", replace(gpu.SMALL, diagnosis=tiny, checked=tiny))
    with pretended_device():
        assert gpu.main([]) == 0
    [written] = (quick_and_elsewhere / "results").iterdir()
    result = json.loads(written.read_text())
    assert written.name == "gpu.json"
    assert len(result["not_run"]) == 3
    assert result["steps"][0]["contestants"][gpu.OURS].keys() >= {"milliseconds", "waits", "peak_gb"}
    assert all(result["correctness"].values())


def test_what_there_is_no_time_for_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "SECONDS", -1.0)
    assert gpu.main(["--device", "cpu", "--small"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert contestants(result) == set()
    assert len(result["not_run"]) == 3 + 10 + 1
    assert all(line.endswith(": -1 seconds had passed") for line in result["not_run"])


def test_waits_are_counted_by_what_pytorch_warns_of(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = list[str]()
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    said = iter([3, 2, 2])

    def step() -> None:
        for _ in range(next(said)):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)
        warnings.warn("another", stacklevel=1)

    assert gpu.waits(step, torch.device("cuda")) == 2
    assert modes == ["warn", "default"]
    assert gpu.waits(step, torch.device("cpu")) is None
