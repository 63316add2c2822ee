"""Laws of probes and monosemanticity in `autopsae features`: they are those of the library."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from autopsae.cli import verbs
from autopsae.features.annotations import Annotations, read_annotations
from autopsae.features.codes import encode_source
from autopsae.features.controls import control_saes
from autopsae.features.coverage import concept_coverage
from autopsae.features.labels import align_annotations
from autopsae.features.monosemanticity import monosemanticity
from autopsae.features.pool import pool_codes
from autopsae.features.probe_survey import probe_concepts
from autopsae.features.token_table import TokenTable, read_token_table
from autopsae.report import concept_figure
from autopsae.report.probes import monosemanticity_text, probes_text
from autopsae.sae.model import SAE
from tests.features.sources import DOCUMENTS, LENGTH, OF, codes_of, spans, sparse_matrix

pytestmark = pytest.mark.quick


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("rows", ["tokens", "documents"])
def test_probes_and_monosemanticity_are_those_of_the_library(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = 3 * DOCUMENTS
    many = np.repeat(np.arange(names), LENGTH)
    np.save("long.npy", np.concatenate([np.load("x.npy")] * 3))
    Annotations.of([(document, 3, 8, "half") for document in range(0, names, 2)]).save("half.csv")
    x = torch.from_numpy(np.load("long.npy")).flatten(0, 1)
    e = torch.randn(len(x) if rows == "tokens" else names, 3)
    np.save("e.npy", e.numpy())
    words = ["--annotations", "half.csv", "--probes", rows, "--embeddings", "e.npy", "--ks", "1,4", "--seed", "2"]
    outputs = ["--json", "f.json", "--table", "f.csv", "--against", "other"]
    assert verbs.run(["features", "sae", "long.npy", *words, *outputs, "--controls"]) == 0
    held, said = json.loads(Path("f.json").read_text()), capsys.readouterr().out
    labels = align_annotations(read_annotations("half.csv"), many)
    saes = {name: SAE.load(name) for name in ("sae", "other")}
    saes["random rows"] = control_saes(saes["sae"], x, seed=2)["random rows"]
    codes = {name: encode_source(sae, x, documents=many) for name, sae in saes.items()}
    probes = probe_concepts(codes, x, labels, rows=rows, ks=(1, 4), seed=2)
    assert held["probes"] == json.loads(json.dumps(probes.to_dict()))
    assert str(probes) in said.replace("\n", " ").replace("  ", " ")
    scored = codes["other"] if rows == "tokens" else pool_codes(codes["other"])
    expected = monosemanticity(scored, e).to_dict()
    assert held["monosemanticity"]["other"] == json.loads(json.dumps(expected))
    assert [*held["monosemanticity"]] == ["sae", "other", "neurons", "random rows"]
    assert f"{expected['mean']:.3f}" in said
    assert Path("f.csv").read_text().startswith("sae,concept,")
    assert Path("f-probes.csv").read_text().startswith("label,representation,k,auc,")
    assert len(Path("f-monosemanticity.csv").read_text().splitlines()) == 1 + 40 + 40 + 24 + 40


@pytest.mark.usefixtures("here")
def test_the_first_measure_has_the_table_as_it_is_named_and_special_tokens_have_no_embedding_to_score(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = read_token_table("t.csv")
    special = np.arange(len(OF)) % LENGTH == 0
    TokenTable(
        documents=OF, starts=table.starts, ends=np.where(special, table.starts, table.ends), texts=table.texts
    ).save("s.csv")
    e = torch.randn(len(OF), 3)
    np.save("e.npy", e.numpy())
    words = ["--embeddings", "e.npy", "--token-table", "s.csv", "--table", "f.csv", "--json", "f.json"]
    assert verbs.run(["features", "sae", "x.npy", *words]) == 0
    keep = torch.from_numpy(~special)
    x = torch.from_numpy(np.load("x.npy")).flatten(0, 1)
    expected = monosemanticity(encode_source(SAE.load("sae"), x[keep]), e[keep])
    assert json.loads(Path("f.json").read_text())["monosemanticity"]["sae"]["mean"] == pytest.approx(expected.mean)
    assert Path("f.csv").read_text().startswith("sae,latent,fired,all_inputs,top_16")
    TokenTable(documents=OF[::-1].copy(), starts=table.starts, ends=table.ends, texts=table.texts).save("s.csv")
    assert verbs.run(["features", "sae", "x.npy", *words]) == 2
    assert "token table: expected the documents of the source" in capsys.readouterr().err


def test_probes_and_monosemanticity_fit_a_narrow_terminal_and_names_are_no_markup() -> None:
    chance = np.random.default_rng(0)
    dense, x, documents = sparse_matrix(400, 9), torch.randn(400, 4), np.repeat(np.arange(80), 5)
    rows = [(int(d), int(d) % 5, 5, f"[red]c{n}[/red]") for n in range(12) for d in chance.permutation(80)[:40]]
    labels = align_annotations(Annotations.of(rows), documents)
    codes = codes_of(dense, documents)
    survey = probe_concepts({"[bold]sae": codes}, x, labels, rows="tokens", ks=(1, 4, 100))
    for text in (probes_text(survey), monosemanticity_text({"[bold]sae": monosemanticity(codes, x)})):
        for width in (50, 200):
            console = Console(width=width, file=StringIO())
            console.print(text)
            said = console.file.getvalue()  # type: ignore[attr-defined]
            assert "[bold]sae" in said
            assert max(map(len, said.splitlines())) <= width
    console.print(probes_text(survey))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]c11[/red]" in said
    assert "and 6 rows more, in --table and --json" in said
    # Neurons have four columns: at k 9 all of them are seen.
    assert f"{survey.probes['[red]c11[/red]'].best('neurons', 4).auc:.3f}" in said


def test_a_figure_shows_the_f1_that_decides_whether_a_concept_is_covered() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [plots]")
    labels = align_annotations(Annotations.of(spans(LENGTH, DOCUMENTS)), OF)
    coverage = concept_coverage(codes_of(sparse_matrix(len(OF), 9), OF), labels)
    curves, points = concept_figure(coverage).axes
    decisive = [min(score.f1, score.validation_f1) for score in coverage.scores]
    assert np.asarray(points.lines[0].get_xdata()).tolist() == sorted(decisive, reverse=True)
    assert np.asarray(curves.lines[0].get_ydata()).tolist() == [
        sum(f1 > limit for f1 in decisive) for limit in coverage.curve
    ]
