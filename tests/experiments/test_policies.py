"""The rows of `experiments.survival.policies`: who chose what, and what is counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiments.survival import policies, policy_rows
from experiments.survival.policies import remedy_of, split
from experiments.survival.policy_rows import shares, with_trials

from autopsae.statistics import collect
from autopsae.trial.candidate import USUAL, parts_of


def row(policy: str, steps: int, dead: float, fvu: float, **more: Any) -> dict[str, Any]:
    about = {"model": "m", "layer": "hs1", "seed": 0, "lr": 1e-3, "d_sae": 8, "k": 2, "tokens": 100, "held_out": 10}
    numbers = {"dead": dead, "fvu_raw": fvu, "fvu_typical": fvu}
    said = {**about, "steps": steps, "epochs": steps / 10, "policy": policy, "chose": None, **numbers}
    return {**said, **more}


def test_a_policy_is_a_remedy_and_a_bias() -> None:
    assert parts_of("median") == ("median", "learned", False)
    assert parts_of("median_frozen") == ("median", "frozen", False)
    assert parts_of("whiten_0.15") == ("whiten_0.15", "learned", False)
    assert parts_of("median_fitted") == ("median", "learned", True)
    assert parts_of("whiten_0.15_frozen_fitted") == ("whiten_0.15", "frozen", True)
    assert parts_of("whiten_0.15_slow") == ("whiten_0.15", "slow", False)
    statistics = collect(torch.randn(200, 4, generator=torch.Generator().manual_seed(0)))
    for name in ("none", "mean", "median", "whiten", "whiten_0.3", "asi_2"):
        assert remedy_of(name, statistics).name == name


def test_the_trial_repeats_the_row_of_what_it_chose_after_a_thousand_steps_at_a_higher_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(name, 5000, dead=0.3, fvu=0.05, lr=3e-4) for name in USUAL]
    about = {"model": "m", "layer": "hs1", "seed": 0, "lr": 3e-4, "d_sae": 8, "k": 2, "age": 3.0, "batch": 256}
    dead = {"none": (0.2, 0.2), "median": (0.0, 0.009)}  # the median goes on dying
    tried = []
    for place, name in enumerate(USUAL):
        numbers = {"fvu_raw": 1.0 + place, "fvu_typical": 1.0 + place}
        for steps, fraction in zip((500, 1000), dead.get(name, (0.0, 0.0)), strict=True):
            tried.append({**about, "steps": steps, "policy": name, "dead": fraction, **numbers})
    monkeypatch.setattr(policy_rows, "AGEING", tmp_path / "ageing.json")
    assert with_trials(rows) == rows  # without a trial there is no row of one
    (tmp_path / "ageing.json").write_text(json.dumps(tried))
    again = with_trials(with_trials(rows))
    trials = [one for one in again if one["policy"] == "trial"]
    assert [(one["steps"], one["chose"], one["dead"]) for one in trials] == [(5000, "median_slow", 0.3)]
    lacking = [one for one in rows if one["policy"] != "median_slow"]
    assert with_trials(lacking) == lacking  # nor without a row of what it chose


def test_shares_count_layers_with_few_dead_and_an_error_near_the_lowest() -> None:
    rows = [row("a", 10, 0.01, 0.100), row("b", 10, 0.011, 0.102), row("c", 10, 0.0, 0.1021)]
    rows += [row("a", 10, 0.5, 0.3, layer="hs2"), row("b", 10, 0.0, 0.2, layer="hs2")]
    found = shares(rows)
    assert found["a"] == {"layers": 2, "few_dead": 0.5, "low_error": 0.5, "both": 0.5, "best_of_few": 0.5}
    assert found["b"] == {"layers": 2, "few_dead": 0.5, "low_error": 1.0, "both": 0.5, "best_of_few": 0.5}
    assert found["c"] == {"layers": 1, "few_dead": 1.0, "low_error": 0.0, "both": 0.0, "best_of_few": 0.0}


def test_whole_documents_are_held_out_and_a_run_writes_its_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).standard_normal((3000, 6)).astype(np.float32)
    documents = np.repeat(np.arange(30), 100)
    np.save(tmp_path / "net.hs1.npy", x)
    np.save(tmp_path / "net.documents.npy", documents)
    monkeypatch.setattr(policies, "HELD_OUT", 250)
    monkeypatch.setattr(policies, "BATCH", 32)
    monkeypatch.setattr(policy_rows, "RESULTS", tmp_path / "rows.json")
    training, held = split(tmp_path, "net.hs1")
    assert (len(training), len(held)) == (2700, 300)
    settings = {"lr": 1e-3, "d_sae": 32, "k": 2}
    for _ in range(2):
        policies.run(tmp_path, "net.hs1", ["none", "median_frozen"], [2, 4], 0, settings, tmp_path)
    rows = policy_rows.read()
    assert len({(one["policy"], one["steps"]) for one in rows}) == len(rows)
    assert {one["steps"] for one in rows} == {2, 4}
    assert {"none", "median_frozen", "rule", "paper_rule"} <= {one["policy"] for one in rows}
    by = {(one["policy"], one["steps"]): one for one in rows}
    rule = by["rule", 4]
    assert rule["dead"] == by[rule["chose"], 4]["dead"]
    assert rule["epochs"] == 4 * 32 / 2700
    assert not [*tmp_path.glob("*.safetensors")]
