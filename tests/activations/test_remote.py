"""Activations at URLs: the tokens of local files, of which only what a layer needs is fetched, checked."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from autopsae import mirror, urls
from autopsae.activations.index import digest, with_checksum
from autopsae.activations.places import open_shards
from autopsae.activations.shards import HarvestInterrupted, ShardWriter
from autopsae.activations.store import open_activations, open_layers
from autopsae.arrays import InputError
from tests.activations.layouts import LAYOUTS
from tests.stores import KEYS, Fault, Server, fill_memory, s3_server

LAYERS = {"hs0": 24, "hs1": 8}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(urls, "PAUSE", 0.0)
    fsspec.filesystem("memory").store.clear()
    mirror._folder_of.cache_clear()
    yield
    mirror._folder().close()
    mirror._folder_of.cache_clear()


@pytest.fixture(scope="module")
def s3(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as address:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        yield "s3://bucket"


def batches(count: int = 6) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{name: torch.randn(50, d, generator=generator) for name, d in LAYERS.items()} for _ in range(count)]


def write_store(folder: str | Path, count: int = 6, *, first: int = 0) -> ShardWriter:
    """A store of three shards of two batches each."""
    writer = ShardWriter(folder, request={"of": "the test"}, shard_tokens=100)
    for number, batch in enumerate(batches(count)):
        if number >= max(first, writer.batches_done):
            writer.add(batch, {"document": torch.arange(50) // 10 + 5 * number})
    return writer


def tokens_of(layer: str, count: int = 6) -> Tensor:
    return torch.cat([batch[layer] for batch in batches(count)])


@pytest.mark.parametrize("store", ["memory://store", "s3"])
def test_a_store_at_a_url_is_that_of_a_folder(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"{request.getfixturevalue('s3')}/inner/store" if store == "s3" else store
    write_store(url).finish()
    write_store(tmp_path / "store").finish()
    far, near = open_layers(url), open_layers(tmp_path / "store")
    assert [str(layer) for layer in far.values()] == [str(layer) for layer in near.values()]
    for name in LAYERS:
        assert torch.equal(torch.cat([*far[name]]), tokens_of(name))
        assert torch.equal(torch.cat([*far[name].take(37)]), torch.cat([*near[name].take(37)]))
        assert np.array_equal(far[name].documents, near[name].documents)  # type: ignore[arg-type]
    system, path = fsspec.core.url_to_fs(url)
    for file in (tmp_path / "store").iterdir():
        assert system.cat_file(f"{path}/{file.name}") == file.read_bytes(), file.name


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_is_read_at_a_url(write: Callable[[Path], Path], tmp_path: Path) -> None:
    near = tmp_path / "layout"
    near.mkdir()
    path = write(near)
    fill_memory(tmp_path, "memory://all")
    far = open_layers(f"memory://all/{path.relative_to(tmp_path)}")
    local = open_layers(path)
    assert [*far] == [*local]
    for layer, activations in local.items():
        assert str(far[layer]) == str(activations)
        assert torch.equal(torch.cat([*far[layer]]), torch.cat([*activations]))


def test_shards_at_a_url_cover_what_those_of_a_folder_do(tmp_path: Path) -> None:
    write_store("memory://store").finish()
    write_store(tmp_path / "store").finish()
    names = ["shard-00002.safetensors", "shard-00000.safetensors"]
    far, opened = open_shards([f"memory://store/{name}" for name in names])
    near, _ = open_shards([tmp_path / "store" / name for name in names])
    assert far == near
    assert open_shards(["memory://store"])[0] == open_shards([tmp_path / "store"])[0]
    assert torch.equal(torch.cat([*opened[1].layers["hs0"]]), tokens_of("hs0")[200:])
    np.save(tmp_path / "store" / "loose.npy", tokens_of("hs1").numpy())
    fill_memory(tmp_path / "store", "memory://loose")
    far, _ = open_shards(["memory://loose/loose.npy"], start=7)
    near, _ = open_shards([tmp_path / "store" / "loose.npy"], start=7)
    assert far == near


def test_of_a_shard_only_the_layer_that_is_read_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopsae.activations.remote.HEAD", 0)
    write_store(tmp_path).finish()
    with Server(tmp_path, lambda *_: None) as server:
        layer = open_layers(server.url)["hs1"]
        assert {name for name, _ in server.asked} == {"index.json", "shard-00000.safetensors"}
        assert torch.equal(torch.cat([*layer]), tokens_of("hs1"))
        asked = [told for name, told in server.asked if name == "shard-00001.safetensors"]
    lengths = [int(last) - int(first) + 1 for first, last in (told[6:].split("-") for told in asked)]
    assert sorted(lengths)[:1] == [8]
    assert 100 * 8 * 4 in lengths  # the layer
    assert 100 * 24 * 4 not in lengths


def test_the_next_shard_is_fetched_while_one_is_read(tmp_path: Path) -> None:
    write_store(tmp_path).finish()
    came = threading.Event()

    def ask(name: str, _: str) -> None:
        if name == "shard-00001.safetensors":
            came.set()

    with Server(tmp_path, ask) as server:
        batches_of_layer = iter(open_layers(server.url)["hs0"])
        next(batches_of_layer)
        assert came.wait(30)  # though nothing of it was asked for


def test_damaged_bytes_are_told_and_the_true_ones_read_then() -> None:
    write_store("memory://store").finish()
    store = fsspec.filesystem("memory")
    whole = store.cat_file("/store/shard-00001.safetensors")
    opened = open_layers("memory://store")["hs0"]
    begin = whole.index(batches()[2]["hs0"].numpy().tobytes()[:16])
    store.pipe(
        "/store/shard-00001.safetensors", whole[: begin + 5] + bytes([whole[begin + 5] ^ 1]) + whole[begin + 6 :]
    )
    message = (
        r"^memory://store/shard-00001\.safetensors: hs0: expected what was harvested, got other bytes than the"
    )
    with pytest.raises(InputError, match=message):
        torch.cat([*opened])
    assert torch.equal(torch.cat([*open_layers("memory://store")["hs1"]]), tokens_of("hs1"))
    store.pipe("/store/shard-00001.safetensors", whole)
    assert torch.equal(torch.cat([*opened]), tokens_of("hs0"))


def test_a_shard_of_another_harvest_is_told() -> None:
    write_store("memory://store").finish()
    store = fsspec.filesystem("memory")
    opened = open_layers("memory://store")["hs0"]
    store.pipe("/store/shard-00001.safetensors", store.cat_file("/store/shard-00002.safetensors"))
    message = r"^memory://store/shard-00001\.safetensors: not the shard that was harvested \(its header differs"
    with pytest.raises(InputError, match=message):
        torch.cat([*opened])
    store.rm("/store/shard-00001.safetensors")
    message = r"^memory://store/shard-00001\.safetensors: expected a file .* \(there is no such file\)"
    with pytest.raises(InputError, match=message):
        torch.cat([*open_layers("memory://store")["hs0"]])


def test_a_store_without_checksums_of_its_tensors_is_compared_with_its_digests(tmp_path: Path) -> None:
    write_store(tmp_path).finish()
    index = json.loads((tmp_path / "index.json").read_text())
    for shard in index["shards"]:
        path = tmp_path / shard["file"]
        save_file(load_file(path), path)
        del shard["header"]
        shard["digest"] = digest(path)
    (tmp_path / "index.json").write_text(json.dumps(with_checksum(index)))
    fill_memory(tmp_path, "memory://store")
    store = fsspec.filesystem("memory")
    assert torch.equal(torch.cat([*open_layers("memory://store")["hs0"]]), tokens_of("hs0"))
    whole = store.cat_file("/store/shard-00001.safetensors")
    store.pipe("/store/shard-00001.safetensors", whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"shard-00001\.safetensors: not the shard .* \(its digest differs"):
        torch.cat([*open_layers("memory://store")["hs0"]])


def test_a_store_of_the_first_version_is_read() -> None:
    write_store("memory://store").finish()
    store = fsspec.filesystem("memory")
    index = json.loads(store.cat_file("/store/index.json"))
    first = {"format": index["format"], "shards": [{"file": shard["file"]} for shard in index["shards"]]}
    store.pipe("/store/index.json", json.dumps(first).encode())
    assert torch.equal(torch.cat([*open_layers("memory://store")["hs0"]]), tokens_of("hs0"))
    assert open_shards(["memory://store"])[0].tokens == 300


def test_a_harvest_at_a_url_goes_on_where_a_full_store_ended_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    put, shards = MemoryFileSystem.put_file, list[str]()

    def fill(self: MemoryFileSystem, local: str, path: str, **named: object) -> None:
        shards.append(path)
        if "shard-00001" in path:
            raise OSError(28, "No space left on device")
        put(self, local, path, **named)

    monkeypatch.setattr(MemoryFileSystem, "put_file", fill)
    message = (
        r"^memory://store/shard-00001\.safetensors: the store is full .* 100 tokens are safe; .* goes on from there"
    )
    with pytest.raises(HarvestInterrupted, match=message):
        write_store("memory://store")
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"^memory://store: the harvest is not finished \(100 tokens so far\)"):
        open_layers("memory://store")
    assert ShardWriter("memory://store", request={"of": "the test"}, shard_tokens=100).batches_done == 2
    write_store("memory://store").finish()
    assert torch.equal(torch.cat([*open_layers("memory://store")["hs0"]]), tokens_of("hs0"))
    with pytest.raises(InputError, match="holds a harvest with another request"):
        ShardWriter("memory://store", request={"of": "another"})
    fsspec.filesystem("memory").rm("/store/shard-00001.safetensors")
    with pytest.raises(InputError, match=r"the index names shard-00001\.safetensors, which is gone"):
        ShardWriter("memory://store", request={"of": "the test"})


@pytest.mark.parametrize("how", ["500", "cut", "stall"])
def test_a_source_that_fails_half_way_is_told_and_read_on(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPSAE_TIMEOUT", "0.3")
    write_store(tmp_path).finish()
    fails = threading.Event()
    fails.set()

    def ask(name: str, _: str) -> None:
        if name == "shard-00002.safetensors" and fails.is_set():
            raise Fault(how)

    with Server(tmp_path, ask) as server:
        layer = open_layers(server.url)["hs0"]
        with pytest.raises(
            InputError, match=r"shard-00002\.safetensors: expected the store to answer, tried 3 "
        ) as told:
            torch.cat([*layer])
        assert "\n" not in str(told.value)
        fails.clear()
        monkeypatch.setenv("AUTOPSAE_TIMEOUT", "30")
        server.asked.clear()
        assert torch.equal(torch.cat([*layer]), tokens_of("hs0"))
        assert {name for name, _ in server.asked} == {"shard-00002.safetensors"}  # the others were there


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.npy", "b.npz"], r"^memory://odd: expected files of one kind, got a\.npy, b\.npz"),
        (["a.txt"], r"^memory://odd: expected \.npy, .* files, found none among a\.txt"),
        ([], r"^memory://odd: expected a file or a folder that can be used \(there is no such file\)"),
    ],
)
def test_a_folder_that_cannot_be_read_is_told_by_its_url(files: list[str], message: str, tmp_path: Path) -> None:
    x = np.ones((4, 3), dtype=np.float32)
    for file in files:
        {"npy": np.save, "npz": np.savez}.get(file[2:], lambda path, _: path.write_text("a"))(tmp_path / file, x)
    fill_memory(tmp_path, "memory://odd")
    with pytest.raises(InputError, match=message):
        open_layers("memory://odd")


def test_a_damaged_file_is_told_by_its_url_and_a_mask_may_lie_at_one(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 3), dtype=np.float32))
    np.save(tmp_path / "mask.npy", np.array([True, False, True, True]))
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    fill_memory(tmp_path, "memory://files")
    with pytest.raises(InputError, match=r"^memory://files/b\.npy: expected a readable \.npy matrix"):
        open_activations("memory://files/b.npy")
    assert open_activations(Path("memory://files/a.npy"), mask="memory://files/mask.npy").tokens == 3
