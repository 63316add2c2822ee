"""Which document each token is from, as the files tell."""

from pathlib import Path

import numpy as np
import pytest
import torch

import autopsae
from autopsae.activations import open_activations, open_layers
from autopsae.passes import same_passes, source_documents
from tests.models.words import Words

pytestmark = pytest.mark.quick

TEXTS = ["the first text", "another", "and the third one of them all"]


def test_a_harvest_tells_the_document_of_each_token_over_all_its_shards(tmp_path: Path) -> None:
    words = Words()
    batches = [{**words.batch([text], 40), "token.document": torch.tensor([n])} for n, text in enumerate(TEXTS)]
    autopsae.harvest(words.model, batches, tmp_path, points=["linear"], shard_tokens=10)
    expected = np.repeat([0, 1, 2], [len(text) for text in TEXTS])
    layer = open_layers(tmp_path)["linear"]
    assert len(layer.parts) > 1
    assert layer.documents is not None
    assert layer.documents.tolist() == expected.tolist()
    some = layer.take(17)
    rows = torch.cat([*layer])
    for number, token in zip(some.documents, torch.cat([*some]), strict=True):  # type: ignore[arg-type]
        assert number in expected[(rows == token).all(dim=1).numpy()]
    assert source_documents(same_passes(some)).tolist() == some.documents.tolist()  # type: ignore[union-attr]


def test_the_sequences_of_an_array_are_its_documents_and_rows_tell_of_none(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 7, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    documents = open_activations(tmp_path / "x.npy").documents
    assert documents is not None
    assert documents.tolist() == np.repeat(range(5), 7).tolist()
    np.save(tmp_path / "rows.npy", x.reshape(35, 4))
    assert open_activations(tmp_path / "rows.npy").documents is None
    assert source_documents(x.reshape(35, 4)) is None


def test_a_diagnosis_of_a_store_takes_the_documents_that_it_tells(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    each = chance.normal(size=(60, 1, 16)) + 0.3 * chance.normal(size=(60, 20, 16)) + 1
    np.save(tmp_path / "x.npy", each.astype(np.float32))
    stored = autopsae.diagnose(open_activations(tmp_path / "x.npy"), d_sae=64, k=4)
    told = autopsae.diagnose(
        torch.from_numpy(each.astype(np.float32)).flatten(0, 1), d_sae=64, k=4, documents=np.repeat(range(60), 20)
    )
    assert stored.severity.gamma_interval == told.severity.gamma_interval
    guessed = autopsae.diagnose(torch.from_numpy(each.astype(np.float32)).flatten(0, 1), d_sae=64, k=4)
    assert stored.severity.gamma_interval != guessed.severity.gamma_interval
