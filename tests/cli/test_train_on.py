"""Sweeps on engines: what one process makes, job by job in others."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from autopsae.cli.train_on import FOLDER
from autopsae.cli.verbs import run
from autopsae.cluster import engine as engines
from autopsae.cluster.engine import Task, Work, attempt

SWEEP = ["--d-sae", "48", "--k", "4", "--lr", "1e-3,3e-3", "--init", "zero,median", "--seed", "0,1"]
FEW = ["--steps", "12", "--batch-tokens", "64", "--checkpoint-every", "4"]


class Here:
    """An engine that runs the tasks in this process, and stops after `most` of them."""

    def __init__(self, most: int = 100) -> None:
        self.most, self.ran = most, list[int]()

    def run(self, work: Work, tasks: Sequence[Task]) -> Iterator[tuple[int, str | None]]:
        for number, task in enumerate(tasks):
            if len(self.ran) == self.most:
                raise KeyboardInterrupt
            said = attempt(work, json.loads(json.dumps(task)))
            self.ran.append(task["number"])
            yield number, said


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    engine = Here()
    monkeypatch.setattr("autopsae.cli.train_on.open_engine", lambda *_: engine)
    return engine


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    made = torch.Generator().manual_seed(0)
    x = torch.randn(900, 12, generator=made) * torch.linspace(0.3, 2, 12) + 1
    np.save(tmp_path / "x.npy", x.numpy())
    monkeypatch.chdir(tmp_path)
    return "x.npy"


def train(source: str, out: str, *more: str) -> int:
    return run(["train", source, "--out", out, *SWEEP, *FEW, *more])


def check_equal(one: Path, other: Path, *, to: float = 0.0) -> None:
    """The same files in every member's folder; numbers to a part of their size."""
    members = json.loads((one / "sweep.json").read_text())["members"]
    assert len(members) == 8
    theirs = json.loads((other / "sweep.json").read_text())
    assert [m["name"] for m in theirs["members"]] == [m["name"] for m in members]
    for mine, its in zip(members, theirs["members"], strict=True):
        assert mine["mse_raw"] == pytest.approx(its["mse_raw"], rel=to)
        assert mine["dead"] == its["dead"]
        weights = [load_file(folder / mine["folder"] / "sae.safetensors") for folder in (one, other)]
        for name, value in weights[0].items():
            torch.testing.assert_close(weights[1][name], value, rtol=to, atol=to)
        births = [(folder / mine["folder"] / "birth.json").read_bytes() for folder in (one, other)]
        assert births[0] == births[1]


@pytest.mark.parametrize("jobs", [None, 3])
def test_members_in_jobs_are_those_of_one_process(here: Here, source: str, jobs: int | None) -> None:
    assert train(source, "single") == 0
    assert train(source, "spread", "--on", "local:2", *(["--jobs", str(jobs)] if jobs else [])) == 0
    check_equal(Path("single"), Path("spread"), to=1e-5)
    assert len(here.ran) == (jobs or 8)
    assert json.loads(Path("spread", FOLDER, "manifest.json").read_text())["done"]
    assert not [*Path("spread").glob("checkpoint*")]
    assert not Path("spread", "portions.json").exists()


def test_a_sweep_goes_on_where_it_was_interrupted_and_trains_nothing_twice(
    here: Here, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(source, "whole", "--on", "local:2") == 0
    here.ran, here.most = [], 3
    assert train(source, "broken", "--on", "local:2") != 0
    assert here.ran == [0, 1, 2]
    assert train(source, "broken", "--on", "local:2") == 2
    assert "unfinished sweep; resume it" in capsys.readouterr().err
    here.ran, here.most = [], 100
    assert train(source, "broken", "--on", "local:2", "--resume") == 0
    assert here.ran == [3, 4, 5, 6, 7]
    check_equal(Path("whole"), Path("broken"))
    here.ran = []
    assert train(source, "broken", "--on", "local:2", "--resume") == 0
    assert here.ran == []


def test_what_cannot_be_spread_is_refused(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused = {
        "--jobs: expected --on with it": ["--jobs", "3"],
        "--jobs: expected at least one, got 0": ["--on", "local:2", "--jobs", "0"],
        "--device: expected without --on": ["--on", "local:2", "--device", "cpu"],
        "--on local:x: expected local:N": ["--on", "local:x"],
    }
    for said, words in refused.items():
        assert train(source, "out", *words) == 2
        assert said in capsys.readouterr().err
    one = ["train", source, "--out", "one", "--d-sae", "48", "--k", "4", *FEW, "--on", "local:2"]
    assert run(one) == 2
    assert "--on: expected several SAEs" in capsys.readouterr().err


@pytest.mark.long
def test_processes_of_this_machine_train_a_sweep(source: str) -> None:
    assert engines.open_engine("local:2", Path("jobs")) is not None
    assert train(source, "single") == 0
    assert train(source, "spread", "--on", "local:2", "--jobs", "4") == 0
    check_equal(Path("single"), Path("spread"), to=1e-5)
