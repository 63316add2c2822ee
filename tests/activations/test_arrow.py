"""Activations cached as Hugging Face datasets, with the columns that SAELens' CacheActivationsRunner writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.activations.formats.arrow import SPLITS, STATE
from autopsae.activations.spread import spread
from autopsae.activations.store import open_activations, open_layers
from autopsae.arrays import CHUNK_TOKENS, InputError

CONTEXT, D_IN, CONTEXTS = 12, 6, 700
X = torch.randn(CONTEXTS, CONTEXT, D_IN, generator=torch.Generator().manual_seed(0))


def cached(
    folder: Path, *, dtype: str = "float32", columns: tuple[str, ...] = ("blocks.3.hook_resid_post",)
) -> Path:
    datasets: Any = pytest.importorskip("datasets")
    features: dict[str, Any] = {name: datasets.Array2D(shape=(CONTEXT, D_IN), dtype=dtype) for name in columns}
    features["token_ids"] = datasets.Sequence(datasets.Value(dtype="int32"), length=CONTEXT)
    content = {name: (X + place).numpy().astype(dtype) for place, name in enumerate(columns)}
    content["token_ids"] = torch.zeros(CONTEXTS, CONTEXT, dtype=torch.int32).numpy()
    datasets.Dataset.from_dict(content, features=datasets.Features(features)).save_to_disk(str(folder))
    return folder


def test_a_cache_is_read_as_it_is_in_every_context(tmp_path: Path) -> None:
    tokens = open_activations(cached(tmp_path / "cache"))
    assert (tokens.layer, tokens.tokens, tokens.d_in) == ("blocks.3.hook_resid_post", CONTEXTS * CONTEXT, D_IN)
    assert tokens.dtype == torch.float32
    assert tokens.tokens > CHUNK_TOKENS  # so that a batch begins inside a context
    for _ in range(2):
        assert torch.equal(torch.cat(list(tokens)), X.reshape(-1, D_IN))
    places = spread(0, tokens.tokens, chosen=70, of=tokens.tokens)
    assert torch.equal(torch.cat(list(tokens.take(70))), X.reshape(-1, D_IN)[places])


@pytest.mark.parametrize(("dtype", "expected"), [("float16", torch.float16), ("float64", torch.float64)])
def test_every_column_of_matrices_is_a_layer(tmp_path: Path, dtype: str, expected: torch.dtype) -> None:
    layers = open_layers(cached(tmp_path / "cache", dtype=dtype, columns=("a", "b")))
    assert list(layers) == ["a", "b"]
    assert next(iter(layers["b"])).dtype == expected
    first = torch.cat(list(layers["b"])).double()
    torch.testing.assert_close(first, X.reshape(-1, D_IN).double() + 1, rtol=1e-2, atol=1e-2)


def test_a_dataset_without_matrices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a column of \[context, d_in\] matrices"):
        open_layers(cached(tmp_path / "cache", columns=()))


def test_contexts_of_different_lengths_are_refused(tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    features = datasets.Features({"a": datasets.Array2D(shape=(None, D_IN), dtype="float32")})
    made = datasets.Dataset.from_dict({"a": [X[0, :3].tolist(), X[1, :5].tolist()]}, features=features)
    made.save_to_disk(str(tmp_path / "cache"))
    with pytest.raises(InputError, match="matrices of one size"):
        open_layers(tmp_path / "cache")


def test_a_damaged_dataset_is_refused(tmp_path: Path) -> None:
    folder = cached(tmp_path / "cache")
    [file] = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="expected a readable Hugging Face dataset"):
        open_layers(folder)


def test_the_splits_of_a_dataset_dict_are_named(tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    split = datasets.load_from_disk(str(cached(tmp_path / "one")))
    datasets.DatasetDict(train=split, test=split).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(InputError, match=r"holds 2 splits \(train, test\); give one of them, as .*/both/train"):
        open_layers(tmp_path / "both")
    assert torch.equal(torch.cat(list(open_activations(tmp_path / "both" / "test"))), X.reshape(-1, D_IN))


@pytest.mark.parametrize("name", ["../one/data-00000-of-00001.arrow", "/etc/passwd", "", 3])
def test_a_dataset_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: object) -> None:
    cached(tmp_path / "one")
    folder = cached(tmp_path / "two")
    state = json.loads((folder / STATE).read_text())
    (folder / STATE).write_text(json.dumps(state | {"_data_files": [{"filename": name}]}))
    with pytest.raises(InputError, match="an index must not lead out of its folder"):
        open_layers(folder)
    (folder / SPLITS).write_text(json.dumps({"splits": ["../one"]}))
    (folder / STATE).unlink()
    with pytest.raises(InputError, match="an index must not lead out of its folder"):
        open_layers(folder)


def test_numbers_told_of_each_context_are_no_layer_beside_matrices(tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    content = {"hs": list(X[:9].numpy()), "loss": list(X[:9, :, 0].numpy()), "text": ["a"] * 9}
    datasets.Dataset.from_dict(content).save_to_disk(str(tmp_path / "cache"))
    assert [*open_layers(tmp_path / "cache")] == ["hs"]


def test_contexts_in_batches_are_read_in_order(tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"hs": list(X.reshape(70, 10, CONTEXT, D_IN).numpy())}).save_to_disk(
        str(tmp_path / "cache")
    )
    layer = open_activations(tmp_path / "cache")
    assert torch.equal(torch.cat(list(layer)), X.reshape(-1, D_IN))


@pytest.mark.parametrize("missing", [[None], [[[1.0], [None]]]])
def test_numbers_that_are_missing_are_refused(tmp_path: Path, missing: list[Any]) -> None:
    datasets: Any = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"hs": [[[1.0], [2.0]], *missing]}).save_to_disk(str(tmp_path / "cache"))
    with pytest.raises(InputError, match="expected a readable Hugging Face dataset"):
        torch.cat(list(open_activations(tmp_path / "cache")))
