"""A run on several ranks leaves the folder that one process leaves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.kernels.ranks import Ranks
from autopsae.remedies.remedy import untouched
from autopsae.run.folder import Entry, Plan
from autopsae.run.observer import Observer
from autopsae.run.on_ranks import run_on_ranks
from autopsae.run.one import run
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.training.bias import Bias
from autopsae.training.config import Record, TrainConfig
from autopsae.training.one import Diverged
from autopsae.training.sources import Member
from tests.training.on_ranks import on_ranks

PLAN = Plan(checkpoint_every=10)
BIAS = {"bias": Bias(decoder_only=True)}


def tokens(n: int = 800, seed: int = 5) -> Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def entry(**changes: Any) -> Entry:
    drawn = torch.Generator().manual_seed(0)
    sae = born(untouched(8), d_sae=40, sparsity=TopK(k=3), sample=tokens(), generator=drawn, dtype=torch.float64)
    config = TrainConfig(**{"steps": 30, "lr": 3e-3, "batch_tokens": 50, "buffer_tokens": 200, **BIAS, **changes})
    return Entry(member=Member(sae=sae, config=config, name="one"), about={"seed": 0})


class Stopped(Exception):
    """As a kill between two steps."""


def run_part(
    ranks: Ranks,
    out: Path,
    changes: dict[str, Any],
    *,
    plan: Plan = PLAN,
    resume: bool = False,
    stop_after: int | None = None,
) -> Any:
    """The summary of a run; the message of what went wrong."""

    def stop(records: dict[str, Record]) -> None:
        if records["one"].step + 1 == stop_after:
            raise Stopped

    observer = Observer(on_records=stop)
    mine = entry(**changes)
    try:
        return run_on_ranks(
            mine, tokens(), tokens(200, 6), out, ranks=ranks, plan=plan, resume=resume, observer=observer
        )
    except (InputError, Diverged) as error:
        return str(error)


def work(ranks: Ranks, out: Path, what: str) -> Any:
    """One of the runs of the tests below."""
    if what == "whole":
        return run_part(ranks, out, {})
    if what == "killed":
        try:
            return run_part(ranks, out, {}, stop_after=15)
        except Stopped:
            return "stopped"
    if what == "resumed":
        return run_part(ranks, out, {}, resume=True)
    if what == "diverged":
        return run_part(ranks, out, {"lr": 1e300})
    assert what == "measured"
    return run_part(ranks, out, {}, plan=replace(PLAN, evaluate_every=10))


def same_files(out: Path, expected: Path) -> None:
    assert {file.name for file in out.iterdir()} == {file.name for file in expected.iterdir()}
    mine, other = (SAE.load(folder / "sae").state_dict() for folder in (out, expected))
    for name, value in other.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-9, atol=1e-9, msg=name)
    records = [
        [{name: value for name, value in json.loads(line).items() if value is not None} for line in lines]
        for lines in ((folder / "records.jsonl").read_text().splitlines() for folder in (out, expected))
    ]
    for record, wanted in zip(*records, strict=True):
        assert record == pytest.approx(wanted, rel=1e-9)
    one, another = (json.loads((folder / "summary.json").read_text()) for folder in (out, expected))
    assert one["fvu_raw"] == pytest.approx(another["fvu_raw"], rel=1e-9)
    assert one["birth"] == another["birth"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    run(entry(), tokens(), tokens(200, 6), out, plan=PLAN)
    return out


def test_two_ranks_leave_the_folder_of_one_process(alone: Path, tmp_path: Path) -> None:
    summaries = on_ranks(2, work, tmp_path / "out", "whole")
    assert summaries[0] == summaries[1]
    same_files(tmp_path / "out", alone)
    told = on_ranks(2, work, tmp_path / "out", "whole")
    assert (
        told == [f"{tmp_path / 'out'}: expected a new folder, or one without a finished run; pass another name"] * 2
    )
    # To resume what is finished gives its summary.
    assert on_ranks(2, work, tmp_path / "out", "resumed") == summaries


def test_a_run_that_was_killed_goes_on_with_another_number_of_ranks(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert on_ranks(3, work, out, "killed", once=True)[0] == "stopped"
    assert (out / "checkpoint.json").is_file()
    with pytest.raises(InputError, match="holds the checkpoint of a run on several ranks; resume it with torchrun"):
        run(entry(), tokens(), tokens(200, 6), out, plan=PLAN, resume=True)
    on_ranks(2, work, out, "resumed")
    same_files(out, alone)


def test_a_run_that_diverges_or_cannot_be_measured_says_so_on_all_ranks(tmp_path: Path) -> None:
    first, second = on_ranks(2, work, tmp_path / "out", "diverged")
    assert first == second
    assert "lower the learning rate (1e+300)" in first
    [told, _] = on_ranks(2, work, tmp_path / "other", "measured")
    assert told == (
        "evaluate_every: expected no measurements during a training on several ranks, as none has the whole SAE "
        "then, got one every 10 steps; leave it out"
    )
