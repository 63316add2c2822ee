"""The command line as a user meets it: a process, its files, its exit code, its one line of error."""

import importlib
import io
import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file, save_file

from autopsae.activations.store import open_activations
from autopsae.cli.members import choices_of, config_of, with_defaults
from autopsae.cli.options.autopsy import AutopsyOptions
from autopsae.cli.options.train import Birth, Fit, Keep
from autopsae.cli.outcome import Live
from autopsae.diagnosis.prescription import Prescription
from autopsae.interop.convert import save_sae
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, TopK
from autopsae.statistics.median import geometric_median
from autopsae.training.bias import Bias
from autopsae.training.config import Record
from autopsae.training.revival import Resampling
from tests import processes


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return processes.run(processes.command, *arguments)


def configured(folder: Path, options: dict[str, Any]) -> list[str | Path]:
    """Options in a file."""
    path = folder / "config.json"
    path.write_text(json.dumps(options))
    return ["--config", path]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "acts"
    folder.mkdir()
    layers = {}
    for i, gamma in enumerate([0.05, 9.0]):
        x = torch.randn(3000, 24, generator=torch.Generator().manual_seed(i))
        x[:, 5] += gamma * 24**0.5
        layers[f"hs{i}"] = x
    save_file(layers, folder / "0.safetensors")
    return folder


def test_diagnose_prints_the_table_and_writes_what_was_asked(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    files: list[str | Path] = ["--json", out / "d.json", "--figure", out / "d.png", "--prescriptions", out / "p"]
    done = run("diagnose", source, "--d-sae", "256", "--k", "4", "--tokens", "2000", *files)
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "d.json").read_text())["layers"]
    assert [(row["layer"], row["tokens"]) for row in rows] == [("hs0", 2000), ("hs1", 2000)]
    assert [row["prescription"]["remedy"] for row in rows] == ["none", "median"]
    for row in rows:
        assert f"{row['birth']['none']['dead']:.1%}" in done.stdout
    assert (out / "d.png").read_bytes().startswith(b"\x89PNG")
    prescription = Prescription.load(out / "p" / "hs1")
    assert (prescription.remedy.name, prescription.sparsity.l0) == ("median", 4)
    assert (prescription.d_in, prescription.d_sae) == (24, 256)


def test_padding_is_said_and_left_out_on_the_command_line(tmp_path: Path) -> None:
    x = torch.randn(900, 16, generator=torch.Generator().manual_seed(0))
    x[::3] = 0
    save_file({"hs0": x}, tmp_path / "0.safetensors")
    options = ["--d-sae", "64", "--k", "4", "--json", str(tmp_path / "d.json")]
    rows = []
    for more in ([], ["--repeated", "leave_out"]):
        done = run("diagnose", tmp_path / "0.safetensors", *options, *more)
        assert done.returncode == 0, done.stderr
        said = " ".join(done.stdout.split())
        assert ("33% of the tokens are one and the same vector (all zero): padding" in said) == (not more)
        [row] = json.loads((tmp_path / "d.json").read_text())["layers"]
        rows.append((row["tokens"], row["repeated"]["zero_rows"], row["repeated"]["left_out"]))
    assert rows == [(900, 300, 0), (601, 300, 299)]


def test_layers_alphas_and_ranks_are_chosen_on_the_command_line(tmp_path: Path, source: Path) -> None:
    options = ["--layers", "1", "--alphas", "0.2", "--ranks", "3", "--d-sae", "128", "--k", "4"]
    done = run("diagnose", source, *options, "--json", tmp_path / "d.json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads((tmp_path / "d.json").read_text())["layers"]
    assert row["layer"] == "hs1"
    assert {"whiten_0.2", "asi_3"} < set(row["birth"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["SOURCE", "--layers", "hs7"], "unknown layer 'hs7'; near names: hs"),
        (["SOURCE", "--k", "10000"], "error: expected 1 <= k <= d_sae = 8,192, got k = 10,000"),
        (["SOURCE", "--figure", "x.gif"], "x.gif: expected a figure named .png, .pdf or .svg"),
        (["SOURCE", "--acceptable", "5"], "acceptable: expected a fraction in [0, 1], got 5.0; 1 % is 0.01"),
        (["SOURCE", "--device", "cuda:7"], "device 'cuda:7': expected one that computes in float64"),
        (["SOURCE", "--tokens", "0"], "expected a positive number of tokens, got 0"),
        (["SOURCE", "--tokens", "1"], "layer 'hs0': expected at least 2 tokens, got 1"),
        (["SOURCE", "--alphas", "2"], "layer 'hs0': whiten: expected alpha in [0, 1], got 2.0"),
    ],
)
def test_bad_input_ends_with_one_line_and_no_file(
    tmp_path: Path, source: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "never.json"
    done = run("diagnose", *[str(source) if word == "SOURCE" else word for word in arguments], "--json", out)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_outputs_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path, source: Path) -> None:
    file = tmp_path / "file.npy"
    file.write_text("")
    for option, place in (("--json", tmp_path), ("--json", file / "d.json"), ("--prescriptions", file)):
        done = run("diagnose", source, option, place)
        assert done.returncode == 2
        assert f"error: {place}: cannot be written there" in done.stderr
        assert "Traceback" not in done.stderr


def test_layer_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    save_file({"../../evil": torch.randn(500, 8)}, tmp_path / "a.safetensors")
    place = tmp_path / "q" / "r" / "s"
    options = ["--d-sae", "64", "--k", "4", "--prescriptions"]
    done = run("diagnose", tmp_path / "a.safetensors", *options, place)
    assert done.returncode == 0, done.stderr
    written = {path for path in tmp_path.rglob("*") if path.is_file() and path.name != "a.safetensors"}
    assert len(written) == 2
    assert all(path.parent == place for path in written)


def test_train_starts_from_a_prescription_and_leaves_sae_records_and_summary(tmp_path: Path, source: Path) -> None:
    diagnosed = run("diagnose", source, "--d-sae", "128", "--k", "4", "--prescriptions", tmp_path / "p")
    assert diagnosed.returncode == 0, diagnosed.stderr
    sizes = [
        "--d-sae",
        "128",
        "--k",
        "4",
        "--steps",
        "40",
        "--batch-tokens",
        "256",
        "--held-out",
        "500",
        "--lr",
        "1e-3",
    ]
    births = {}
    for name, start in (("cured", ["--prescription", tmp_path / "p" / "hs1"]), ("zero", ["--init", "zero"])):
        out = tmp_path / name
        done = run("train", source, "--layer", "1", "--out", out, *start, *sizes)
        assert done.returncode == 0, done.stderr
        summary = json.loads((out / "summary.json").read_text())
        assert summary["tokens"] == 500
        assert summary["dead"] == pytest.approx(summary["dead_by_relu"] + summary["dead_by_topk"])
        assert {"fvu_raw", "l0", "bias_captured"} < set(summary)
        records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
        assert [record["step"] for record in records] == list(range(40))
        assert SAE.load(out / "sae").d_sae == 128
        births[name] = summary["birth"]["dead"]
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        again = run("train", source, "--layer", "1", "--out", out, *start, *sizes)
        assert again.returncode == 2
        assert f"{out}: expected a new folder, or one without a finished run" in again.stderr
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert births["zero"] > 0.5
    assert births["cured"] < 0.05
    # As a trial prescribes it.
    bias, fitted = Bias(lr_fraction=0.5), tmp_path / "fitted"
    replace(Prescription.load(tmp_path / "p" / "hs1"), encoder_scale=0.5, bias=bias).save(fitted)
    done = run("train", source, "--layer", "1", "--out", tmp_path / "short", "--prescription", fitted, *sizes)
    assert done.returncode == 0, done.stderr
    trained = json.loads((tmp_path / "short" / "summary.json").read_text())["training"]
    assert (trained["bias"], trained["relative_encoder_lr"]) == (asdict(bias), True)
    saes = [SAE.load(tmp_path / name / "sae").W_enc.detach() for name in ("short", "cured")]
    short, usual = (float(W_enc.norm(dim=1).mean()) for W_enc in saes)
    assert short < 0.7 * usual


def test_strays_can_be_left_out_of_training_and_the_error_is_told_without_them(tmp_path: Path) -> None:
    x = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    x[::97] *= 1000
    np.save(tmp_path / "x.npy", x.numpy())
    sizes = [
        "--d-sae",
        "64",
        "--k",
        "4",
        "--steps",
        "60",
        "--batch-tokens",
        "256",
        "--held-out",
        "500",
        "--lr",
        "1e-2",
    ]
    typical = {}
    for how in ("keep", "leave_out", "weigh_down"):
        done = run("train", tmp_path / "x.npy", "--out", tmp_path / how, "--strays", how, *sizes)
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / how / "summary.json").read_text())
        assert summary["strays_in_training"] == how
        assert 0 < summary["strays"] < 0.02
        assert f"({summary['fvu_typical']:.4f} without the {summary['strays']:.2%} of over ten times" in done.stdout
        typical[how] = summary["fvu_typical"]
    assert typical["leave_out"] < typical["weigh_down"] < typical["keep"]
    done = run("train", tmp_path / "x.npy", "--out", tmp_path / "other", "--strays", "drop", *sizes)
    assert done.returncode == 2
    assert "invalid choice 'drop' for argument '--strays'" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": "batch_topk", "k": 4, "revive": "resample", "products": "float32"},
        {"sparsity": "relu", "l1": 0.5, "firing_rate": 0.05, "revive": "ghost"},
        {"sparsity": "jumprelu", "k": 4, "bandwidth": 0.2, "start": 0.05, "csv": True, "tensorboard": True},
        {"sparsity": "groupmax", "k": 4, "fit_encoder": True},
        {"layer_norm": True, "k": 4, "init": "median", "scale": False, "revive": "auxk"},
    ],
    ids=["batch_topk", "relu", "jumprelu", "groupmax", "layer_norm"],
)
def test_train_offers_every_sparsity_revival_and_log(tmp_path: Path, source: Path, options: dict[str, Any]) -> None:
    out = tmp_path / "out"
    sizes = ["--d-sae", "64", "--steps", "12", "--batch-tokens", "200", "--held-out", "300"]
    asked = configured(tmp_path, {**options, "evaluate_every": 6})
    done = run("train", source, "--layer", "1", "--out", out, *sizes, *asked)
    assert done.returncode == 0, done.stderr
    assert "of 64 latents were born dead" in done.stdout
    assert len((out / "held_out.jsonl").read_text().splitlines()) == 2
    sae = SAE.load(out / "sae")
    assert sae.layer_norm == ("layer_norm" in options)
    assert (sae.scale == 1.0) == ("scale" in options)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["sparsity"] == sae.sparsity.name
    assert ("fit_encoder" in summary) == ("fit_encoder" in options)
    assert summary["training"]["relative_encoder_lr"] == ("fit_encoder" in options)
    if "csv" in options:
        assert len((out / "records.csv").read_text().splitlines()) == 13
        assert list(out.glob("events.out.tfevents*"))
    if sae.sparsity.name == "jumprelu":
        assert sae.sparsity == JumpReLU(bandwidth=0.2, start=0.05)
        assert 1 < summary["birth"]["l0"] < 12  # thresholds start where k latents fire


SMALL = ["--d-sae", "64", "--k", "4", "--steps", "20", "--batch-tokens", "200"]


def test_a_tenth_is_held_out_and_the_numbers_of_tokens_are_said(tmp_path: Path, source: Path) -> None:
    for given, held_out in (([], 300), (["--held-out", "77"], 77)):
        out = tmp_path / f"{held_out}"
        done = run("train", source, "--layer", "1", "--out", out, *SMALL, *given)
        assert done.returncode == 0, done.stderr
        assert f"training on {3000 - held_out:,} tokens, {held_out} are held out" in done.stderr
        assert f", on {held_out} held-out tokens; " in done.stdout
        summary = json.loads((out / "summary.json").read_text())
        assert (summary["training_tokens"], summary["held_out_tokens"]) == (3000 - held_out, held_out)
        assert summary["dead_tokens"] == summary["birth"]["dead_tokens"] == held_out


def test_tokens_left_out_of_training_are_not_counted_as_trained_on(tmp_path: Path) -> None:
    x = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    x[1:101] *= 1000  # of which those that stand at a multiple of ten are held out
    np.save(tmp_path / "x.npy", x.numpy())
    for how, trained_on in (("leave_out", 2610), ("weigh_down", 2700)):
        done = run("train", tmp_path / "x.npy", "--out", tmp_path / how, "--strays", how, *SMALL)
        assert done.returncode == 0, done.stderr
        assert f"training on {trained_on:,} tokens, 300 are held out" in done.stderr
        assert json.loads((tmp_path / how / "summary.json").read_text())["training_tokens"] == trained_on


def test_the_bar_shows_the_born_dead_until_the_records_know_of_death(tmp_path: Path, source: Path) -> None:
    done = run("train", source, "--layer", "1", "--out", tmp_path / "out", "--init", "zero", *SMALL)
    assert done.returncode == 0, done.stderr
    birth = json.loads((tmp_path / "out" / "summary.json").read_text())["birth"]
    assert birth["dead"] > 0.5
    # 20 steps of 200 tokens are not the 256,000 that the records wait for.
    assert f"born dead {birth['dead']:.1%}" in " ".join(done.stderr.split())
    assert "dead 0.0%" not in done.stderr


def shown(records: dict[str, Record]) -> str:
    bar = Progress(console=Console(file=io.StringIO()))
    task = bar.add_task("")
    live = Live(bar, task, steps=9)
    live.be_born({"a": {"dead": 0.25}, "b": {"dead": 0.5}})
    live.advance(records)
    return bar.tasks[task].description


def test_the_bar_shows_live_death_once_every_member_shown_has_it() -> None:
    values: dict[str, Any] = {field.name: 0 for field in fields(Record)}
    values |= dict.fromkeys(("loss", "fvu", "l0", "threshold", "bias_captured", "never_fired"), 0.75)
    early = Record(**{**values, "dead": None, "dead_by_relu": None, "dead_by_topk": None, "dead_tokens": None})
    late = Record(**{**values, "dead": 0.125, "dead_by_relu": 0.0, "dead_by_topk": 0.125})
    assert shown({}) == "training: born dead 25.0% to 50.0%"
    assert shown({"a": early, "b": early}) == "step 1: 2 SAEs, least FVU 0.7500, born dead 25.0% to 50.0%"
    assert shown({"b": early}) == "step 1: FVU 0.7500, born dead 50.0%"
    assert shown({"a": late, "b": early}) == "step 1: 2 SAEs, least FVU 0.7500, born dead 25.0% to 50.0%"
    assert shown({"a": late, "b": late}) == "step 1: 2 SAEs, least FVU 0.7500, dead 12.5% to 12.5%"
    assert shown({"a": late}) == "step 1: FVU 0.7500, dead 12.5%"


def test_a_run_that_diverges_without_an_infinity_ends_with_code_2_and_one_line(
    tmp_path: Path, source: Path
) -> None:
    done = run("train", source, "--layer", "0", "--out", tmp_path / "out", *SMALL, "--lr", "1e6")
    assert done.returncode == 2
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "training has diverged; lower the learning rate (1e+06)" in error
    assert done.stdout == ""
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert error.removeprefix("error: ") == summary["diverged"]


def test_a_sweep_says_which_diverged_and_fails_only_where_all_did(tmp_path: Path, source: Path) -> None:
    swept: list[str | Path] = ["train", source, "--layer", "0", *SMALL, "--lr"]
    some = run(*swept, "1e-3,1e6", "--out", tmp_path / "some")
    assert some.returncode == 0, some.stderr
    assert "warning: lr1000000.0: step 19: the raw FVU on 300 held-out tokens is" in some.stderr
    assert f"best by the error on held-out tokens: {tmp_path / 'some' / 'lr0.001'}" in some.stdout
    every = run(*swept, "1e5,1e6", "--out", tmp_path / "every")
    assert every.returncode == 2
    assert f"error: {tmp_path / 'every'}: all 2 SAEs diverged; lower the learning rates" in every.stderr
    assert json.loads((tmp_path / "every" / "sweep.json").read_text())["best"] == {"hs0": None}


def test_a_result_worse_than_the_mean_is_said_on_the_line_and_as_a_warning(tmp_path: Path, source: Path) -> None:
    done = run("train", source, "--layer", "0", "--out", tmp_path / "out", *SMALL, "--lr", "1")
    assert done.returncode == 0, done.stderr
    assert ", worse than the mean" in done.stdout
    [warning] = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]
    assert f"warning: {warning}" in done.stderr.splitlines()


@pytest.mark.parametrize(("steps", "until"), [(1000, 900), (1005, 904), (10_000, 9000)])
def test_the_command_line_draws_no_latents_afresh_in_the_last_tenth(steps: int, until: int) -> None:
    fit, birth = Fit(steps=steps, revive="resample"), with_defaults(Birth())
    [choice] = choices_of(birth, fit, (0,)).values()
    method = config_of(birth, fit, Keep(), choice).resampling
    assert method == Resampling(every_steps=1000, until_step=until)
    assert max((done for done in range(steps + 1) if method.due(done - 1)), default=0) <= until


def test_several_values_are_a_sweep(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    sizes = ["--d-sae", "64", "--k", "4", "--steps", "20", "--batch-tokens", "100", "--held-out", "300"]
    swept = ["--lr", "1e-4,3e-3", "--init", "zero,whiten", *configured(tmp_path, {"alpha": [0.3, 1.0]})]
    done = run("train", source, "--layer", "1", "--out", out, *sizes, *swept)
    assert done.returncode == 0, done.stderr
    starts = ["zero", "whiten_alpha0.3", "whiten_alpha1.0"]
    names = [f"{start}_lr{lr}" for start in starts for lr in ("0.0001", "0.003")]
    assert "6 SAEs at once, which takes about" in done.stderr
    result = json.loads((out / "sweep.json").read_text())
    assert [member["name"] for member in result["members"]] == names
    [best] = result["best"].values()
    assert f"best by the error on held-out tokens: {out / best}" in done.stdout
    for member in result["members"]:
        assert f"{member['fvu_raw']:.4f}" in done.stdout
        assert SAE.load(out / member["name"] / "sae").d_sae == 64
        assert len((out / member["name"] / "records.jsonl").read_text().splitlines()) == 20
    assert {(m["start"], m["training"]["lr"]) for m in result["members"]} == {
        (start, lr) for start in ("zero", "whiten") for lr in (1e-4, 3e-3)
    }
    again = run("train", source, "--layer", "1", "--out", out, *sizes, *swept)
    assert again.returncode == 2
    assert "expected a new folder" in again.stderr


def test_a_sweep_that_does_not_fit_is_split(tmp_path: Path, source: Path) -> None:
    sizes = ["--d-sae", "64", "--k", "4", "--steps", "5", "--batch-tokens", "100", "--held-out", "300"]
    little = configured(tmp_path, {"memory": 1e-6})
    done = run("train", source, "--layer", "1", "--out", tmp_path / "o", *sizes, "--seed", "0,1", *little)
    assert done.returncode == 0, done.stderr
    assert "2 SAEs in 2 sweeps of 1 at most" in done.stderr
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"seed0", "seed1", "sweep.json"}


def test_train_resumes_after_an_interrupt(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    sizes = ["--d-sae", "64", "--k", "4", "--steps", "400", "--batch-tokens", "200", "--held-out", "300"]
    command: list[str | Path] = ["train", source, "--layer", "1", "--out", out, *sizes, "--checkpoint-every", "20"]
    with processes.running(processes.command, *command) as running:
        while not (out / "checkpoint.safetensors").exists():
            assert running.process.is_alive(), running.errors.read_text()
            time.sleep(0.01)
        running.process.kill()
    refused = run(*command)
    assert refused.returncode == 2
    assert "holds the checkpoint of an unfinished run; resume it, or pass another name" in refused.stderr
    other = run(*command, "--resume", "--lr", "0.5")
    assert "expected the settings it was written under: lr 0.0003, got 0.5" in other.stderr
    done = run(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert len((out / "records.jsonl").read_text().splitlines()) == 400


@pytest.mark.parametrize("more", [[], ["--seed", "0,1"]], ids=["run", "sweep"])
def test_resuming_what_is_finished_says_so_prints_the_result_and_reads_no_token(
    tmp_path: Path, more: list[str]
) -> None:
    x = np.random.default_rng(0).standard_normal((3000, 24)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out"
    command: list[str | Path] = ["train", tmp_path / "x.npy", "--out", out, *SMALL, *more]
    first = run(*command)
    assert first.returncode == 0, first.stderr
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    np.save(tmp_path / "x.npy", x * np.nan)  # whoever reads these tokens refuses them
    again = run(*command, "--resume")
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    result = out / ("sweep.json" if more else "summary.json")
    told = f"{out} is finished: the result is in {result}; no token was read, and nothing was trained"
    assert again.stderr.splitlines()[0] == told
    assert "training on" not in again.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / ("seed1" if more else "") / "sae.safetensors").unlink()
    damaged = run(*command, "--resume")
    assert damaged.returncode == 2
    assert "expected the SAE that the summary.json of this finished run tells of" in damaged.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--sparsity", "relu", "--k", "4"],
            "--k: expected --sparsity batch_topk or groupmax or topk with it, got",
        ),
        (["--start", "1"], "--start: expected --sparsity jumprelu with it, got topk; leave it out"),
        (["--sparsity", "relu"], "(--l1) with the sparsity relu and with no other, got relu and None"),
        (["--l1", "0.1"], "(--l1) with the sparsity relu and with no other, got topk and 0.1"),
        ({"target_fvu": 0.1}, "target_fvu: expected evaluate_every too"),
        (["--lr", "0"], "TrainConfig: expected lr > 0 and finite, got 0.0"),
        (["--k", "9000"], "expected 1 <= k <= d_sae = 8,192, got k = 9,000"),
        (["--held-out", "3000"], "expected 1 to 2,999 tokens to hold out of all 3,000, got 3,000"),
        (["--prescription", "nowhere"], "nowhere: expected a saved autopsae-prescription, could not read it"),
        (["--prescription", "/tmp"], "/tmp: expected the name of a prescription, got a folder; give one in it"),
        (["--prescription", "/"], "/: expected the name of a pair of files, got a folder; give a name in it"),
        (
            ["--prescription", "nowhere", "--init", "median"],
            "expected --prescription or --init, got both: a prescription is a start itself",
        ),
        ({"prescription": "nowhere", "alpha": 0.3}, "expected --prescription or --alpha, got both"),
        ({"prescription": "nowhere", "rank": 64}, "expected --prescription or --rank, got both"),
        ({"prescription": "p", "init": "asi", "rank": 8}, "expected --prescription or --init and --rank,"),
        ({"alpha": 0.3}, "--alpha: expected --init whiten with it, got median"),
        ({"init": "whiten", "rank": 9}, "--rank: expected --init asi with it, got whiten"),
        ({"init": "asi", "rank": 99}, "active_subspace: rank 99 is not in 1 ... d_in = 24"),
    ],
)
def test_bad_training_settings_end_with_one_line_and_no_file(
    tmp_path: Path, source: Path, arguments: list[str] | dict[str, Any], message: str
) -> None:
    asked = configured(tmp_path, arguments) if isinstance(arguments, dict) else arguments
    default = [] if "--held-out" in arguments else ["--held-out", "500"]
    done = run("train", source, "--layer", "hs1", "--out", tmp_path / "out", *default, *asked)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_prescription_of_another_width_is_refused(tmp_path: Path, source: Path) -> None:
    save_file({"hs0": torch.randn(600, 8)}, tmp_path / "narrow.safetensors")
    options = ["--d-sae", "64", "--k", "4", "--prescriptions"]
    assert run("diagnose", tmp_path / "narrow.safetensors", *options, tmp_path).returncode == 0
    start: list[str | Path] = ["--prescription", tmp_path / "hs0", "--held-out", "500"]
    done = run("train", source, "--layer", "1", "--out", tmp_path / "out", *start)
    assert done.returncode == 2
    assert "expected a prescription for d_in = 24, got one for 8 (layer 'hs0')" in done.stderr


def test_a_prescription_for_another_layer_or_sae_is_said(tmp_path: Path, source: Path) -> None:
    options = ["--layers", "0,1", "--d-sae", "64", "--k", "4", "--prescriptions", str(tmp_path)]
    assert run("diagnose", source, *options).returncode == 0
    for layer, more, differs in (
        ("1", [], []),
        ("0", ["--d-sae", "32", "--k", "3"], ["layer 'hs1', here 'hs0'", "d_sae 64, here 32", "k 4, here 3"]),
        ("1", ["--sparsity", "batch_topk"], ["sparsity 'topk', here 'batch_topk'"]),
    ):
        out = tmp_path / f"out{len(differs)}"
        start: list[str | Path] = ["--prescription", tmp_path / "hs1", "--out", out]
        done = run("train", source, "--layer", layer, *start, *SMALL, *more)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("warning: the prescription")]
        assert len(said) == bool(differs)
        for difference in differs:
            assert difference in said[0]
        summary = json.loads((out / "summary.json").read_text())["prescription"]
        assert (summary["layer"], summary["d_sae"], summary["k"]) == ("hs1", 64, 4)
        assert summary["differs"] == differs


def test_a_prescription_of_a_short_training_is_not_used_for_a_long_one_in_silence(
    tmp_path: Path, source: Path
) -> None:
    short = ["--layers", "1", "--d-sae", "64", "--k", "4", "--prescriptions", str(tmp_path), "--steps", "5"]
    assert run("diagnose", source, *short).returncode == 0
    start: list[str | Path] = ["--prescription", tmp_path / "hs1", "--out", tmp_path / "out"]
    done = run("train", source, "--layer", "1", *start, *SMALL)
    assert done.returncode == 0, done.stderr
    [said] = [line for line in done.stderr.splitlines() if line.startswith("warning: the prescription")]
    assert "lr x steps 0.0015, here" in said


def test_a_token_that_is_nan_is_named_with_its_layer(tmp_path: Path) -> None:
    x = np.ones((500, 8), np.float32)
    x[123, 4] = np.nan
    np.save(tmp_path / "hs4.npy", x)
    done = run("diagnose", tmp_path / "hs4.npy")
    assert done.returncode == 2
    assert "layer 'hs4': expected finite activations" in done.stderr
    assert "in 1 of 500 tokens, the first at token 123" in done.stderr


def test_a_layer_that_fails_loses_neither_the_layers_before_it_nor_an_older_result(
    tmp_path: Path, source: Path
) -> None:
    bad = torch.full((3000, 24), torch.nan)
    save_file({**load_file(source / "0.safetensors"), "hs7": bad}, source / "0.safetensors")
    np.save(tmp_path / "hs7.npy", bad.numpy())
    out = tmp_path / "d.json"
    out.write_text("older")
    options: list[str | Path] = ["--d-sae", "64", "--k", "4", "--json", out, "--prescriptions", tmp_path / "p"]
    done = run("diagnose", source, *options)
    assert done.returncode == 2, done.stderr
    part = tmp_path / "d.part.json"
    assert f"warning: stopped after 2 of the layers; they are in {part}" in done.stderr
    assert "layer 'hs7': expected finite activations" in done.stderr
    assert [layer["layer"] for layer in json.loads(part.read_text())["layers"]] == ["hs0", "hs1"]
    assert sorted(path.name for path in (tmp_path / "p").glob("*.json")) == ["hs0.json", "hs1.json"]
    assert out.read_text() == "older"
    assert "hs1" in done.stdout
    # The whole takes the place of the part, and of no other file of that name.
    good = [*options, "--layers", "hs0,hs1"]
    assert run("diagnose", source, *good).returncode == 0
    assert not part.exists()
    part.write_text('{"provenance": {}}')
    assert run("diagnose", source, *good).returncode == 0
    assert part.exists()
    # Where the first layer fails there is nothing to keep.
    part.unlink()
    done = run("diagnose", tmp_path / "hs7.npy", *options)
    assert (done.returncode, done.stdout, part.exists()) == (2, "", False)
    assert "stopped after" not in done.stderr


def test_ctrl_c_ends_a_diagnosis_with_one_line_and_no_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60_000, 256)).astype(np.float32) + 3)
    out = tmp_path / "out"
    command = ["diagnose", str(tmp_path / "x.npy"), "--exact", "--d-sae", "32768", "--json", str(out / "d.json")]
    with processes.running(processes.command, *command) as running:
        begun = time.monotonic()
        while time.monotonic() < begun + 60:  # until it is at work
            time.sleep(0.05)
            if running.errors.is_file() and "no activations are written" in running.errors.read_text():
                break
        os.kill(running.process.pid or 0, signal.SIGINT)
        running.process.join(60)
        stderr = running.errors.read_text()
    assert running.process.exitcode == 130, stderr
    assert "interrupted; what was written before is whole" in stderr
    assert "Traceback" not in stderr
    assert not out.exists()


@pytest.mark.network
def test_harvested_shards_are_diagnosed_and_a_second_harvest_only_opens_them(tmp_path: Path) -> None:
    harvest: list[str | Path] = [
        "harvest",
        "minilm",
        tmp_path / "acts",
        "--tokens",
        "600",
        "--layers",
        "0,6",
        "--skip-first",
    ]
    for _ in range(2):
        done = run(*harvest)
        assert done.returncode == 0, done.stderr
        assert "2 layers of 600 tokens" in done.stdout
    done = run("diagnose", tmp_path / "acts", "--d-sae", "512", "--k", "8")
    assert done.returncode == 0, done.stderr
    assert "hs6" in done.stdout


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(128, 24, generator=generator), dim=1)
    SAE(W_enc=rows, W_dec=rows, b_dec=torch.zeros(24), sparsity=TopK(k=4)).save(tmp_path / "sae")
    return tmp_path / "sae"


def test_autopsy_names_fates_and_causes_and_writes_what_was_asked(
    tmp_path: Path, source: Path, saved: Path
) -> None:
    out = tmp_path / "out"
    files: list[str | Path] = ["--json", out / "a.json", "--table", out / "a.csv", "--figure", out / "a.png"]
    done = run("autopsy", saved, source, "--layer", "1", "--tokens", "2000", *files, "--recentre", out / "revived")
    assert done.returncode == 0, done.stderr
    said = json.loads((out / "a.json").read_text())
    assert said["d_sae"] == 128
    assert said["tokens"] == 2000
    assert said["n_alive"] + said["n_dead_by_relu"] + said["n_dead_by_topk"] == 128
    assert sum(said["causes"].values()) == said["n_dead"] == said["causes"]["shift"] > 50
    assert said["n_always_on"] >= 1
    for line in done.stdout.splitlines():
        for name, number in {
            "always on": said["n_always_on"],
            "dead, never positive": said["n_dead_by_relu"],
            "dead, never selected": said["n_dead_by_topk"],
            "shift ": said["causes"]["shift"],
        }.items():
            if line.startswith(name):
                assert line.removeprefix(name).split()[0] == str(number)
    assert f"{said['n_dead']} of 128 latents (topk) are dead on 2,000 tokens of d_in = 24" in done.stdout
    assert (out / "a.csv").read_text().count("\n") == 129
    assert (out / "a.png").read_bytes().startswith(b"\x89PNG")
    cost, revived = said["recentred"], SAE.load(out / "revived")
    assert f"re-centred: {cost['n_woken']} of {cost['n_dead']} dead latents fire" in done.stdout
    assert cost["n_dead"] == said["n_dead"]
    assert torch.equal(revived.W_enc, SAE.load(saved).W_enc)
    assert revived.b_enc is not None


def test_an_autopsy_that_was_killed_at_any_of_its_files_can_be_run_again(
    tmp_path: Path, source: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("autopsae.cli.autopsy")
    files = {"json": tmp_path / "a.json", "table": tmp_path / "a.csv", "figure": tmp_path / "a.png"}
    files |= {"recentre": tmp_path / "revived", "prescription": tmp_path / "next"}

    asked = AutopsyOptions(sae=str(saved), source=source, layer="1", tokens=500, **files)  # type: ignore[arg-type]

    def ends(*_: object) -> None:
        raise KeyboardInterrupt

    for writer in ("write_text", "save_figure", "save_new"):
        with monkeypatch.context() as killed:
            killed.setattr(module, writer, ends)
            with pytest.raises(KeyboardInterrupt):
                module.autopsy(asked)
    module.autopsy(asked)
    names = {"a.json", "a.csv", "a.png", "revived.json", "revived.safetensors", "next.json", "next.safetensors"}
    assert names <= {path.name for path in tmp_path.iterdir()}


def test_autopsy_writes_the_prescription_and_says_how_the_library_of_the_sae_takes_it(
    tmp_path: Path, source: Path, saved: Path
) -> None:
    save_sae(SAE.load(saved), tmp_path / "theirs", to="saelens")
    done = run("autopsy", tmp_path / "theirs", source, "--layer", "1", "--prescription", tmp_path / "layers.1.cure")
    assert done.returncode == 0, done.stderr
    said = "".join(line.strip() for line in done.stdout.splitlines())
    path = tmp_path / "layers.1.cure"
    assert f'cure_saelens(trainer,autopsae.Prescription.load("{path}"))`' in said.replace(" ", "")
    read = Prescription.load(path)
    assert (read.layer, read.d_sae, read.sparsity.l0) == ("hs1", 128, 4)
    x = torch.cat(list(open_activations(source, "1"))).float()
    assert torch.allclose(read.b_dec.double(), geometric_median(x), atol=1e-3 * float(x.norm(dim=1).mean()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "SOURCE", "--layer", "1"], "nowhere: no such file or folder"),
        (["SAE", "nowhere"], "nowhere: no such file or folder"),
        (["SAE", "SOURCE"], "holds 2 layers (hs0, hs1); say which"),
        (["SAE", "SOURCE", "--layer", "1", "--tokens", "20"], "autopsy: expected at least 100 tokens, got 20"),
        (["SAE", "SOURCE", "--layer", "1", "--table", "a.xlsx"], "a.xlsx: expected a table named .csv or .parquet"),
        (["SAE", "SOURCE", "--layer", "1", "--figure", "a.gif"], "a.gif: expected a figure named .png, .pdf or"),
        (["SAE", "OTHER"], "autopsy: expected tokens of d_in = 24, as the SAE's, got 7"),
        (
            ["SAE", "SOURCE", "--layer", "1", "--recentre", "SAE"],
            "sae.json: expected a new name, got that of a file that is read",
        ),
        (["SAE", "SOURCE", "--layer", "1", "--recentre", "NEVER"], "expected a file of its own for each output"),
    ],
)
def test_a_bad_autopsy_ends_with_one_line_and_no_file(
    tmp_path: Path, source: Path, saved: Path, arguments: list[str], message: str
) -> None:
    np.save(tmp_path / "other.npy", np.ones((500, 7), np.float32))
    out = tmp_path / "never.json"
    places = {"SAE": saved, "SOURCE": source, "OTHER": tmp_path / "other.npy", "NEVER": tmp_path / "never"}
    done = run("autopsy", *[places.get(word, word) for word in arguments], "--json", out)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(("verb", "meant"), [("diagnos", "diagnose"), ("trian", "train"), ("Autopsy", "autopsy")])
def test_a_verb_that_is_mistyped_is_told_with_what_may_be_meant(verb: str, meant: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected a verb (autopsy, convert, ")
    assert done.stderr.endswith(f", got '{verb}'; try '{meant}'\n")


def test_a_word_that_is_missing_is_told_by_its_name() -> None:
    done = run("convert")
    assert done.returncode == 2
    told = [line.strip("\u2502 ") for line in done.stderr.splitlines()]
    assert [word for word in ("SOURCE", "TARGET", "STR", "PATH") if word in told] == ["SOURCE", "TARGET"]
