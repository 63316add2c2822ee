"""All layers of a network, diagnosed in one run of it."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import autopsae
from autopsae.arrays import InputError
from autopsae.diagnosis.room import bytes_of_diagnosis
from autopsae.models import NetworkBatches, choose_pieces, run_network
from autopsae.models.stream import BLOCK
from autopsae.statistics.room import bytes_of_collector
from autopsae.threads import side_by_side
from tests.diagnosis.test_parts import furthest
from tests.models.words import Words

model = import_module("autopsae.diagnosis.model")

TEXTS = [f"document {n} says {n * n} and {n * 7 % 13} " * 3 for n in range(40)]
SMALL = {"d_sae": 32, "k": 4, "context": 16, "seed": 3}


def needed(widths: list[int], sample_tokens: int) -> int:
    """Bytes for layers of these widths: the collectors of all, and the diagnosis of the widest."""
    held = sum(bytes_of_collector(d_in, BLOCK, sample_tokens=sample_tokens) for d_in in widths)
    return held + bytes_of_diagnosis(max(widths), d_sae=32, sample_tokens=sample_tokens)


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
    assert runs == 1 + len(
        outputs
    )  # the shortest piece, which tells the widths of the layers; then each batch once
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
    [line] = told
    assert re.fullmatch(
        r"words: 2 layers, 1,500 tokens from 40 documents, in one run; a sample of at most "
        r"4,096 tokens of each layer; up to \d+\.\d MB of memory \([\d.,]+ GB are free\); "
        r"no activations are written",
        line,
    )


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


def test_the_sample_is_halved_until_the_memory_that_is_free_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def sample(free: int) -> str:
        monkeypatch.setattr("autopsae.diagnosis.room.available_bytes", lambda _: free)
        monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: free)
        autopsae.diagnose_model(Words(), TEXTS, tokens=1500, announce=told.append, **SMALL)  # type: ignore[arg-type]
        return told[-1].split("; ")[1]

    monkeypatch.setattr("autopsae.diagnosis.room.SMALL", 0)
    monkeypatch.setattr("autopsae.memory.SMALL", 0)
    needs = [needed([16, 16], size) for size in (4096, 2048, 1024)]
    assert needs == sorted(needs, reverse=True)
    assert sample(needs[0]) == "a sample of at most 4,096 tokens of each layer"
    assert sample(needs[0] - 1) == sample(needs[1]) == "a sample of at most 2,048 tokens of each layer"
    assert sample(needs[2]) == "a sample of at most 1,024 tokens of each layer"
    network = Words()
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: needs[2] - 1)
    monkeypatch.setattr("autopsae.diagnosis.room.available_bytes", lambda _: needs[2] - 1)
    with pytest.raises(InputError, match=r"^expected 0\.\d GiB of free memory to diagnose 2 layers .*; name fewer"):
        autopsae.diagnose_model(network, TEXTS, tokens=1500, **SMALL)  # type: ignore[arg-type]
    assert network.model.runs == 1


def test_layers_are_judged_side_by_side_where_threads_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("autopsae.diagnosis.room.SMALL", 0)
    one, judged = needed([16, 16], 4096), bytes_of_diagnosis(16, d_sae=32)
    said, told = list[dict[str, Any]](), list[tuple[str, int, int | None]]()
    try:
        cases = [(1, 2**40, 1), (2, one + judged, 1), (2, one + 2 * judged, 2), (4, 2**40, 2)]
        for threads, free, at_once in cases:
            torch.set_num_threads(threads)
            monkeypatch.setattr("autopsae.diagnosis.room.available_bytes", lambda _, free=free: free)
            with monkeypatch.context() as patch:
                asked: list[int] = []
                patch.setattr(model, "side_by_side", lambda *a, asked=asked: asked.append(a[2]) or side_by_side(*a))
                survey = autopsae.diagnose_model(
                    Words(),
                    TEXTS,
                    tokens=1500,
                    progress=lambda *a: told.append(a),
                    **SMALL,  # type: ignore[arg-type]
                )
            assert asked == [at_once]
            said.append(survey.to_dict())
    finally:
        torch.set_num_threads(before)
    assert all(furthest(other, said[0]) < 1e-9 for other in said)
    assert [told[-1]] == [("layer 2 of 2: linear", 3000, 3000)]


def test_a_sample_that_is_asked_for_is_taken_and_at_least_40_tokens() -> None:
    told: list[str] = []
    autopsae.diagnose_model(Words(), TEXTS, tokens=1500, sample_tokens=600, announce=told.append, **SMALL)  # type: ignore[arg-type]
    assert "; a sample of at most 600 tokens of each layer; " in told[0]
    with pytest.raises(InputError, match="sample_tokens: expected a whole number from 40 to"):
        autopsae.diagnose_model(Words(), TEXTS, tokens=1500, sample_tokens=39, **SMALL)  # type: ignore[arg-type]
