"""`torchrun -m autopsae train`, and the Python of docs/ranks.md under it."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autopsae.cli.verbs import run
from autopsae.sae.model import SAE
from tests import processes

PAGE = Path(__file__).parents[2] / "docs" / "ranks.md"
TRAIN = [
    "train",
    "x.safetensors",
    "--d-sae",
    "64",
    "--k",
    "4",
    "--steps",
    "30",
    "--batch-tokens",
    "64",
    "--checkpoint-every",
    "10",
    "--revive",
    "auxk",
]


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def as_torchrun(
    size: int, work: processes.Work, *words: str, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int = 0
) -> list[str]:
    """What each process printed, with the variables that torchrun sets. code: the exit code of all."""
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    started = []
    for rank in range(size):
        for name, value in (
            common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "0"}
        ).items():
            monkeypatch.setenv(name, value)
        streams = processes.Streams(folder / f"out{rank}", folder / f"err{rank}")
        started.append((processes._start(work, words, streams, folder), streams))
    codes = [processes._wait(process) for process, _ in started]
    assert codes == [code] * size, [streams.err.read_text() for _, streams in started]
    return [streams.out.read_text() + streams.err.read_text() for _, streams in started]


def save_tokens(folder: Path) -> None:
    tokens = torch.randn(1200, 12, generator=torch.Generator().manual_seed(0)) + 1
    save_file({"hs1": tokens}, folder / "x.safetensors")


def test_the_python_of_the_page_trains_on_two_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    first, second = as_torchrun(2, processes.code, code, folder=tmp_path, monkeypatch=monkeypatch)
    assert first.count("step ") == 20
    assert second == ""
    assert SAE.load(tmp_path / "sae").d_sae == 512
    assert len([*tmp_path.glob("checkpoint.*.safetensors")]) == 2


def test_train_under_torchrun_prints_and_writes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tokens(tmp_path)
    words = [*TRAIN, "--out", "out"]
    first, second = as_torchrun(2, processes.command, *words, folder=tmp_path, monkeypatch=monkeypatch)
    assert "are dead after 30 steps" in first
    assert second == ""
    names = {"birth.json", "records.jsonl", "sae.json", "sae.safetensors", "summary.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names


def test_train_with_data_parallelism_ends_as_on_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tokens(tmp_path)
    words = [*TRAIN, "--out", "out", "--data-parallel", "2"]
    first, *others = as_torchrun(4, processes.command, *words, folder=tmp_path, monkeypatch=monkeypatch)
    assert "are dead after 30 steps" in first
    assert others == ["", "", ""]
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert run([*TRAIN, "--out", "alone"]) == 0
    many, one = (json.loads((tmp_path / out / "summary.json").read_text()) for out in ("out", "alone"))
    assert many["mse_raw"] == pytest.approx(one["mse_raw"], rel=1e-4)
    assert many["dead"] == one["dead"]
    assert run([*TRAIN, "--out", "other", "--data-parallel", "2"]) == 2
    assert "--data-parallel: expected processes that torchrun started, got one process" in capsys.readouterr().err


def test_groups_that_do_not_divide_the_processes_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tokens(tmp_path)
    words = [*TRAIN, "--out", "out", "--data-parallel", "2"]
    first, *others = as_torchrun(3, processes.command, *words, folder=tmp_path, monkeypatch=monkeypatch, code=2)
    assert first.count("expected a number of groups that divides 3 ranks, got 2") == 1
    assert others == ["", ""]


def test_a_k_that_the_latents_of_a_rank_cannot_have_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tokens(tmp_path)
    words = [*TRAIN, "--k", "33", "--out", "out"]
    first, second = as_torchrun(2, processes.command, *words, folder=tmp_path, monkeypatch=monkeypatch, code=2)
    said = " ".join(first.split())
    expected = "expected a k of at most 32, the latents of a rank, got TopK(k=33) of 64 latents on 2 ranks"
    assert said.count(expected) == 1
    assert second == ""


@pytest.mark.long
def test_torchrun_trains_and_a_sweep_is_refused_in_a_line(tmp_path: Path) -> None:
    save_tokens(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}

    def torchrun(*words: str) -> "subprocess.CompletedProcess[str]":
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        return subprocess.run(
            [*launch, "-m", "autopsae", *words], cwd=tmp_path, capture_output=True, text=True, env=environment
        )

    done = torchrun(*TRAIN, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("are dead after 30 steps") == 1
    assert SAE.load(tmp_path / "out" / "sae").d_sae == 64
    refused = torchrun(*TRAIN, "--lr", "1e-3,1e-4", "--out", "other")
    assert refused.returncode
    assert refused.stderr.count("error: torchrun: expected one SAE on 2 ranks, got 2 by the options") == 1
