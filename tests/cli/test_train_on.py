"""Sweeps on engines: what one process makes, job by job in others."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from autopsae.cli.verbs import run
from autopsae.cluster import engine as engines
from autopsae.cluster.engine import Ended, Task, Work, attempt
from autopsae.cluster.groups import FOLDER
from tests.processes import children, wait_for

SWEEP = ["--d-sae", "48", "--k", "4", "--lr", "1e-3,3e-3", "--init", "zero,median", "--seed", "0,1"]
FEW = ["--steps", "12", "--batch-tokens", "64", "--checkpoint-every", "4"]


class Here:
    """An engine that runs the tasks in this process, and stops after `most` of them."""

    def __init__(self, most: int = 100) -> None:
        self.most, self.ran = most, list[int | None]()

    def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
        for number, task in enumerate(tasks):
            if len(self.ran) == self.most:
                raise KeyboardInterrupt
            said = attempt(work, json.loads(json.dumps(task)))
            self.ran.append(task.get("number"))
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


def done_in(out: Path) -> list[bool]:
    """Which jobs the manifest of a sweep says are done, in their order."""
    done = json.loads((out / FOLDER / "manifest.json").read_text())["done"]
    assert [*done] == [str(number) for number in range(len(done))]
    return [*done.values()]


@pytest.mark.parametrize("jobs", [None, 3])
def test_members_in_jobs_are_those_of_one_process(here: Here, source: str, jobs: int | None) -> None:
    assert train(source, "single") == 0
    assert train(source, "spread", "--on", "local:2", *(["--jobs", str(jobs)] if jobs else [])) == 0
    check_equal(Path("single"), Path("spread"), to=1e-5)
    assert len(here.ran) == (jobs or 8)
    assert done_in(Path("spread")) == len(here.ran) * [True]
    assert not [*Path("spread").glob("checkpoint*")]
    assert not Path("spread", "portions.json").exists()


def test_a_sweep_goes_on_where_it_was_interrupted_and_trains_nothing_twice(
    here: Here, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(source, "whole", "--on", "local:2") == 0
    here.ran, here.most = [], 3
    assert train(source, "broken", "--on", "local:2") != 0
    assert here.ran == [0, 1, 2]
    assert "resume (run the same with --resume) to go on" in capsys.readouterr().err
    assert done_in(Path("broken")) == [number < 3 for number in range(8)]
    assert train(source, "broken", "--on", "local:2") == 2
    assert "unfinished sweep; resume it" in capsys.readouterr().err
    here.ran, here.most = [], 100
    assert train(source, "broken", "--on", "local:2", "--resume") == 0
    assert here.ran == [3, 4, 5, 6, 7]
    assert done_in(Path("broken")) == 8 * [True]
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


def files(folder: Path) -> dict[str, bytes]:
    """All files of the members of a sweep, and its sweep.json."""
    paths = [path for path in folder.rglob("*") if path.is_file() and FOLDER not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_all_processes_with_checkpoints_from_which_the_sweep_goes_on(
    source: str, number: int, code: int
) -> None:
    sizes = ["--d-sae", "32", "--k", "4", "--steps", "300", "--batch-tokens", "50", "--checkpoint-every", "100000"]
    words = [sys.executable, "-m", "autopsae", "train", source, *sizes, "--seed", "0,1", "--on", "local:2"]
    broken = Path("broken")
    with subprocess.Popen(
        [*words, "--out", "broken"], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not any(path.stat().st_size for path in broken.rglob("records.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        under = children(process.pid)
        # Ctrl-C goes to all processes of a terminal.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, stderr = process.communicate(timeout=60)  # standard error is open until the last process has ended
    assert process.returncode == code, stderr
    assert len(under) >= 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in under))
    assert "Traceback" not in stderr
    if number != signal.SIGKILL:
        assert f"interrupted; what is done is in {broken.resolve()}; resume (run the same with --resume)" in stderr
    assert [*broken.glob("checkpoint*.safetensors")]
    for out in (["broken", "--resume"], ["whole"]):
        subprocess.run([*words, "--out", *out], capture_output=True, check=True)
    assert files(broken) == files(Path("whole"))
