"""A trial: what it trains, what it says, and that it can be resumed."""

import json
import math
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.cli.verbs import run
from autopsae.diagnosis.prescription import Prescription
from autopsae.evaluation.reconstruction import evaluate
from autopsae.remedies.remedy import center
from autopsae.report.trial import trial_text
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, TopK
from autopsae.statistics.median import geometric_median
from autopsae.training.bias import BIASES, Bias
from autopsae.training.config import TrainConfig
from autopsae.training.objective import L1, L0Target
from autopsae.training.one import train
from autopsae.training.revival import AuxK, Resampling
from autopsae.trial.budget import LEAST_STEPS, Budget, config_of_trial
from autopsae.trial.candidate import USUAL, Candidate
from autopsae.trial.later import Curve, expect_later
from autopsae.trial.result import Trial
from autopsae.trial.split import split_tokens
from autopsae.trial.trial import trial

D_IN = 8
LONG = TrainConfig(steps=100_000, lr=3e-4)
CONFIG = TrainConfig(steps=400, lr=1e-2, batch_tokens=50)


def tokens() -> Float[Tensor, "1500 8"]:
    x = torch.randn(1500, D_IN, generator=torch.Generator().manual_seed(0))
    return x * torch.logspace(0, -1, D_IN) + 2


def tried(candidates: Any = None, **more: Any) -> Trial:
    settings = {"config": CONFIG, "trial_steps": 12, "d_sae": 32, "sparsity": TopK(k=3), **more}
    return trial(tokens(), candidates, **settings)


def test_each_candidate_is_trained_as_alone_and_judged_on_tokens_that_it_never_saw() -> None:
    found = tried(["median_frozen", "none"], seed=3)
    training, held, _ = split_tokens(tokens(), seed=3)
    sample = torch.cat([*training])  # it is smaller than a sample, so it is the sample
    sae = born(
        center(geometric_median(sample), "median"),
        d_sae=32,
        sparsity=TopK(k=3),
        sample=sample,
        generator=torch.Generator().manual_seed(3),
    )
    train(sae, training, TrainConfig(steps=12, lr=1e-2, batch_tokens=50, seed=3, bias=BIASES["frozen"]))
    alone = evaluate(sae, held)
    end = found["median_frozen"].end
    assert (end.step, end.tokens, end.dead) == (12, 150, alone.fates.dead)
    assert end.fvu_raw == pytest.approx(alone.fvu_raw, rel=1e-4)
    assert [point.step for point in found["none"].points] == [0, 3, 6, 9, 12]
    # Held-out tokens are so few here that all are measured on half-way too.
    curves = {one.name: Curve(points=one.points[1:], end=one.end) for one in found.outcomes}
    assert {one.name: one.later for one in found.outcomes} == expect_later(curves, {}, found.budget)
    assert (found.tokens, found.held_out, found.by_document) == (1350, 150, False)
    assert found.epochs == 12 * 50 / 1350


def test_the_prescription_makes_the_sae_that_was_tried() -> None:
    found = tried(["median_slow", "none"], acceptable=1.0, prefer="error")
    prescription = found.prescription
    assert found.chosen == "median_slow"
    assert (prescription.remedy.name, prescription.bias) == ("median", BIASES["slow"])
    assert prescription.lr_steps == pytest.approx(found.budget.for_steps * found.lr / found.budget.age)
    sae = born(prescription)
    training, held, _ = split_tokens(tokens())
    train(sae, training, TrainConfig(steps=12, lr=1e-2, batch_tokens=50, **prescription.training))
    assert evaluate(sae, held).fvu_raw == pytest.approx(found["median_slow"].end.fvu_raw, rel=1e-4)
    assert prescription.reason.startswith("the lowest error of 2 candidates, as asked: after 12 steps ")


def test_a_fitted_candidate_is_prescribed_with_the_length_that_was_fitted() -> None:
    found = tried(["none", "median_frozen_fitted"], acceptable=1.0, prefer="error")
    prescription = found.prescription
    assert found.chosen == "median_frozen_fitted"
    assert 0 < prescription.encoder_scale < 1
    assert prescription.training == {"bias": BIASES["frozen"], "relative_encoder_lr": True}
    sae = born(prescription)
    assert torch.allclose(sae.W_enc, prescription.encoder_scale * sae.W_dec)
    training, held, _ = split_tokens(tokens())
    train(sae, training, TrainConfig(steps=12, lr=1e-2, batch_tokens=50, **prescription.training))
    end = found["median_frozen_fitted"].end
    assert evaluate(sae, held).fvu_raw == pytest.approx(end.fvu_raw, rel=1e-4)


def test_where_no_number_of_latents_is_fixed_the_usual_candidates_are_not_fitted() -> None:
    found = tried(config=replace(CONFIG, penalty=L0Target(l0=3.0)), sparsity=JumpReLU())
    assert [outcome.name for outcome in found.outcomes] == [name for name in USUAL if "fitted" not in name]
    with pytest.raises(InputError, match="born: fit_encoder expected"):
        tried(["median_fitted"], config=replace(CONFIG, penalty=L0Target(l0=3.0)), sparsity=JumpReLU())


def test_a_remedy_and_a_bias_of_ones_own_can_be_tried() -> None:
    mine = center(torch.full((D_IN,), 2.0, dtype=torch.float64), "mine")
    found = tried([mine, Candidate(remedy=mine, bias=Bias(lr_fraction=0.3)), "whiten_0.2_decoder"])
    assert [outcome.name for outcome in found.outcomes] == ["mine", "mine_own", "whiten_0.2_decoder"]


def test_settings_of_the_training_are_those_of_the_trial_but_its_decay() -> None:
    config = TrainConfig(
        steps=400, lr=1e-2, batch_tokens=50, decay_steps=100, warmup_steps=90, penalty=L0Target(l0=3.0)
    )
    found = tried(["median"], config=config, sparsity=JumpReLU(), folder=None)
    assert found["median"].diverged is None


def test_a_trial_in_a_folder_is_read_again_and_another_is_refused_there(tmp_path: Path) -> None:
    told: list[str] = []
    first = tried(["median", "none"], folder=tmp_path / "t", announce=told.append)
    assert first.to_dict() == tried(["median", "none"], folder=tmp_path / "t").to_dict()
    assert SAE.load(tmp_path / "t" / "median" / "sae").d_sae == 32
    assert told == [str(first.budget)]
    with pytest.raises(InputError, match="differ"):
        tried(["median", "mean"], folder=tmp_path / "t")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"step": 3}\n', b"null\n"])
def test_a_damaged_curve_is_refused_in_a_line(damage: bytes, tmp_path: Path) -> None:
    tried(["median", "none"], folder=tmp_path / "t")
    path = tmp_path / "t" / "none" / "held_out.jsonl"
    path.write_bytes(damage)
    if not damage:
        path.unlink()
    with pytest.raises(InputError, match=re.escape(str(path))):
        tried(["median", "none"], folder=tmp_path / "t")


def test_a_trial_that_was_interrupted_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if done == 9:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        tried(["median", "none"], folder=tmp_path / "t", progress=stop)
    steps: list[int] = []
    resumed = tried(["median", "none"], folder=tmp_path / "t", progress=lambda _, done, __: steps.append(done))
    assert steps == [9, 12]
    assert resumed.to_dict() == tried(["median", "none"]).to_dict()


def test_a_candidate_that_diverges_is_shown_and_not_chosen() -> None:
    wild = Candidate(remedy=center(torch.full((D_IN,), 1e15, dtype=torch.float64), "wild"))
    found = tried([wild, "median"])
    assert found.chosen == "median"
    assert (found["wild"].diverged is not None) or found["wild"].end.fvu_raw > 1  # type: ignore[operator]
    assert found.to_dict()["candidates"][0]["name"] == "wild"


@pytest.mark.parametrize(
    ("candidates", "more", "message"),
    [
        ([], {}, "trial: expected candidates, each with a name of its own, got []"),
        (["median", "median"], {}, "each with a name of its own, got ['median', 'median']"),
        (["zscore"], {}, "candidates: expected none, mean, median or whiten_ALPHA, with or without _slow"),
        (["median_0.3"], {}, "got 'median_0.3'; pass a Candidate of your own instead"),
        (["whiten_x"], {}, "got 'whiten_x'; pass a Candidate of your own instead"),
        (["median"], {"acceptable": 1.5}, "expected acceptable in [0, 1] and prefer life, error or None, got 1.5"),
    ],
)
def test_what_cannot_be_tried_is_refused(candidates: list[str], more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        tried(candidates, **more)


def test_a_trial_costs_a_tenth_or_says_that_it_costs_more() -> None:
    cheap = Budget.of(5, replace(LONG, steps=100_000))
    assert (cheap.steps, cheap.batch_tokens, cheap.age, cheap.share) == (8000, 1024, 3, 0.1)
    assert str(cheap) == (
        "the trial trains 5 SAEs for 8,000 steps of 1,024 tokens at 3 times the learning rate, which ages them as "
        "24,000 do: 10% of one training of 100,000 steps"
    )
    dear = Budget.of(5, replace(LONG, steps=12_499))
    assert dear.steps == LEAST_STEPS
    assert str(dear).endswith("which is over a tenth; fewer candidates or fewer steps cost less, and say less")
    assert Budget.of(5, replace(LONG, steps=12_500)).share == 0.1
    short = Budget.of(5, replace(LONG, steps=300))
    assert (short.steps, short.age, short.share) == (300, 1, 1.25)
    assert " at " not in str(short)
    assert Budget.of(5, replace(LONG, steps=300), steps=7).steps == 7


def test_a_trial_is_as_old_as_its_training_where_that_is_not_too_dear_or_too_fast() -> None:
    assert Budget.of(1, replace(LONG, steps=30_000)).steps == 10_000  # a tenth would be 12,000
    short = Budget.of(5, replace(LONG, steps=2000))
    assert (short.steps, short.age, short.old, short.doublings) == (1000, 2, 2000, 0)
    fast = Budget.of(5, replace(LONG, lr=5e-4))
    assert (fast.age, fast.old) == (2, 16_000)
    assert fast.doublings == pytest.approx(math.log2(100 / 16))
    assert Budget.of(5, replace(LONG, lr=2e-3)).age == 1
    assert Budget.of(5, replace(LONG, batch_tokens=600)).batch_tokens == 256
    assert Budget.of(5, replace(LONG, batch_tokens=100)).batch_tokens == 100


@pytest.mark.parametrize("brings_back", [{"revival": AuxK()}, {"resampling": Resampling(every_steps=10)}])
def test_a_training_that_brings_latents_back_is_not_aged(brings_back: dict[str, Any]) -> None:
    budget = Budget.of(5, replace(LONG, **brings_back))
    assert (budget.age, budget.batch_tokens, budget.steps) == (1, 4096, 2000)


def test_what_happens_at_a_step_of_the_training_happens_at_the_same_age_of_the_trial() -> None:
    config = replace(
        LONG, steps=100, warmup_steps=20, k_start=5, k_steps=30, penalty=L1(coefficient=0.1, warmup_steps=15)
    )
    budget = replace(Budget.of(1, config, steps=20), age=5.0)
    bias = Bias(lr_fraction=0.5, from_step=10, until_step=60)
    aged = config_of_trial(config, bias, budget, seed=3)
    assert (aged.steps, aged.lr, aged.warmup_steps, aged.k_steps) == (20, 5 * LONG.lr, 4, 6)
    assert aged.bias == Bias(lr_fraction=0.5, from_step=2, until_step=12)
    assert aged.penalty == L1(coefficient=0.1, warmup_steps=3)


@pytest.mark.parametrize("width", [40, 120])
def test_the_table_shows_the_trade_of_every_candidate(width: int) -> None:
    found = tried(["median", "none"])
    page = StringIO()
    Console(width=width, file=page).print(trial_text(found))
    text = page.getvalue()
    for outcome in found.outcomes:
        assert outcome.name in text
        for point in outcome.points:
            assert f"{point.dead:.1%} {point.fvu_raw:.3g}" in text
    assert f"the trial prescribes {found.chosen}" in " ".join(text.split())
    assert "each" not in text
    Console(width=width, file=page).print(trial_text(replace(found, tokens=300)))  # 12 steps of 50 tokens
    assert "300 tokens were trained on, each 2.0 times" in " ".join(page.getvalue().split())


def test_a_notebook_has_a_cell_for_every_step_of_a_candidate_that_diverged() -> None:
    found = tried(["median", "none"])
    first, second = found.outcomes
    page = replace(found, outcomes=(replace(first, points=first.points[:1], diverged="nan"), second))._repr_html_()
    header, *rows = (row.count("</th>") + row.count("</td>") for row in page.split("<tr>")[1:])
    assert (header, rows) == (1 + 5, [6, 6])  # the name, birth and four measurements


def test_the_json_of_a_trial_says_what_was_found_and_what_it_cost(tmp_path: Path) -> None:
    found = tried(["median", "none"])
    found.save(tmp_path / "t.json")
    said = json.loads((tmp_path / "t.json").read_text())
    assert said["chosen"] == found.chosen
    assert (said["steps"], said["for_steps"], said["held_out"]) == (12, 400, 150)
    assert [point["step"] for point in said["candidates"][0]["points"]] == [0, 3, 6, 9, 12]


SMALL = ["--d-sae", "32", "--k", "3", "--steps", "8", "--batch-tokens", "50", "--lr", "0.01"]


def test_diagnose_with_a_trial_writes_its_prescription_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", tokens().numpy())
    asked = [*SMALL, "--trial", "--json", "o.json", "--prescriptions", "p", "--trial-folder", "t"]
    assert run(["diagnose", "a.npy", *asked]) == 0
    said, out = json.loads(Path("o.json").read_text())["trials"]["a"], capsys.readouterr()
    prescription = Prescription.load("p/a")
    assert (prescription.remedy.name, prescription.reason) == (said["remedy"], said["reason"])
    first = f"a: the trial prescribes {said['chosen']}: {prescription.instruction}"
    assert " ".join(out.out.split()).startswith(first)
    before = out.out.index("The diagnosis, before the trial. What it prescribes for a no longer counts.")
    assert before < out.out.index("Born dead: d_sae = 32")
    assert "make a change" not in out.out[:before]
    n = len(USUAL)
    cost = f"the trial trains {n} SAEs for 8 steps of 50 tokens: {n}00% of one training of 8 steps"
    assert cost in out.err
    assert (tmp_path / "t" / "a" / "sweep.json").exists()


def test_a_trial_of_the_command_line_sees_every_token_of_a_long_store_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("autopsae.cli.trial.MOST", 30)
    np.save("a.npy", tokens().numpy())
    for few, read in (("100", 8 * 50 + 30), ("700", 700)):  # eight steps of 50 tokens, and those held out
        assert run(["diagnose", "a.npy", *SMALL, "--tokens", few, "--trial", "--json", "o.json"]) == 0
        said = json.loads(Path("o.json").read_text())
        assert [layer["tokens"] for layer in said["layers"]] == [int(few)]
        assert said["trials"]["a"]["tokens"] + said["trials"]["a"]["held_out"] == read


def test_a_trial_that_breaks_off_costs_neither_the_diagnosis_nor_the_trials_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s").mkdir()
    for name in ("a", "b"):
        np.save(f"s/{name}.npy", tokens().numpy())
    done: list[str] = []

    def breaks_off(*args: Any, **settings: Any) -> Trial:
        if done:
            raise InputError("no candidate can be trained")
        done.append(settings["layer"])
        return trial(*args, **settings)

    monkeypatch.setattr("autopsae.cli.trial.trial", breaks_off)
    asked = [*SMALL, "--trial", "--json", "o.json", "--prescriptions", "p"]
    assert run(["diagnose", "s", *asked]) == 2
    said, out = json.loads(Path("o.json").read_text()), capsys.readouterr()
    assert ([layer["layer"] for layer in said["layers"]], [*said["trials"]]) == (["a", "b"], ["a"])
    assert Prescription.load("p/a").reason == said["trials"]["a"]["reason"]
    assert Prescription.load("p/b").reason == said["layers"][1]["prescription"]["reason"]
    assert out.out.startswith("a: the trial prescribes ")
    assert "a: the trial prescribes" in out.err
    assert "What it prescribes for a no longer counts." in out.out
    assert "no candidate can be trained" in out.err


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--trial", "--batch-tokens", "0"], "batch_tokens"),
        (["--prefer", "life"], "expected --trial with them"),
        (["--trial", "--sparsity", "relu"], "expected a sparsity that is trained without an L1 coefficient"),
    ],
)
def test_a_trial_that_the_command_line_cannot_have_is_refused(
    asked: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", tokens().numpy())
    assert run(["diagnose", str(tmp_path / "a.npy"), "--d-sae", "64", *asked]) == 2
    assert message in capsys.readouterr().err


def test_train_lets_b_dec_learn_as_the_prescription_says_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", tokens().numpy())
    tried(["median_frozen"]).prescription.save("p")
    short = ["--d-sae", "32", "--k", "3", "--steps", "4", "--batch-tokens", "50", "--prescription", "p"]
    for out, more, fraction in (("one", [], 0.0), ("two", ["--bias", "learned"], 1.0)):
        assert run(["train", "a.npy", "--out", out, *short, *more]) == 0
        assert json.loads(Path(out, "summary.json").read_text())["training"]["bias"]["lr_fraction"] == fraction


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "trial.md").read_text()
    [block] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(block, {})
    assert "layer: " in capsys.readouterr().out
