"""Laws of `autopsae features` straight from a model: its tokens are those of a harvest, and nothing is kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autopsae.activations.presets import load_model
from autopsae.cli import feature_measures, verbs
from autopsae.features.annotations import Annotations
from autopsae.features.codes import encode_source
from autopsae.features.coverage import concept_coverage
from autopsae.features.labels import align_annotations
from autopsae.features.network_source import NetworkSource
from autopsae.features.probe_survey import probe_documents
from autopsae.features.tasks import ProbeTask
from autopsae.models import TextNetwork
from autopsae.sae.model import SAE
from tests.activations.test_presets import WORDS, gpt2_folder
from tests.features.sources import small_sae


def texts_with_labels() -> tuple[list[str], list[bool]]:
    """Texts of which every second ends with the word of number 5."""
    chance, texts = np.random.default_rng(0), list[str]()
    for n in range(60):
        some = [*chance.integers(6, 20, chance.integers(3, 9)), 5 if n % 2 else 20 + n // 2 % 30]
        texts.append(" ".join(WORDS[word] for word in some) + f" {WORDS[4]}")
    return texts, [bool(n % 2) for n in range(60)]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny language model, an SAE of its layer and texts for it."""
    monkeypatch.chdir(tmp_path)
    gpt2_folder(tmp_path / "gpt2")
    small_sae(d_in=16).save("sae")
    Annotations.of([(50, 0, 1, "late")]).save("late.csv")
    Path("a.txt").write_text("\n\n".join(texts_with_labels()[0]))
    return tmp_path


FROM_MODEL = ["features", "sae", "gpt2", "--layer", "1", "--context", "16"]


def test_a_model_is_run_on_its_texts_and_only_results_are_written(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, _ = texts_with_labels()
    before = {*model.iterdir()}
    rows = [(n, text.index(WORDS[4]), len(text), "end") for n, text in enumerate(texts)]
    Annotations.of(rows).save(model / "annotations.csv")
    words = ["--text", "a.txt", "--annotations", "annotations.csv", "--latent", "3", "--json", "f.json"]
    assert verbs.run([*FROM_MODEL, *words]) == 0
    assert {*model.iterdir()} - before == {model / "f.json", model / "annotations.csv"}
    held, said = json.loads(Path("f.json").read_text()), capsys.readouterr().out
    source = NetworkSource(TextNetwork(load_model("gpt2")), texts, point="hs1", context=16)
    codes = encode_source(SAE.load("sae"), source, documents=source.documents)
    labels = align_annotations(Annotations.of(rows), source.documents, source.table)
    assert held["scores"] == json.loads(json.dumps(concept_coverage(codes, labels).to_dict()["scores"]))
    assert held["provenance"]["layer"] == "hs1"
    first = held["latent"]["top"][0]
    assert first["text"] == source.table.texts[first["token"]]
    assert f"[{first['text']}]" in said
    # The first tokens alone: annotations of what was not read are left out, and that is said.
    assert verbs.run([*FROM_MODEL, *words, "--tokens", "300"]) == 0
    note = capsys.readouterr().err
    read = len(np.unique(source.documents[:300]))
    assert f"{60 - read} of 60 annotations are left out, as their documents were not read" in note
    assert json.loads(Path("f.json").read_text())["documents"] == read


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [(2, " ", "got blank space alone as text 2"), (3, "\n  w5", "got one that begins with blank space as text 3")],
)
def test_texts_whose_numbers_or_letters_would_shift_are_refused_with_annotations(
    model: Path, capsys: pytest.CaptureFixture[str], place: int, text: str, said: str
) -> None:
    texts, _ = texts_with_labels()
    rows = [(n, text.index(WORDS[4]), len(text), "end") for n, text in enumerate(texts)]
    Annotations.of(rows).save("end.csv")
    lines = [json.dumps({"text": one}) for one in [*texts[:place], text, *texts[place:]]]
    (model / "a.jsonl").write_text("\n".join(lines))
    words = [*FROM_MODEL, "--text", "a.jsonl", "--json", "f.json"]
    assert verbs.run([*words, "--annotations", "end.csv"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("f.json").exists()
    assert verbs.run([*words, "--latent", "3"]) == 0  # nothing is counted
    (model / "a.jsonl").write_text("\n".join(json.dumps({"text": f"{one} \n"}) for one in texts))
    assert verbs.run([*words, "--annotations", "end.csv"]) == 0  # what follows a text moves nothing


def test_a_model_reads_the_texts_of_tasks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = texts_with_labels()
    task = ProbeTask(name="5_a", texts=tuple(texts), labels=np.array(labels), classes=("no", "yes"), left_out=0)
    monkeypatch.setattr(feature_measures, "read_probe_task", lambda name, most: replace(task, name=name))
    assert (
        verbs.run([*FROM_MODEL, "--tasks", "5_a,6_b", "--json", "f.json", "--table", "f.csv", "--ks", "1,2"]) == 0
    )
    held = json.loads(Path("f.json").read_text())["probes"]["probes"]
    assert held["5_a"] == held["6_b"]
    source = NetworkSource(TextNetwork(load_model("gpt2")), texts, point="hs1", context=16)
    codes = {"sae": encode_source(SAE.load("sae"), source, documents=source.documents)}
    settings = {"leave_out": ~source.table.is_letter, "pool": "last", "ks": (1, 2)}
    expected = probe_documents(codes, source, source.documents, {"5_a": task.labels}, **settings)  # type: ignore[arg-type]
    assert held["5_a"] == json.loads(json.dumps(expected.probes["5_a"].to_dict()))
    assert Path("f.csv").read_text().startswith("label,representation,")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--latent", "1", "--token-table", "t.csv"], "a model tells its tokens itself"),
        (["--latent", "1", "--layer", "9"], "unknown layer 'hs9'"),
        (
            ["--annotations", "late.csv", "--text", "a.txt", "--tokens", "20"],
            "late.csv: expected annotations of the documents that were read (0 to 1), got none of them",
        ),
        (["--latent", "1", "--tokens", "0"], "tokens: expected at least 1, got 0"),
        (["--latent", "1", "--text", "a.txt", "--images", "."], "expected one of --text --dataset --images"),
    ],
)
@pytest.mark.usefixtures("model")
def test_what_a_model_cannot_do_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verbs.run([*FROM_MODEL, *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("model")
def test_a_model_of_several_layers_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.run(["features", "sae", "gpt2", "--latent", "1"]) == 2
    assert "gpt2: has 3 layers (hs0, hs1, hs2); say which, --layer" in capsys.readouterr().err
