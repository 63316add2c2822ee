"""Laws of `autopsae features`: it says and writes what the library computes, and refuses in one line."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from autopsae.cli import verbs
from autopsae.features.annotations import read_annotations
from autopsae.features.codes import encode_source
from autopsae.features.coverage import concept_coverage
from autopsae.features.examples import Example, LatentExamples
from autopsae.features.labels import align_annotations
from autopsae.report.concepts import examples_text
from autopsae.sae.model import SAE
from tests.features.sources import OF

pytestmark = pytest.mark.quick


@pytest.mark.usefixtures("here")
def test_the_verb_says_and_writes_what_the_library_computes(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = ["--json", "f.json", "--table", "f.csv", "--figure", "f.png"]
    assert verbs.run(["features", "sae", "x.npy", "--annotations", "a.csv", *outputs]) == 0
    said, held = capsys.readouterr().out, json.loads(Path("f.json").read_text())
    codes = encode_source(SAE.load("sae"), torch.from_numpy(np.load("x.npy")).flatten(0, 1), documents=OF)
    expected = concept_coverage(codes, align_annotations(read_annotations("a.csv"), OF))
    assert said.startswith(str(expected)[:40])
    assert {name: held[name] for name in expected.to_dict()} == json.loads(json.dumps(expected.to_dict()))
    assert held["provenance"]["command"] == "features"
    assert held["provenance"]["settings"]["annotations"] == "a.csv"
    assert next(score["latent"] for score in held["scores"] if score["concept"] == "phrase") == 7
    assert Path("f.csv").read_text().splitlines()[1].startswith("sae,")
    assert Path("f.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("here")
def test_saes_and_controls_are_compared_on_the_same_labels(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["features", "sae", "x.npy", "--annotations", "a.csv", "--against", "other", "--controls"]
    assert verbs.run([*words, "--json", "f.json", "--table", "f.csv", "--figure", "f.svg"]) == 0
    held, said = json.loads(Path("f.json").read_text()), capsys.readouterr().out
    assert [*held["coverages"]] == ["sae", "other", "neurons", "random rows"]
    assert [gain["name"] for gain in held["gains"]] == ["other", "neurons", "random rows"]
    assert held["coverages"]["neurons"]["d_sae"] == 24
    assert held["coverages"]["random rows"]["d_sae"] == 40
    covered = [f"{name} covers {one['covered']:,}" for name, one in held["coverages"].items()]
    first = f"of {len(held['coverages']['sae']['scores'])} concepts, {', '.join(covered)} "
    assert " ".join(said.split()).startswith(first)
    assert "other against sae: " in said
    assert len(Path("f.csv").read_text().splitlines()) == 1 + 4 * 3


@pytest.mark.parametrize("text", ["fox ", " fox", "fox"])
def test_the_brackets_of_a_token_stay_with_it_where_a_line_ends(text: str) -> None:
    said = {"before": "the quick brown ", "text": text, "after": "jumps"}
    example = Example(token=0, value=1.0, quantile=1.0, document=None, position=None, **said)
    shown = LatentExamples(latent=0, fired=1, rate=0.1, top=(example,), spread=())
    page = StringIO()
    Console(width=33, file=page).print(examples_text(shown))
    assert "[fox]" in page.getvalue()
    assert "the quick brown" in page.getvalue()


@pytest.mark.usefixtures("here")
def test_a_latent_is_shown_with_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["features", "sae", "x.npy", "--latent", "7", "--top", "3", "--window", "2"]
    assert verbs.run([*words, "--token-table", "t.csv", "--json", "f.json"]) == 0
    held, said = json.loads(Path("f.json").read_text())["latent"], capsys.readouterr().out
    assert said.startswith(f"Latent 7 fires on {held['fired']:,} tokens")
    first = held["top"][0]
    word = first["text"].strip(" ")
    assert f"{first['before']}{first['text'].replace(word, f'[{word}]')}{first['after']}".strip() in said
    assert "\nlargest: code, quantile of the codes, token\n" in said
    assert len(held["top"]) == len(held["spread"]) == 3
    assert verbs.run(words) == 0
    assert f"document {first['document']}, token {first['position']}" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "features: expected --annotations, --tasks, --embeddings, --latent or --report, got none of them"),
        (
            ["--latent", "1", "--table", "t.csv"],
            "expected --annotations, --tasks or --embeddings with --against, --controls and --table",
        ),
        (["--latent", "1", "--probes", "tokens"], "features: expected --annotations with --probes and --figure"),
        (["--embeddings", "e.npy", "--figure", "f.png"], "expected --annotations with --probes and --figure"),
        (["--tasks", "5_a"], "--tasks: expected a model, which reads their texts, got activations"),
        (["--latent", "1", "--text", "a.txt"], "--text: expected with a model, got activations; leave it out"),
        (["--latent", "1", "--tokens", "9"], "--tokens: expected with a model, got activations; leave it out"),
        (["--embeddings", "none.npy"], "none.npy: no such file"),
        (
            ["--annotations", "a.csv", "--against", "other", "--k", "3"],
            "--scale and --k: expected without --against, as each SAE has its own",
        ),
        (
            ["--annotations", "a.csv", "--against", "neurons"],
            "neurons: expected an SAE of another name than the controls; write ./neurons",
        ),
        (
            [
                "--annotations",
                "a.csv",
                "--embeddings",
                "e.npy",
                "--table",
                "f.csv",
                "--json",
                "f-monosemanticity.csv",
            ],
            "expected a file of its own for each output",
        ),
        (
            ["--annotations", "a.csv", "--against", "sae"],
            "against: expected other SAEs than sae, each once, got sae",
        ),
        (["--annotations", "a.csv", "--figure", "f.bmp"], "expected a figure named .png, .pdf or .svg"),
        (
            ["--annotations", "a.csv", "--json", "f", "--table", "none.txt"],
            "expected a table named .csv or .parquet",
        ),
        (["--annotations", "none.csv"], "none.csv: expected a table with the columns"),
        (["--latent", "40"], "latent: expected 0 to 39, got 40"),
        (["--embeddings", "a.npy"], "a.npy: expected a row for each of 500 tokens or 20 documents, got 19"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verbs.run(["features", "sae", "x.npy", *words]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]


@pytest.mark.usefixtures("here")
def test_a_source_without_documents_needs_a_table_of_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("flat.npy", np.load("x.npy").reshape(-1, 12))
    assert verbs.run(["features", "sae", "flat.npy", "--annotations", "a.csv"]) == 2
    assert "flat.npy: expected to know the document of each token" in capsys.readouterr().err
    assert verbs.run(["features", "sae", "flat.npy", "--annotations", "a.csv", "--token-table", "t.csv"]) == 0
