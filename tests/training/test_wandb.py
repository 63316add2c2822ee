"""`train --wandb PROJECT`: a run of Weights & Biases for each SAE, begun, gone on with and finished."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autopsae.arrays import InputError
from autopsae.cli.verbs import run
from autopsae.training.wandb_runs import WandBFolder
from tests import processes


class Service:
    """wandb, as much of it as is called: it keeps what it is given."""

    def __init__(self) -> None:
        self.runs = list[SimpleNamespace]()

    def init(self, **asked: Any) -> Any:
        begun = SimpleNamespace(asked=asked, logged=[], finished=0)
        begun.log = lambda values, step: begun.logged.append((step, values))
        begun.finish = lambda: setattr(begun, "finished", begun.finished + 1)
        (Path(asked["dir"]) / "wandb" / f"run-20260101_00000{len(self.runs)}-{asked['id']}").mkdir(parents=True)
        self.runs.append(begun)
        return begun


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    module = SimpleNamespace(init=made.init, Settings=lambda **settings: settings)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return made


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(3, 1, (600, 8)).astype("f4"))


SIZES = ["--d-sae", "16", "--k", "2", "--batch-tokens", "100", "--steps", "6"]


@pytest.mark.usefixtures("tokens")
def test_every_record_reaches_the_run_which_is_finished(service: Service) -> None:
    assert run(["train", "x.npy", "--out", "out", *SIZES, "--wandb", "mine"]) == 0
    [one] = service.runs
    assert (one.asked["project"], one.asked["name"], one.asked["group"]) == ("mine", "out", None)
    records = [json.loads(line) for line in Path("out/records.jsonl").read_text().splitlines()]
    assert [step for step, _ in one.logged] == [record["step"] for record in records] == [*range(6)]
    assert [values["loss"] for _, values in one.logged] == [record["loss"] for record in records]
    assert one.finished == 1


@pytest.mark.usefixtures("tokens")
def test_the_members_of_a_sweep_are_runs_of_one_group(service: Service) -> None:
    assert run(["train", "x.npy", "--out", "out", *SIZES, "--wandb", "mine", "--lr", "1e-3,1e-4"]) == 0
    assert len({one.asked["id"] for one in service.runs}) == 2
    assert {one.asked["group"] for one in service.runs} == {"out"}
    assert {one.asked["name"] for one in service.runs} == {
        path.name for path in Path("out").iterdir() if path.is_dir()
    }
    assert [len(one.logged) for one in service.runs] == [6, 6]
    assert [one.finished for one in service.runs] == [1, 1]


def test_a_training_that_is_resumed_goes_on_with_the_last_run_of_its_folder(
    service: Service, tmp_path: Path
) -> None:
    for after in (0, 0, 4):
        WandBFolder(tmp_path, "mine", after=after).close()
    first, second, third = (one.asked for one in service.runs)
    assert first["id"] != second["id"] == third["id"]
    assert [asked["resume"] for asked in (first, second, third)] == [None, None, "allow"]


def test_where_wandb_begins_no_run_one_line_says_what_to_do(service: Service, tmp_path: Path) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("api_key not configured\nmore")

    sys.modules["wandb"].init = init  # type: ignore[attr-defined]
    with pytest.raises(InputError) as raised:
        WandBFolder(tmp_path, "mine")
    assert str(raised.value) == (
        "--wandb mine: expected a run of Weights & Biases, got none (RuntimeError: api_key not configured); log in "
        "(wandb login), or set WANDB_MODE=offline"
    )


@pytest.mark.usefixtures("tokens")
def test_without_wandb_nothing_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run(["train", "x.npy", "--out", "out", *SIZES, "--wandb", "mine"]) == 2
    assert "pip install 'autopsae[wandb]'" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.usefixtures("tokens")
def test_offline_the_real_wandb_keeps_the_records_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "of_wandb"))
    ended = processes.run(
        processes.command, "train", "x.npy", "--out", "out", *SIZES, "--wandb", "mine", folder=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    [kept] = (tmp_path / "out").glob("wandb/offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    assert all(name in content for name in (b"loss", b"fvu", b"mine"))
