"""No verb writes over what it reads, and no two outputs of it are one file: refused before the work."""

import json
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import autopsae
from autopsae.activations.harvest import harvest
from autopsae.arrays import InputError
from autopsae.cli import outcome, verbs
from autopsae.cli.options.kinds import Unrecorded, Writes
from autopsae.cli.parsing import VERBS, option_types
from autopsae.diagnosis.prescription import Prescription
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from tests.report.pages import tokens

SMALL = ["--d-sae", "48", "--k", "3"]
BRIEF = [*SMALL, "--steps", "3", "--batch-tokens", "100"]
LABELS = ["features", "run/sae", "x.npy", "--token-table", "tokens.csv", "--annotations", "spans.csv"]
DIAGNOSE, STORE = ["diagnose", "x.npy", *SMALL], ["diagnose", "store", *SMALL]
AUTOPSY = ["autopsy", "run/sae", "x.npy"]
NETWORK = ["diagnose", "nobody/nothing", *SMALL]

READ = {
    "activations": [*DIAGNOSE, "--json", "x.npy"],
    "activations-by-another-path": [*DIAGNOSE, "--json", "run/../x.npy"],
    "activations-by-a-link": [*DIAGNOSE, "--json", "link.npy"],
    "activations-by-a-second-name": [*DIAGNOSE, "--json", "second.npy"],
    "activations-as-a-url": [*DIAGNOSE, "--json", "file://HERE/x.npy"],
    "activations-as-the-part-of-a-result": ["diagnose", "x.part.npy", *SMALL, "--json", "x.npy"],
    "lengths": ["diagnose", "seq.npy", *SMALL, "--lengths", "lengths.txt", "--json", "lengths.txt"],
    "mask": ["diagnose", "seq.npy", *SMALL, "--mask", "mask.npy", "--json", "mask.npy"],
    "index-of-a-store": [*STORE, "--json", "store/index.json"],
    "shard-of-a-store": [*STORE, "--json", "store/shard-00000.safetensors"],
    "index-of-a-shard": ["diagnose", "store/shard-00000.safetensors", *SMALL, "--json", "store/index.json"],
    "text": [*NETWORK, "--text", "text.txt", "--json", "text.txt"],
    "sequences": [*NETWORK, "--sequences", "text.txt", "--json", "text.txt"],
    "image": [*NETWORK, "--images", "images", "--figure", "images/a.png"],
    "folder-that-is-kept": [*NETWORK, "--images", "images", "--keep", "images"],
    "prescription-of-a-layer": ["diagnose", "layers.safetensors", *SMALL, "--prescriptions", "."],
    "work": ["diagnose", "store", *SMALL, "--on", "local:1", "--work", "store"],
    "sae": [*AUTOPSY, "--json", "run/sae.json"],
    "sae-as-a-prescription": [*AUTOPSY, "--prescription", "run/sae"],
    "sae-re-centred": [*AUTOPSY, "--recentre", "run/sae"],
    "tokens-of-an-autopsy": [*AUTOPSY, "--json", "x.npy"],
    "summary-of-a-run": [*AUTOPSY, "--json", "run/summary.json"],
    "summary-of-a-run-by-its-folder": ["autopsy", "run", "x.npy", "--json", "run/summary.json"],
    "records-of-a-run": [*AUTOPSY, "--table", "run/records.csv"],
    "labels": [*LABELS, "--table", "spans.csv"],
    "token-table": [*LABELS, "--table", "tokens.csv"],
    "second-table": [*LABELS[:5], "--annotations", "a-probes.csv", "--probes", "tokens", "--table", "a.csv"],
    "embeddings": ["features", "run/sae", "x.npy", "--embeddings", "e.npy", "--json", "e.npy"],
    "other-sae": [*LABELS, "--against", "other", "--json", "other.json"],
    "results": ["report", "page.html", "--out", "page.html"],
    "config": ["train", "x.npy", *BRIEF, "--config", "config.html", "--out", "new", "--report", "config.html"],
    "prescription": ["train", "x.npy", *BRIEF, "--prescription", "given/sae", "--out", "given"],
    "source-folder": ["train", "store", *BRIEF, "--out", "store"],
    "sae-to-convert": ["convert", "run/sae", "run/sae", "--to", "autopsae", "--scale", "2"],
    "folder-to-convert": ["convert", "run", "run", "--to", "saelens"],
    "model": ["harvest", "images", "images"],
    "shard": ["stats", "a.safetensors", "--out", "a.safetensors"],
    "other-shard": ["stats", "store/shard-00000.safetensors", "--out", "store/shard-00001.safetensors"],
    "part": ["merge", "p0.safetensors", "p1.safetensors", *SMALL, "--json", "p1.safetensors"],
    "part-as-a-part": ["merge", "p0.safetensors", "p1.safetensors", "--out", "p1.safetensors"],
    "part-as-a-prescription": ["merge", "x.safetensors", *SMALL, "--prescriptions", "."],
}
"""An output that is an input, of each kind of input; `HERE` is the working directory."""

TWICE = {
    "diagnose": [*DIAGNOSE, "--json", "f.png", "--figure", "f.png"],
    "diagnose-prescriptions": [*DIAGNOSE, "--json", "new/x.json", "--prescriptions", "new"],
    "diagnose-links": [*DIAGNOSE, "--json", "to-new.json", "--figure", "f.png", "--report", "link-to-f.html"],
    "diagnose-a-model": [*NETWORK, "--json", "new/hs1.json", "--prescriptions", "new", "--layers", "1"],
    "diagnose-a-whole-model": [*NETWORK, "--json", "new/hs1.json", "--prescriptions", "new"],
    "diagnose-kept": [*NETWORK, "--json", "new/index.json", "--keep", "new"],
    "merge": ["merge", "p0.safetensors", "p1.safetensors", *SMALL, "--json", "f.png", "--figure", "f.png"],
    "merge-prescriptions": [
        *["merge", "x.safetensors", *SMALL, "--json", "new/x.json"],
        *["--prescriptions", "new"],
    ],
    "autopsy": [*AUTOPSY, "--json", "f.csv", "--table", "f.csv"],
    "autopsy-prescription": [*AUTOPSY, "--json", "f.json", "--prescription", "f"],
    "features": [*LABELS, "--json", "f.csv", "--table", "f.csv"],
    "features-tables": [*LABELS, "--probes", "tokens", "--table", "f.csv", "--json", "f-probes.csv"],
}
"""Two outputs that are one file."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with inputs of each kind, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    x = tokens(6.0, number=2000)
    for name in ("x.npy", "x.part.npy"):
        np.save(name, x.numpy())
    os.link("x.npy", "second.npy")
    Path("link.npy").symlink_to("x.npy")
    np.save("seq.npy", x.reshape(40, 50, -1).numpy())
    np.save("mask.npy", np.ones((40, 50), dtype=bool))
    np.save("e.npy", x[:, :4].numpy())
    Path("lengths.txt").write_text("\n".join(["50"] * 40))
    Path("text.txt").write_text("words")
    for name, start in (("a.safetensors", 0), ("b.safetensors", 1000)):
        save_file({"x": x[start : start + 1000].contiguous()}, name)
    for name in ("layers", "more"):
        save_file({name: x}, f"{name}.safetensors")
    Path("images").mkdir()
    for name in ("config.json", "a.png"):
        Path("images", name).write_text("{}")
    Path("run").mkdir()
    born(untouched(12), d_sae=48, sparsity=TopK(k=3), scaled=False).save("run/sae")
    born(untouched(12), d_sae=48, sparsity=TopK(k=3), scaled=False).save("other")
    for name in ("summary.json", "records.csv"):
        Path("run", name).write_text("{}")
    Path("config.html").write_text("{}")
    Path("page.html").write_text("{}")
    spans = [f"{document},{document % 20},{document % 20 + 9},c{document % 2}" for document in range(80)]
    for name in ("spans.csv", "a-probes.csv"):
        Path(name).write_text("\n".join(["document,start,end,concept", *spans]))
    rows = [f"{n // 25},{n % 25},{n % 25 + 1},a" for n in range(2000)]
    Path("tokens.csv").write_text("\n".join(["document,start,end,text", *rows]))
    net = torch.nn.Sequential(torch.nn.Linear(12, 12), torch.nn.ReLU())
    harvest(net, [x[:500], x[500:1000]], "store", points=["0"], shard_tokens=500)
    autopsae.diagnose(x, d_sae=48, k=3).prescription.save("given/sae")
    for number, name in enumerate(("a", "b")):
        words = [f"{name}.safetensors", "--start", f"{number}000", "--out", f"p{number}.safetensors"]
        assert verbs.run(["stats", *words]) == 0
    assert verbs.run(["stats", "x.npy", "--out", "x.safetensors"]) == 0
    Path("link-to-f.html").symlink_to("f.png")
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".autopsae.lock"]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def refusal(here: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused and changes nothing."""
    before = contents(here)
    capsys.readouterr()
    assert verbs.run([word.replace("HERE", str(here)) for word in words]) == 2
    assert contents(here) == before
    return capsys.readouterr().err


@pytest.mark.parametrize("words", READ.values(), ids=READ.keys())
def test_an_output_that_would_replace_an_input_is_refused_and_nothing_is_changed(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(here, words, capsys)
    assert re.search("expected a new (name|folder), got (that of a file|one that is read|that of)", said), said


@pytest.mark.parametrize("words", TWICE.values(), ids=TWICE.keys())
def test_two_outputs_in_one_file_are_refused_and_nothing_is_changed(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(here, words, capsys)
    assert re.search("expected a file of its own for each output|expected a name that new is not given", said), said


def test_every_verb_with_an_output_is_tried() -> None:
    writing = {verb for verb, options in VERBS.items() if any(map(_writes, option_types(options).values()))}
    # The source of `pull` lies on the Hub, and `push` writes nothing here.
    assert writing - {"pull"} == {words[0] for words in READ.values()}
    assert "push" not in writing


def test_every_path_that_is_no_setting_is_marked_as_an_output() -> None:
    unmarked = {
        name
        for options in VERBS.values()
        for name, hint in option_types(options).items()
        if Path in _types(hint) and any(isinstance(m, Unrecorded) for m in get_args(hint)) and not _writes(hint)
    }
    assert unmarked == {"config"}


def _writes(hint: Any) -> bool:
    return any(isinstance(mark, Writes) for mark in get_args(hint))


def _types(hint: Any) -> Iterator[Any]:
    yield hint
    for one in get_args(hint):
        yield from _types(one)


AGAIN = {
    "diagnose": [*DIAGNOSE, "--json", "d.json", "--figure", "d.png", "--report", "d.html", "--prescriptions", "."],
    "diagnose-in-the-store": [*STORE, "--json", "store/d.json", "--figure", "store/d.png"],
    "autopsy-in-the-run": [*AUTOPSY, "--json", "run/a.json", "--table", "run/a.csv", "--prescription", "run/next"],
    "features": [*LABELS, "--json", "run/f.json", "--table", "run/f.csv"],
    "stats-in-the-store": ["stats", "store/shard-00000.safetensors", "--out", "store/part.safetensors"],
    "merge": ["merge", "p0.safetensors", "p1.safetensors", *SMALL, "--json", "m.json", "--prescriptions", "new"],
    "report": ["report", "given/d.json", "--out", "r.html"],
    "result-beside-tokens-of-that-name": [*DIAGNOSE, "--json", "x.json"],
    "train": ["train", "x.npy", *BRIEF, "--out", "new", "--resume", "--figure", "new/a.png"],
    "train-from-its-own-folder": [
        *["train", "x.npy", *BRIEF, "--prescription", "given/start", "--out", "given", "--resume"]
    ],
    "train-with-its-own-settings": ["train", "x.npy", "--config", "new/summary.json", "--out", "new", "--resume"],
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("words", AGAIN.values(), ids=AGAIN.keys())
def test_the_same_command_can_be_run_again_over_its_own_outputs(words: list[str]) -> None:
    if "given/d.json" in words:
        assert verbs.run([*DIAGNOSE, "--json", "given/d.json"]) == 0
    if "new/summary.json" in words:
        assert verbs.run(["train", "x.npy", *BRIEF, "--out", "new"]) == 0
    if "given/start" in words:
        for suffix in (".json", ".safetensors"):
            Path(f"given/sae{suffix}").rename(f"given/start{suffix}")
    for _ in range(2):
        assert verbs.run(words) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["diagnose", "sae.npy", *SMALL, "--prescriptions", "run"],
        [*AUTOPSY, "--prescription", "other"],
        ["merge", "part.safetensors", *SMALL, "--prescriptions", "run"],
        ["train", "x.npy", *BRIEF, "--out", "given"],
        ["train", "x.npy", *BRIEF, "--lr", "1e-4,1e-3", "--out", "sweep"],
    ],
    ids=["diagnose", "autopsy", "merge", "train", "sweep"],
)
def test_no_pair_gives_way_to_one_of_another_format(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("sae.npy", np.load("x.npy"))
    assert verbs.run(["stats", "sae.npy", "--out", "part.safetensors"]) == 0
    if words[-1] == "sweep":
        assert verbs.run([*words[:-1], "first"]) == 0
        [member, *_] = [path.parent.name for path in Path("first").glob("*/sae.json")]
        Prescription.load("given/sae").save(f"sweep/{member}/sae")
    assert "pass another name" in refusal(here, words, capsys)


@pytest.mark.usefixtures("here")
def test_saving_a_pair_replaces_one_of_its_own_format_alone() -> None:
    sae, saved = SAE.load("run/sae"), Prescription.load("given/sae")
    for path, other in (("run/sae", saved), ("given/sae.json", sae)):
        before = contents(Path())
        with pytest.raises(
            InputError, match=r"expected a new name, or autopsae-.*, got 'autopsae-.*pass another name"
        ):
            other.save(path)
        assert contents(Path()) == before
    sae.save("run/sae")
    saved.save("given/sae")
    Path("run/sae.json").write_text("damaged")
    sae.save("run/sae")
    assert torch.equal(SAE.load("run/sae").W_enc, sae.W_enc)


def test_a_resumed_run_of_fewer_steps_than_are_done_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "x.npy", *SMALL, "--batch-tokens", "100", "--out", "new", "--checkpoint-every", "4"]
    advance = outcome.Live.advance

    def killed(self: outcome.Live, records: Any) -> None:
        if next(iter(records.values())).step == 9:
            raise RuntimeError("killed")
        advance(self, records)

    with monkeypatch.context() as broken:
        broken.setattr(outcome.Live, "advance", killed)
        with pytest.raises(RuntimeError, match="killed"):
            verbs.run([*words, "--steps", "20"])
    said = refusal(here, [*words, "--resume", "--steps", "7"], capsys)
    assert "expected at least 8 steps, which are done, got --steps 7" in said
    assert verbs.run([*words, "--resume", "--steps", "8"]) == 0
    assert json.loads(Path("new/summary.json").read_text())["steps"] == 8
