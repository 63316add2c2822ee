"""Trials on engines: the choice and the numbers of one process, each candidate in a job."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autopsae.cli.verbs import run
from autopsae.diagnosis.prescription import Prescription
from autopsae.trial.candidate import USUAL
from tests.cli.test_train_on import Here, done_in
from tests.diagnosis.test_parts import furthest, tokens_of

PLAIN = ["--d-sae", "32", "--k", "3", "--steps", "8", "--lr", "0.01"]
ASKED = [*PLAIN, "--batch-tokens", "50", "--trial"]
ROUNDING = 1e-5
"""Candidates that are trained together share their products."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    engine = Here()
    for module in ("on_engine", "trial_on"):
        monkeypatch.setattr(f"autopsae.cli.{module}.open_engine", lambda *_: engine)
    return engine


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    np.save(tmp_path / "a.npy", tokens_of(600).numpy())
    monkeypatch.chdir(tmp_path)
    return "a.npy"


def diagnose(source: str, name: str, *more: str) -> int:
    return run(["diagnose", source, *ASKED, "--json", f"{name}.json", "--prescriptions", f"{name}-p", *more])


def trial_in(name: str) -> dict[str, Any]:
    """What the JSON says of the trial, and its curves by candidate."""
    said: dict[str, Any] = json.loads(Path(f"{name}.json").read_text())["trials"]["a"]
    return said


def check_equal(one: str, other: str) -> None:
    mine, theirs = trial_in(one), trial_in(other)
    # The reason quotes numbers of few digits.
    assert furthest(mine, theirs) < ROUNDING
    pair = [Prescription.load(f"{name}-p/a") for name in (one, other)]
    assert pair[0].reason == pair[1].reason
    assert torch.equal(pair[0].b_dec, pair[1].b_dec)


def test_candidates_in_jobs_are_judged_as_those_of_one_process(
    here: Here, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose(source, "single", "--trial-folder", "t") == 0
    printed = capsys.readouterr().out
    assert diagnose(source, "spread", "--on", "local:2", "--work", "w") == 0
    assert capsys.readouterr().out == printed
    check_equal("single", "spread")
    assert done_in(Path("w/trials/a")) == len(USUAL) * [True]
    births = [Path(folder, "median", "birth.json").read_bytes() for folder in ("t/a", "w/trials/a")]
    assert births[0] == births[1]


def test_a_trial_on_an_engine_goes_on_where_it_was_interrupted_and_trains_nothing_twice(
    here: Here, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    on = ["--on", "local:2", "--work", "w", "--trial-folder", "t"]
    assert run(["diagnose", source, *PLAIN, "--on", "local:2", "--work", "w"]) == 0
    here.ran, here.most = [], 4
    assert diagnose(source, "broken", *on) != 0
    assert "run the same again to go on from the checkpoints there" in capsys.readouterr().err
    assert here.ran == [0, 1, 2, 3]
    assert done_in(Path("t/a")) == [number < 4 for number in range(len(USUAL))]
    here.ran, here.most = [], 100
    assert diagnose(source, "broken", *on) == 0
    assert here.ran == [*range(4, len(USUAL))]
    here.ran = []
    assert diagnose(source, "again", *on) == 0
    assert here.ran == []
    assert trial_in("again") == trial_in("broken")


@pytest.mark.long
def test_processes_of_this_machine_train_the_candidates(source: str) -> None:
    assert diagnose(source, "single") == 0
    assert diagnose(source, "spread", "--on", "local:2", "--work", "w") == 0
    check_equal("single", "spread")
