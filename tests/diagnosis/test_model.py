"""All layers of a network, diagnosed in one run of it."""

from pathlib import Path

import pytest

import autopsae
from autopsae.arrays import InputError
from autopsae.models import NetworkBatches, choose_pieces, run_network
from tests.models.words import Words

TEXTS = [f"document {n} says {n * n} and {n * 7 % 13} " * 3 for n in range(40)]
SMALL = {"d_sae": 32, "k": 4, "context": 16, "seed": 3}


def test_it_is_the_survey_of_what_the_network_gives_in_one_run_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = Words()
    told: list[str] = []
    survey = autopsae.diagnose_model(network, TEXTS, tokens=1500, announce=told.append, **SMALL)  # type: ignore[arg-type]
    runs = network.model.runs
    pieces = choose_pieces(network, TEXTS, tokens=1500, context=16, seed=3)
    batches = NetworkBatches(network=network, pieces=pieces, points=network.points, context=16, batch_size=8)
    outputs = list(run_network(batches, tokens=1500))
    assert runs == len(outputs)
    layers = {name: [output[name] for output in outputs] for name in network.points}
    documents = [piece.document for piece in pieces for _ in range(piece.tokens)][:1500]
    for ours, (name, tokens) in zip(survey, layers.items(), strict=True):
        theirs = autopsae.diagnose(tokens, d_sae=32, k=4, documents=documents, layer=name, seed=3, exact=False)
        assert ours.layer == theirs.layer
        assert ours.tokens == 1500
        assert ours.severity.gamma == pytest.approx(theirs.severity.gamma, rel=1e-9)
        assert ours.prescription.remedy.name == theirs.prescription.remedy.name
        assert ours.birth["none"].dead == pytest.approx(theirs.birth["none"].dead, abs=1e-6)
        assert ours.severity.gamma_interval == pytest.approx(theirs.severity.gamma_interval, rel=1e-6)
        known = theirs.expected["none"].effective_tokens
        assert ours.expected["none"].effective_tokens == pytest.approx(known, rel=1e-6)
    assert not [*tmp_path.iterdir()]
    assert told == ["words: 2 layers, 1,500 tokens from 40 documents, in one run; nothing is written"]


def test_kept_activations_are_those_that_were_diagnosed(tmp_path: Path) -> None:
    kept = autopsae.diagnose_model(Words(), TEXTS, tokens=700, keep=tmp_path / "kept", **SMALL)  # type: ignore[arg-type]
    alone = autopsae.diagnose_model(Words(), TEXTS, tokens=700, **SMALL)  # type: ignore[arg-type]
    layers = autopsae.open_layers(tmp_path / "kept")
    assert {name: layer.tokens for name, layer in layers.items()} == {"embedding": 700, "linear": 700}
    for ours, theirs in zip(kept, alone, strict=True):
        assert ours.severity.gamma == pytest.approx(theirs.severity.gamma, rel=1e-6)
        assert ours.birth["none"].dead == pytest.approx(theirs.birth["none"].dead, abs=0.05)


def test_what_cannot_be_diagnosed_is_refused_before_the_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Words()
    with pytest.raises(InputError, match="expected a list of documents, got a string"):
        autopsae.diagnose_model(network, "text", **SMALL)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown layer"):
        autopsae.diagnose_model(network, TEXTS, layers=["linaer"], **SMALL)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tokens and batch_size of at least 1"):
        autopsae.diagnose_model(network, TEXTS, tokens=0, **SMALL)  # type: ignore[arg-type]
    monkeypatch.setattr(Words, "modality", "image")
    with pytest.raises(InputError, match=r"words: expected images \(--images DIR"):
        autopsae.diagnose_model(network, **SMALL)  # type: ignore[arg-type]
    assert network.model.runs == 0
