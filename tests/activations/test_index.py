"""Laws of a harvested folder's index: what it says is compared with what lies there, and it leads nowhere else."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from autopsae.activations.index import BLOCK, INDEX, digest, with_checksum
from autopsae.activations.shards import ShardWriter
from autopsae.activations.store import open_activations, open_layers
from autopsae.arrays import InputError
from autopsae.reading import MOST_JSON

X = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)) + 1


def harvest(folder: Path, batches: int = 4) -> Path:
    writer = ShardWriter(folder, request={}, shard_tokens=150)
    for number in range(writer.batches_done, batches):
        writer.add({"hs0": X[number * 100 :][:100]}, {"id": torch.arange(100)})
    if batches == 4:
        writer.finish()
    return folder


def read(folder: Path) -> torch.Tensor:
    return torch.cat(list(open_activations(folder)))


def change_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Another index under a checksum that is right."""
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(with_checksum(index)))


def of_version_1(index: dict[str, Any]) -> None:
    index["version"] = 1
    for shard in index["shards"]:
        del shard["digest"], shard["header"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    save_file({"hs0": X[:200] + 7, "token.id": torch.arange(200)}, tmp_path / "elsewhere" / "a.safetensors")
    return harvest(tmp_path / "h")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "name", ["../elsewhere/a.safetensors", "{}/elsewhere/a.safetensors", "..", ".", "", "a\0b", 3]
)
def test_an_index_names_files_in_its_folder_alone(folder: Path, version: int, name: object) -> None:
    outside = name.format(folder.parent) if isinstance(name, str) else name
    change_index(folder, lambda index: index["shards"][0].update(file=outside))
    if version == 1:
        change_index(folder, of_version_1)
    for reader in (open_layers, lambda path: ShardWriter(path, request={})):
        with pytest.raises(InputError, match="an index must not lead out of its folder") as caught:
            reader(folder)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(shards=index["shards"][:1] * 2), "names shard-00000.safetensors twice"),
        (lambda index: index.update(shards=index["shards"][:1]), "says 400 tokens, its shards have 200"),
        (lambda index: index.update(tokens=500), "says 500 tokens, its shards have 400"),
        (
            lambda index: index.update(tokens=-1),
            "tokens: expected a whole number from 0 to 9,0",
        ),
        (
            lambda index: index["shards"][0].update(tokens=True),
            "tokens: expected a whole number from 0 to 9,0",
        ),
        (lambda index: index.update(shards="x"), "expected a list of shards, got str"),
        (lambda index: index.update(shards=[3]), "a shard: expected a JSON object, got 3"),
        (lambda index: index["layers"]["hs0"].update(d_in=9), "expected the layers of the index, .*'d_in': 9"),
        (
            lambda index: index["layers"]["hs0"].update(dtype="float16"),
            "expected the layers of the index, .*float16",
        ),
        (
            lambda index: index["layers"].update(hs1={"d_in": 8, "dtype": "float32"}),
            "expected the layers of the index",
        ),
        (lambda index: index["layers"].clear(), "expected the layers of the index, {}, got .*hs0"),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(
    folder: Path, version: int, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    if version == 1:
        change_index(folder, of_version_1)
    change_index(folder, change)
    with pytest.raises(InputError, match=message):
        open_layers(folder)


def test_shards_that_exchange_their_sizes_are_refused(folder: Path) -> None:
    # The sum stays what it was.
    def exchange(index: dict[str, Any]) -> None:
        index["shards"][0]["tokens"], index["shards"][1]["tokens"] = 150, 250
        of_version_1(index)

    change_index(folder, exchange)
    with pytest.raises(
        InputError, match=r"shard-00000.safetensors: expected 150 tokens as the index says, got 200"
    ):
        open_layers(folder)


def replace_shard(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "shard-00001.safetensors"
    changed = {name: tensor.contiguous().clone() for name, tensor in change(load_file(path)).items()}
    save_file(changed, path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_shard_that_was_cut_is_refused(folder: Path, version: int) -> None:
    replace_shard(folder, lambda held: {name: tensor[:50] for name, tensor in held.items()})
    if version == 1:
        change_index(folder, of_version_1)
    with pytest.raises(InputError, match=r"shard-00001.safetensors: expected 200 tokens as the index says, got 50"):
        open_layers(folder)


def test_a_shard_of_other_values_is_refused(folder: Path) -> None:
    replace_shard(folder, lambda held: {"hs0": held["hs0"] + 1, "token.id": held["token.id"]})
    for reader in (open_layers, lambda path: ShardWriter(path, request={})):
        with pytest.raises(InputError, match=r"shard-00001.safetensors: not the shard that was harvested"):
            reader(folder)


def test_shards_that_changed_places_are_refused(folder: Path) -> None:
    first, second = folder / "shard-00000.safetensors", folder / "shard-00001.safetensors"
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)
    with pytest.raises(InputError, match="not the shard that was harvested"):
        open_layers(folder)


def test_the_digest_sees_every_layer_of_a_large_shard_in_a_few_reads(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    layers = {f"hs{i}": torch.randn(300, 64, generator=torch.Generator().manual_seed(i)) for i in range(12)}
    save_file(layers, path)
    whole = digest(path)
    assert path.stat().st_size > 12 * 10 * BLOCK
    for name in layers:
        save_file(layers | {name: layers[name] + 1}, path)
        assert digest(path) != whole, name
    save_file(layers, path)
    assert digest(path) == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(batches_done=2),
        lambda index: index.update(complete=False),
        lambda index: index["request"].update(tokens=5),
        lambda index: index.update(more=1),
    ],
)
def test_an_index_that_was_changed_is_refused_and_does_not_go_on(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    held = json.loads((folder / INDEX).read_text())
    change(held)
    (folder / INDEX).write_text(json.dumps(held))
    message = "index.json: expected what was harvested, got other content than its checksum says"
    with pytest.raises(InputError, match=message):
        read(folder)
    with pytest.raises(InputError, match=message):
        ShardWriter(folder, request={})


def test_an_index_of_the_first_version_is_read_and_left_as_it_is(folder: Path) -> None:
    change_index(folder, of_version_1)
    before = (folder / INDEX).read_bytes()
    assert torch.equal(read(folder), X)
    assert ShardWriter(folder, request={}).complete
    assert (folder / INDEX).read_bytes() == before


def test_a_harvest_begun_by_the_first_version_goes_on_and_gets_digests(tmp_path: Path, folder: Path) -> None:
    begun = harvest(tmp_path / "begun", batches=3)
    change_index(begun, of_version_1)
    harvest(begun)
    assert (begun / INDEX).read_bytes() == (folder / INDEX).read_bytes()
    assert torch.equal(read(begun), X)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "expected an index of autopsae-activations, could not read it (over 32 levels"),
        (
            b'{"tokens": ' + b"9" * 10_000 + b"}",
            "autopsae-activations, could not read it (Exceeds",
        ),
        (b" " * (MOST_JSON + 1), "could not read it (over 33,554,432 bytes)"),
        (b"\xff\xfe", "expected an index of autopsae-activations, could not read it (UnicodeDecodeError"),
        (b'{"format": "\\u001b[2J\\nforged"}', "expected format 'autopsae-activations', got '\\x1b[2J\\nforged'"),
    ],
)
def test_a_hostile_index_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        open_layers(tmp_path)
    assert str(caught.value).isprintable()


def test_an_index_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX).mkdir()
    with pytest.raises(InputError, match="expected an index of autopsae-activations, could not read it"):
        open_layers(tmp_path)


def test_a_shard_that_is_a_link_to_one_elsewhere_is_read(tmp_path: Path, folder: Path) -> None:
    shutil.move(folder / "shard-00000.safetensors", tmp_path / "moved")
    (folder / "shard-00000.safetensors").symlink_to(tmp_path / "moved")
    assert torch.equal(read(folder), X)
