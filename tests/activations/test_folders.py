"""Which files of a folder are shards of a layer, and which a layer each; what others' indices say is compared."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autopsae.activations.store import open_activations, open_layers
from autopsae.arrays import InputError
from tests.activations import layouts
from tests.activations.layouts import X


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        open_layers(path)
    assert str(caught.value).isprintable()


def layers_of(folder: Path, names: list[str]) -> dict[str, list[int]]:
    """Layer -> the numbers of the files that it is made of."""
    for number, name in enumerate(names):
        np.save(folder / f"{name}.npy", np.full((2, 3), number, dtype=np.float32))
    return {name: torch.cat(list(layer))[::2, 0].int().tolist() for name, layer in open_layers(folder).items()}


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (["hs0", "hs1", "hs10", "hs2"], {"hs0": [0], "hs1": [1], "hs2": [3], "hs10": [2]}),
        (["layer_3", "layer-4", "blocks.5"], {"blocks.5": [2], "layer-4": [1], "layer_3": [0]}),
        (["a", "b"], {"a": [0], "b": [1]}),
        (["shard-0", "shard-1", "shard-10", "shard-2"], {"acts": [0, 1, 3, 2]}),
        (["00000", "00001"], {"acts": [0, 1]}),
        (["hs3-shard-0", "hs3-shard-1", "hs4-shard-0"], {"hs3": [0, 1], "hs4": [2]}),
        (["hs3_part1", "hs3_part0", "hs4.chunk.7"], {"hs3": [1, 0], "hs4": [2]}),
        (["layer_3_batch_12", "layer_3_batch_9"], {"layer_3": [1, 0]}),
        (["hs3-00001-of-00002", "hs3-00002-of-00002"], {"hs3": [0, 1]}),
        (["department3", "batchnorm_3"], {"batchnorm_3": [1], "department3": [0]}),
    ],
)
def test_a_file_is_a_layer_unless_its_name_says_shard(
    tmp_path: Path, names: list[str], layers: dict[str, list[int]]
) -> None:
    folder = tmp_path / "acts"
    folder.mkdir()
    assert layers_of(folder, names) == layers


def test_a_shard_that_its_names_count_and_that_is_not_there_is_missed(tmp_path: Path) -> None:
    for name in ("x-00001-of-00003", "x-00003-of-00003"):
        np.save(tmp_path / f"{name}.npy", X.numpy())
    refused(tmp_path, "expected 3 shards, as x-00001-of-00003.npy says, got 2; give the folder with all of them")
    refused(tmp_path / "x-00001-of-00003.npy", "expected 3 shards")


def test_shards_of_different_widths_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", X.numpy())
    np.save(tmp_path / "1.npy", X[:, :5].numpy())
    refused(tmp_path, "1.npy: expected layer")


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X.numpy())
    save_file({"x": X}, tmp_path / "b.safetensors")
    refused(tmp_path, "expected files of one kind, got a.npy, b.safetensors; give one of them")


def test_hidden_files_and_labels_are_no_shards(tmp_path: Path) -> None:
    save_file({"x": X}, tmp_path / "0.safetensors")
    for hidden in ("._0.safetensors", ".0.safetensors.partial", ".ds.npy", "._a.npy"):
        (tmp_path / hidden).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    np.save(tmp_path / "lengths.npy", np.arange(10))
    np.save(tmp_path / "mask.npy", np.zeros(len(X), dtype=bool))
    save_file({"ids": torch.arange(10)}, tmp_path / "labels.safetensors")
    (tmp_path / "README.md").write_text("mine")
    assert torch.equal(torch.cat(list(open_activations(tmp_path))), X)


def test_files_named_as_layers_that_hold_one_name_are_not_joined(tmp_path: Path) -> None:
    for number in (3, 4):
        save_file({"acts": X + number}, tmp_path / f"layer_{number}.safetensors")
    refused(tmp_path, "layer_3.safetensors, layer_4.safetensors are named as several layers")


def test_both_suffixes_of_pytorch_are_one_kind(tmp_path: Path) -> None:
    torch.save(X, tmp_path / "hs0.pt")
    torch.save(X + 1, tmp_path / "hs1.pth")
    assert [*open_layers(tmp_path)] == ["hs0", "hs1"]


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# Shards of saev.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(protocol="3.0"), "of saev with protocol 2.1 in float32, got '3.0'"),
        (lambda about: about.update(dtype="float16"), "in 'float16'; save the layers as .npy"),
        (lambda about: about.update(layers=[3, "3"]), "expected layers, each once, got [3, '3']"),
        (
            lambda about: about.update(layers=[3]),
            "acts000000.bin: expected 14,400 bytes for 15 examples, got 28,800",
        ),
        (lambda about: about.update(d_model=8), "acts000000.bin: expected 14,400 bytes"),
        (lambda about: about.update(cls_token=False), "acts000000.bin: expected 26,880 bytes"),
        (lambda about: about.update(n_examples=41), "expected 41 examples in shards named once each"),
        (
            lambda about: about.update(n_examples=None),
            "n_examples: expected a whole number from 0 to 9,007,199,254,740,992, got None",
        ),
    ],
)
def test_metadata_of_saev_that_disagree_with_the_shards_are_refused(
    tmp_path: Path, change: Callable[[Any], object], message: str
) -> None:
    change_json(layouts.saev(tmp_path) / "metadata.json", change)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shards: shards.pop(), "got 30 in 2; is a shard missing, or listed twice?"),
        (lambda shards: shards.__setitem__(1, shards[0]), "in shards named once each"),
        (lambda shards: shards[0].update(name="../acts000000.bin"), "an index must not lead out of its folder"),
        (lambda shards: shards[0].update(name="acts000009.bin"), "no such file or folder"),
    ],
)
def test_a_list_of_saev_s_shards_is_compared_with_them(
    tmp_path: Path, change: Callable[[Any], object], message: str
) -> None:
    change_json(layouts.saev(tmp_path) / "shards.json", change)
    refused(tmp_path, message)


def test_every_layer_of_saev_is_read_under_its_number(tmp_path: Path) -> None:
    layers = open_layers(layouts.saev(tmp_path))
    assert [*layers] == ["3", "x"]
    assert torch.equal(torch.cat(list(layers["3"])), X + 1)
    assert torch.equal(torch.cat(list(open_activations(tmp_path, "3"))), X + 1)


# BioNeMo's store.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(n_samples=601), "expected 601 tokens as metadata.json says, got 600"),
        (lambda about: about.update(n_shards=2), "expected 2 shards as metadata.json says, got 3; is one missing?"),
        (lambda about: about.update(hidden_dim=15), "one column of lists of 15 floats, or 15 columns of floats"),
    ],
)
@pytest.mark.parametrize("how", ["lists", "columns"])
def test_metadata_of_bionemo_that_disagree_with_the_shards_are_refused(
    tmp_path: Path, change: Callable[[Any], object], message: str, how: str
) -> None:
    change_json(layouts.bionemo(tmp_path, how) / "metadata.json", change)
    refused(tmp_path, message)


def test_lists_of_several_lengths_in_parquet_are_refused(tmp_path: Path) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    for rows in ([[1.0, 2.0], [3.0]], [[1.0, 2.0], None], [[1.0, 2.0], [3.0, None]]):
        parquet.write_table(pyarrow.table({"x": rows}), tmp_path / "x.parquet")
        with pytest.raises(InputError, match="expected a readable"):
            list(open_activations(tmp_path / "x.parquet"))
    parquet.write_table(pyarrow.table({"text": ["a"], "score": [1.0]}), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "expected a column of lists of floats, got text string, score double")
