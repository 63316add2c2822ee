"""`train --config FILE`: every option is reachable, a summary gives the same run, the command line wins."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.cli.config import read_config, settings_of
from autopsae.cli.options.shared import Padding
from autopsae.cli.options.train import Birth, Fit, Keep, TrainOptions
from autopsae.cli.parsing import parse_options, with_values
from autopsae.cli.verbs import run
from autopsae.sae.model import SAE

SMALL = ["--d-sae", "32", "--steps", "12", "--batch-tokens", "50"]
SAVED = Path(__file__).parents[1] / "first_version"


@pytest.fixture(autouse=True)
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    np.save("a.npy", x + 2)


def files(folder: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def config(content: object) -> str:
    Path("c.json").write_text(json.dumps(content))
    return "c.json"


EVERY = TrainOptions(
    source=Path("a.npy"),
    out=Path("out"),
    layer="hs3",
    padding=Padding(mask=Path("m.npy")),
    birth=Birth(
        sparsity="jumprelu",
        k=7,
        bandwidth=0.25,  # type: ignore[call-arg]
        start=1 / 3,
        d_sae=48,
        init=("zero", "whiten"),
        alpha=(0.1, 1 / 7),
        rank=5,
        firing_rate=0.125,
        scale=False,
        fit_encoder=True,
        layer_norm=True,
    ),
    fit=Fit(
        steps=9,
        lr=(1e-4, 2 / 3),
        batch_tokens=3,
        l1=(0.5,),
        strays="leave_out",
        revive="ghost",
        bias=("frozen", "decoder"),
        warmup_steps=2,
        decay_steps=3,
        products="float32",
    ),
    keep=Keep(
        held_out=11,
        evaluate_every=4,
        target_fvu=0.125,
        checkpoint_every=None,
        record_every=2,
        memory=1e-3,
        csv=True,
        tensorboard=True,
        wandb="p",
    ),
    seed=(0, 5),
    device="cpu",
)


@pytest.mark.parametrize(
    "options", [EVERY, TrainOptions(source=Path("a.npy"), out=Path("out"))], ids=["all", "none"]
)
def test_every_option_is_reachable_through_the_file(options: TrainOptions) -> None:
    settings = settings_of(options)
    del settings["source"]
    words = ["a.npy", "--out", "out"]
    plain = parse_options("train", words)
    read = parse_options("train", words, with_values(plain, read_config(Path(config(settings)))))
    assert read == options


def test_a_list_may_be_a_list_one_value_or_values_joined_by_commas() -> None:
    for value, lr in (([1e-4, 0.25], (1e-4, 0.25)), ("1e-4,0.25", (1e-4, 0.25)), (0.25, (0.25,))):
        assert read_config(Path(config({"lr": value}))) == {"lr": lr}


@pytest.mark.parametrize(
    "more",
    [
        ["--k", "4", "--sparsity", "batch_topk", "--init", "mean", "--revive", "auxk", "--seed", "3"],
        ["--sparsity", "relu", "--l1", "0.3", "--lr", "0.00123456789"],
        ["--sparsity", "jumprelu", "--k", "3", "--bandwidth", "0.2", "--start", "0.07"],
        ["--k", "4", "--config", "rare.json"],
    ],
    ids=["batch_topk", "relu", "jumprelu", "rare"],
)
def test_a_summary_fed_back_gives_the_same_run_to_the_byte(
    more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    Path("rare.json").write_text(
        '{"warmup_steps": 3, "init": "asi", "rank": 4, "scale": false, "evaluate_every": 6}'
    )
    assert run(["train", "a.npy", "--out", "one", *SMALL, *more]) == 0
    assert run(["train", "a.npy", "--out", "two", "--config", "one/summary.json"]) == 0
    assert files("one") == files("two")


def test_the_summary_of_a_member_gives_that_member_and_sweep_json_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    asked = config({"alpha": [0.2, 0.5], "rank": 4, "init": "zero,whiten,asi", "lr": [1e-3, 3e-3], "k": 4})
    assert run(["train", "a.npy", "--out", "many", *SMALL, "--config", asked]) == 0
    for name in ("whiten_alpha0.5_lr0.003", "asi_lr0.001", "zero_lr0.003"):
        assert run(["train", "a.npy", "--out", name, "--config", f"many/{name}/summary.json"]) == 0
        alone, member = (json.loads(Path(place, name, "summary.json").read_text()) for place in ("", "many"))
        assert alone["training"] == member["training"]
        # In a sweep sums are taken in another order.
        assert torch.allclose(SAE.load(f"{name}/sae").W_enc, SAE.load(f"many/{name}/sae").W_enc, atol=1e-5)
    assert run(["train", "a.npy", "--out", "again", "--config", "many/sweep.json"]) == 0
    assert files("again") == files("many")


def test_the_summary_of_a_member_says_how_its_bias_learned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert run(["train", "a.npy", "--out", "many", *SMALL, "--k", "4", "--bias", "slow,decoder"]) == 0
    summary = json.loads(Path("many/biasdecoder/summary.json").read_text())
    assert summary["training"]["bias"]["decoder_only"]
    # Versions before this one recorded a rate instead.
    summary["provenance"]["settings"]["b_dec_lr"] = None
    Path("earlier.json").write_text(json.dumps(summary))
    assert run(["train", "a.npy", "--out", "alone", "--config", "earlier.json"]) == 0
    assert json.loads(Path("alone/summary.json").read_text())["training"] == summary["training"]
    assert SAE.load("alone/sae").b_pre is not None
    summary["provenance"]["settings"]["b_dec_lr"] = 1e-5
    Path("earlier.json").write_text(json.dumps(summary))
    capsys.readouterr()
    assert run(["train", "a.npy", "--out", "other", "--config", "earlier.json"]) == 2
    assert "got b_dec_lr = 1e-05; leave it out of the file and pass --bias" in capsys.readouterr().err


def test_what_is_given_on_the_command_line_wins_over_the_file() -> None:
    asked = config({"d_sae": 32, "k": 4, "steps": 9, "lr": [1e-3, 3e-3], "seed": 4, "batch_tokens": 50})
    assert run(["train", "a.npy", "--out", "out", "--config", asked, "--lr", "0.01", "--seed", "7"]) == 0
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["steps"], summary["training"]["lr"], summary["seed"]) == (9, 0.01, 7)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"warmup": 5}, "'warmup': expected options of train, as with --config; the nearest is 'warmup_steps'"),
        ({"out": "x"}, "'out': expected options of train"),
        ({"resume": True}, "'resume': expected options of train"),
        ({"warmup_steps": 5.5}, "warmup_steps: expected a whole number, got 5.5; correct it there"),
        ({"target_fvu": "low"}, "target_fvu: expected a number or null, got 'low'"),
        ({"scale": 1}, "scale: expected true or false, got 1"),
        ({"steps": True}, "steps: expected no truth value, got True"),
        ({"lr": "a,b"}, r"lr: expected FLOAT[,FLOAT...], got 'a,b'"),
        ({"lr": None}, r"lr: expected FLOAT[,FLOAT...], got None"),
        ({"revive": "drop"}, "revive: expected auxk, ghost, resample or null, got 'drop'"),
        ({"sparsity": "top"}, "sparsity: expected {batch_topk,groupmax,jumprelu,relu,topk}, got 'top'"),
        ([1], "expected a JSON object, got [1]"),
    ],
)
def test_a_file_that_says_something_else_is_refused_in_one_line(
    content: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "a.npy", "--out", "out", "--config", config(content)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: c.json: {message}")
    assert said.count("\n") == 1
    assert not Path("out").exists()


def test_a_file_that_is_missing_or_tells_of_no_run_is_refused() -> None:
    shutil.copy(SAVED / "finished" / "summary.json", "old.json")
    with pytest.raises(InputError, match=r"nowhere.json: expected a JSON object of options, .* no such file"):
        read_config(Path("nowhere.json"))
    with pytest.raises(
        InputError, match=r"old.json: expected the settings of a run of `autopsae train`, got a file"
    ):
        read_config(Path("old.json"))
    assert run(["diagnose", "a.npy", "--d-sae", "32", "--k", "4", "--json", "d.json"]) == 0
    with pytest.raises(InputError, match=r"d.json: expected the settings of a run of `autopsae train`"):
        read_config(Path("d.json"))


def test_what_is_no_setting_is_not_recorded() -> None:
    settings = settings_of(replace(EVERY, keep=replace(EVERY.keep, resume=True), config=Path("c.json")))
    assert not {"out", "resume", "config"} & {*settings}
