"""Every result says what wrote it: version, day, source, settings; and nothing else in it depends on the day."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.cli import outcome
from autopsae.cli.verbs import run
from autopsae.provenance import add_provenance, provenance
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.version import version

DAYS = [0, 86_400 * 365]
SMALL = ["--d-sae", "32", "--k", "4", "--steps", "30", "--batch-tokens", "50", "--checkpoint-every", "10"]


@pytest.fixture(autouse=True)
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    np.save("a.npy", x + 2)


def wrote(path: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(Path(path).read_text())["provenance"]
    assert told["autopsae"] == version()
    assert told["torch"] == torch.__version__
    assert told["date"] == "1970-01-01"
    return told


def contents(folder: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_every_result_says_what_wrote_it() -> None:
    files = ["--json", "d.json", "--prescriptions", "p"]
    assert run(["diagnose", "a.npy", "--d-sae", "32", "--k", "4", "--alphas", "0.2,0.4", *files]) == 0
    told, prescribed = wrote("d.json"), wrote("p/a.json")
    assert (told["command"], told["source"]) == ("diagnose", "a.npy")
    assert told["settings"]["alphas"] == [0.2, 0.4]
    assert not {"json", "figure", "prescriptions", "source"} & {*told["settings"]}
    assert told["digests"]["a"]["tokens"] == 400
    assert (prescribed["layer"], prescribed["digest"]) == ("a", told["digests"]["a"])
    assert run(["train", "a.npy", "--out", "out", *SMALL, "--prescription", "p/a"]) == 0
    for name in ("sae.json", "summary.json", "birth.json"):
        told = wrote(f"out/{name}")
        assert (told["command"], told["source"], told["layer"]) == ("train", "a.npy", "a")
        assert told["settings"]["prescription"] == "p/a"
        assert (told["prescription"]["layer"], told["prescription"]["d_sae"]) == ("a", 32)
        assert told["digest"]["tokens"] == 360
    outputs = ["--json", "x.json", "--recentre", "again", "--prescription", "next"]
    assert run(["autopsy", "out/sae", "a.npy", *outputs]) == 0
    for name in ("x.json", "again.json", "next.json"):
        told = wrote(name)
        assert (told["command"], told["source"], told["layer"]) == ("autopsy", "a.npy", "a")
        assert told["settings"]["sae"] == "out/sae"
    assert run(["convert", "out/sae", "new", "--to", "autopsae"]) == 0
    assert (wrote("new.json")["command"], wrote("new.json")["source"]) == ("convert", "out/sae")


def test_only_the_day_and_the_checksum_over_it_differ_on_another_day(monkeypatch: pytest.MonkeyPatch) -> None:
    for day in DAYS:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(day))
        assert run(["train", "a.npy", "--out", str(day), *SMALL]) == 0
    first, second = (contents(str(day)) for day in DAYS)
    assert {*first} == {*second}
    for name in first:
        if not name.endswith(".json"):
            assert first[name] == second[name], name
            continue
        one, other = json.loads(first[name]), json.loads(second[name])
        assert (one["provenance"].pop("date"), other["provenance"].pop("date")) == ("1970-01-01", "1971-01-01")
        assert one.pop("content_sha256") != other.pop("content_sha256")
        assert one == other


@pytest.mark.parametrize("more", [[], ["--seed", "0,1"]], ids=["run", "sweep"])
def test_a_run_that_is_resumed_on_another_day_ends_as_if_nothing_had_interrupted_it(
    more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "a.npy", *SMALL, *more]
    assert run([*command, "--out", "whole"]) == 0
    advance = outcome.Live.advance

    def killed(self: outcome.Live, records: Any) -> None:
        if next(iter(records.values())).step == 14:
            raise RuntimeError("killed")
        advance(self, records)

    with monkeypatch.context() as broken:
        broken.setattr(outcome.Live, "advance", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run([*command, "--out", "cut"])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(DAYS[1]))
    assert run([*command, "--out", "cut", "--resume"]) == 0
    assert contents("cut") == contents("whole")


def test_provenance_is_covered_by_the_checksum_and_is_no_content() -> None:
    sae = SAE(W_enc=torch.eye(4), W_dec=torch.eye(4), b_dec=torch.zeros(4), sparsity=TopK(k=2))
    with add_provenance(source="here"):
        sae.save("one")
    assert wrote("one.json")["source"] == "here"
    assert torch.equal(SAE.load("one").W_enc, sae.W_enc)
    text = Path("one.json").read_text()
    Path("one.json").write_text(text.replace('"here"', '"there"'))
    with pytest.raises(InputError, match="expected what was saved, got other content than its checksum says"):
        SAE.load("one")


@pytest.mark.quick
def test_what_is_recorded_is_forgotten_after_its_context() -> None:
    with add_provenance(source="a", layer="b"), add_provenance(layer="c"):
        assert (provenance()["source"], provenance()["layer"]) == ("a", "c")
    assert {*provenance()} == {"autopsae", "torch", "date"}


@pytest.mark.quick
def test_a_day_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("yesterday", "1e9", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
        with pytest.raises(InputError, match="SOURCE_DATE_EPOCH: expected seconds since 1970, got"):
            provenance()


@pytest.mark.quick
def test_without_it_the_day_is_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    monkeypatch.setattr("autopsae.provenance.time.time", lambda: 86_399.5)
    assert provenance()["date"] == "1970-01-01"
    monkeypatch.setattr("autopsae.provenance.time.time", lambda: 86_400.0)
    assert provenance()["date"] == "1970-01-02"
