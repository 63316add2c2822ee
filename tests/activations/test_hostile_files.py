"""Whatever a file of activations may be: it is read as it is, or refused in one clear line."""

import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

import autopsae
from autopsae.activations.names import layer_name, natural
from autopsae.activations.store import open_activations, open_layers
from autopsae.arrays import InputError
from autopsae.words import printable
from tests.activations.layouts import (
    BATCHED,
    LAYOUTS,
    TOKENS,
    X,
    bionemo,
    bionemo_columns,
    dataset,
    parquet_folder,
    saev,
    safetensors_file,
)


def read_all(path: Path) -> list[torch.Tensor]:
    return [torch.cat(list(layer)) for layer in open_layers(path).values()]


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_all(path)
    assert str(caught.value).isprintable()


def read_or_refused(path: Path) -> list[torch.Tensor]:
    """What is read, nothing where that is refused in one line."""
    with suppress(InputError):
        return read_all(path)
    return []


def npy(path: Path, array: Any, **options: Any) -> Path:
    np.save(path, array, **options)
    return path


# Types.


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
def test_both_byte_orders_are_read(tmp_path: Path, dtype: str) -> None:
    layer = open_activations(npy(tmp_path / "x.npy", X.numpy().astype(dtype)))
    expected = torch.from_numpy(X.numpy().astype(dtype).astype(np.dtype(dtype).newbyteorder("=")))
    assert layer.dtype == expected.dtype
    assert torch.equal(torch.cat(list(layer)), expected)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize(("order", "other"), [(b"<", b">"), (b">", b"<")])
def test_a_byte_order_that_the_values_contradict_is_refused(
    tmp_path: Path, dtype: str, order: bytes, other: bytes
) -> None:
    path = npy(tmp_path / "x.npy", (X.double() * np.pi).numpy().astype(order.decode() + dtype))
    path.write_bytes(path.read_bytes().replace(b"'" + order, b"'" + other, 1))
    refused(path, "got some that make sense in the other order alone")


@pytest.mark.parametrize("values", [np.zeros((9, 4)), np.ones((9, 4)), np.logspace(-300, 300, 400).reshape(100, 4)])
@pytest.mark.parametrize("order", ["<f8", ">f8"])
def test_values_of_any_size_are_read_in_their_byte_order(tmp_path: Path, values: Any, order: str) -> None:
    layer = open_activations(npy(tmp_path / "x.npy", values.astype(order)))
    assert torch.equal(torch.cat(list(layer)), torch.from_numpy(values))


def test_bfloat16_is_read_from_numpy_and_safetensors(tmp_path: Path) -> None:
    half = X.bfloat16()
    two_bytes = half.view(torch.int16).numpy().view("V2")  # as ml_dtypes and JAX write it
    npy(tmp_path / "x.npy", two_bytes)
    np.savez(tmp_path / "x.npz", x=two_bytes)
    save_file({"x": half}, tmp_path / "x.safetensors")
    torch.save(half, tmp_path / "x.pt")
    for suffix in ("npy", "npz", "safetensors", "pt"):
        layer = open_activations(tmp_path / f"x.{suffix}")
        assert layer.dtype == torch.bfloat16
        assert torch.equal(torch.cat(list(layer)), half), suffix


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_widened_value_by_value(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"x": X.to(dtype)}, tmp_path / "x.safetensors")
    torch.save(X.to(dtype), tmp_path / "x.pt")
    for suffix in ("safetensors", "pt"):
        layer = open_activations(tmp_path / f"x.{suffix}")
        assert layer.dtype == torch.float32
        assert torch.equal(torch.cat(list(layer)), X.to(dtype).float())


def test_not_a_number_in_float8_is_told_as_usual(tmp_path: Path) -> None:
    x = X.clone()
    x[7, 3] = float("nan")
    save_file({"x": x.to(torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"NaN or infinite values in 1 of 600 tokens, the first at token 7"):
        autopsae.diagnose(open_activations(tmp_path / "x.safetensors"), d_sae=32, k=4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 2), complex), "got shape (4, 2) of complex128"),
        (np.zeros((4, 2), int), "got shape (4, 2) of int64"),
        (np.zeros((4, 2), bool), "got shape (4, 2) of bool"),
        (np.zeros((4, 2), "f4,f4"), "got shape (4, 2) of structured rows"),
        (np.zeros((4, 2), "V3"), "got shape (4, 2) of structured rows"),
        (np.zeros((4, 2), "S3"), "got shape (4, 2) of bytes"),
        (np.zeros((4, 2), "U3"), "got shape (4, 2) of text"),
        (np.zeros((4, 2), "M8[s]"), "got shape (4, 2) of dates"),
        (np.zeros((4, 2), "longdouble"), "got shape (4, 2) of float128"),
        (np.array([[{}]], dtype=object), "of Python objects, a pickle, which is never loaded"),
        (np.zeros(4), "expected a matrix [tokens, d_in] or an array [sequences, tokens, d_in], got shape [4]"),
        (np.zeros((4, 0)), "got shape [4, 0]"),
        (np.zeros((0, 4)), "expected at least one token, the files hold none"),
        (np.zeros((3, 0, 4)), "expected at least one token, the files hold none"),
    ],
)
def test_an_array_that_is_no_matrix_of_floats_is_named(tmp_path: Path, array: Any, message: str) -> None:
    refused(npy(tmp_path / "x.npy", array, allow_pickle=True), message)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"x": torch.zeros(4, 2, dtype=torch.cfloat)}, "got a dict of x"),
        ({"x": torch.eye(4).to_sparse()}, "expected a dense tensor, got torch.sparse_coo"),
        ({"x": torch.zeros(1, 2).expand(10**6, 2)}, "expected a value of its own for every place"),
        ({0: torch.eye(4), "0": torch.eye(4)}, "two tensors have the same name"),
        ({"model": {"encoder.layer.0.weight": torch.eye(4)}}, "got weights (encoder.layer.0.weight)"),
        ([torch.zeros(4, 2), torch.zeros(4, 3)], "expected layer 'x' of d_in = 2"),
        ([torch.zeros(4, 2), 3], "got list"),
        ("words", "got str"),
        (torch.zeros(3, dtype=torch.int64), "got shape [3] of torch.int64"),
    ],
)
def test_a_torch_file_without_activations_is_named(tmp_path: Path, held: Any, message: str) -> None:
    torch.save(held, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", message)


def test_a_tuple_of_hidden_states_is_a_layer_each(tmp_path: Path) -> None:
    torch.save(tuple(BATCHED + n for n in range(3)), tmp_path / "x.pt")
    layers = open_layers(tmp_path / "x.pt")
    assert [*layers] == ["hs0", "hs1", "hs2"]
    assert torch.equal(torch.cat(list(layers["hs2"])), X + 2)


class Ran(Exception):
    """Raised by code in a pickle."""


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Ran, ()


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    for old in (True, False):
        torch.save({"x": X, "more": Code()}, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
        refused(tmp_path / "x.pt", "expected a torch.save of tensors")
    np.savez(tmp_path / "x.npz", x=np.array([Code()], dtype=object))
    refused(tmp_path / "x.npz", "of Python objects, a pickle, which is never loaded")


class Greedy:
    """What PyTorch lets a pickle make: an array of a million million zeros."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**12,)


@pytest.mark.parametrize("old", [True, False])
def test_a_pickle_that_would_fill_the_memory_is_refused(tmp_path: Path, old: bool) -> None:
    torch.save({"x": X, "more": Greedy()}, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
    refused(tmp_path / "x.pt", "got a pickle that is not loaded: it makes a bytearray")


def test_a_pickle_with_a_part_longer_than_its_file_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    torch.save({"x": X}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "x.pt").read_bytes()
    length = whole.index(b"\x8a\x0a")  # of the number by which PyTorch knows its files
    (tmp_path / "x.pt").write_bytes(whole[:length] + b"\x8b\xff\xff\xff\x7f" + whole[length + 2 :])
    refused(tmp_path / "x.pt", "got a pickle that is not loaded: a part of it is longer than the file")


def test_what_is_no_matrix_of_floats_beside_a_layer_is_left_out(tmp_path: Path) -> None:
    beside = {"loss": X[:, 0].numpy(), "texts": np.array(["a", {}], dtype=object), "scale": np.float32(2)}
    np.savez(tmp_path / "x.npz", x=X.numpy(), **beside)  # type: ignore[arg-type]
    torch.save({"x": X, "loss": X[:, 0], "scale": 2.0, "texts": ["a"]}, tmp_path / "x.pt")
    save_file({"x": X, "loss": X[:, 0].clone()}, tmp_path / "x.safetensors")
    for suffix in ("npz", "pt", "safetensors"):
        assert [*open_layers(tmp_path / f"x.{suffix}")] == ["x"]


def test_columns_in_an_archive_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.asfortranarray(X.numpy()), y=X.numpy())
    refused(tmp_path / "x.npz", "x.npy: expected rows, got columns; save numpy.ascontiguousarray of it")


def test_a_torch_file_that_was_packed_again_is_refused(tmp_path: Path) -> None:
    torch.save(X, tmp_path / "a.pt")
    with ZipFile(tmp_path / "a.pt") as stored, ZipFile(tmp_path / "x.pt", "w", ZIP_DEFLATED) as packed:
        for member in stored.namelist():
            packed.writestr(member, stored.read(member))
    refused(tmp_path / "x.pt", "expected a torch.save, whose parts are not compressed, got other ones")


def test_a_sparse_matrix_of_scipy_is_named(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_matrix(X.numpy()))
    refused(tmp_path / "x.npz", "expected dense activations, got a sparse matrix; save its toarray()")


# Damage.


def test_any_damage_of_a_numpy_header_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = npy(tmp_path / "a.npy", X.numpy()).read_bytes()
    for place in range(80):
        for value in b"({9-\xff> ":
            (tmp_path / "x.npy").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            assert all(torch.equal(rows, X) for rows in read_or_refused(tmp_path / "x.npy"))


@pytest.mark.parametrize("shape", [(-1, 16), (True, 16), (10**30, 16), (599, 16), (601, 16), (300, 16), (16,)])
def test_a_numpy_header_of_another_size_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + X.numpy().tobytes()
    (tmp_path / "x.npy").write_bytes(content)
    refused(tmp_path / "x.npy", "expected a readable .npy matrix")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[" * 50_000, "over 32 levels"),
        (b'{"x": 3}', "expected a JSON object, got 3"),
        (b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "4 bytes for F32 [2]"),
        (
            b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
            "expected a whole number from 0 to 9,0",
        ),
        (b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', "leave a gap or overlap at byte 4"),
        (b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}', "not enough values"),
        (b'{"x": {"dtype": "F32", "shape": [1]}}', "KeyError"),
        (b'{"x": {}, "x": {}}', "a name stands twice"),
        (b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', "the tensors end at byte"),
    ],
)
def test_a_damaged_safetensors_header_is_refused(tmp_path: Path, header: bytes, message: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    refused(tmp_path / "x.safetensors", message)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("how", ["cut", "longer", "flipped"])
def test_a_damaged_file_is_one_line_or_its_values(tmp_path: Path, layout: Callable[[Path], Path], how: str) -> None:
    source = layout(tmp_path)
    for file in [file for file in tmp_path.rglob("*") if file.is_file() and not file.name.startswith(".")][:3]:
        whole = file.read_bytes()
        places = range(0, len(whole), max(1, len(whole) // 5))
        for place in places:
            damaged = {
                "cut": whole[:place],
                "longer": whole + whole[: place + 1],
                "flipped": whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :],
            }[how]
            file.write_bytes(damaged)
            read_or_refused(source)
        file.write_bytes(whole)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = safetensors_file(tmp_path)
    layer = open_activations(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"it ends before row 600\); was it changed while it was read\?"):
        list(layer)


# Paths.


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors", ".parquet", ""])
def test_a_missing_path_a_file_of_a_folder_and_a_damaged_file_are_told_apart(tmp_path: Path, suffix: str) -> None:
    refused(tmp_path / f"x{suffix}", "no such file or folder; check the name")
    (tmp_path / f"x{suffix}").write_bytes(b"damaged")
    refused(tmp_path / f"x{suffix}", "could not read it (" if suffix else "expected .npy, .npz, .safetensors, .pt")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_part_of_a_folder_is_not_taken_for_the_whole(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    source = layout(tmp_path)
    if layout.__name__ not in ("harvest_folder", "dataset", "dataset_of_lists", "bionemo", "saev", "dataset_dict"):
        return
    for file in source.iterdir():
        if file.is_file():
            refused(file, "expected a folder, got a file of one; give " + str(source))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "x.safetensors", "x.parquet", "folder", "x.txt"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    source = safetensors_file(tmp_path)
    (tmp_path / "pipes").mkdir()
    pipe = tmp_path / "pipes" / name
    os.mkfifo(pipe)
    refused(pipe, "expected a regular file or a folder, got a pipe or a device")
    for option in ("lengths", "mask"):
        with pytest.raises(InputError, match="got a pipe or a device"):
            open_layers(source, **{option: pipe})  # type: ignore[arg-type]


def test_a_pipe_among_shards_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    npy(tmp_path / "b.npy", X.numpy())
    refused(tmp_path, "a.npy: expected a regular file or a folder, got a pipe or a device")


@pytest.mark.parametrize("layout", [bionemo, bionemo_columns, parquet_folder, dataset, saev])
def test_a_pipe_in_the_place_of_a_file_of_a_store_is_not_waited_for(
    tmp_path: Path, layout: Callable[[Path], Path]
) -> None:
    source = layout(tmp_path)
    [shard, *_] = sorted(file for file in source.iterdir() if file.suffix in (".parquet", ".arrow", ".bin"))
    shard.unlink()
    os.mkfifo(shard)
    refused(source, "a pipe or a device")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "x" * 5000])
def test_a_path_that_cannot_be_is_one_line(name: str) -> None:
    refused(Path(name), "cannot be opened")


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    for name in ("layer_3", "layer_4"):
        (tmp_path / name).mkdir()
    refused(tmp_path, "found none, but the folders layer_3, layer_4; give one of them")


# Names.


def test_text_in_messages_has_no_character_that_a_terminal_obeys() -> None:
    assert printable("a\x1b[2J\n\u202eb\udcff\x9bc é 層") == r"a\x1b[2J\n\u202eb\udcff\x9bc é 層"
    assert printable("x" * 300, 10) == "x" * 7 + "..."
    assert len(printable("\x1b" * 300, 60)) == 60


@pytest.mark.parametrize(
    "name", ["a\x1b[2J\x1b]0;owned\x07", "two\nlines", "x" * 300, "a:b", "层", ".", "", " ", "../x"]
)
def test_a_layer_keeps_its_name_and_messages_escape_it(tmp_path: Path, name: str) -> None:
    save_file({name: X, "other": X + 1}, tmp_path / "x.safetensors")
    assert open_activations(tmp_path / "x.safetensors", name).layer == name
    for ask in ("nowhere", None):
        with pytest.raises(InputError) as caught:
            open_activations(tmp_path / "x.safetensors", ask)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < len(str(tmp_path)) + 400


def test_a_file_name_that_is_no_utf8_becomes_a_name_that_is(tmp_path: Path) -> None:
    for number, suffix in enumerate((".npy", ".pt", ".safetensors", ".npz")):
        whole = tmp_path / f"whole{suffix}"
        if suffix == ".npy":
            npy(whole, X.numpy())
        elif suffix == ".pt":
            torch.save(X, whole)
        elif suffix == ".npz":
            np.savez(whole, x=X.numpy())
        else:
            save_file({"x": X}, whole)
        odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff" + str(number).encode() + suffix.encode()))
        whole.rename(odd)
        layer = open_activations(odd)
        assert layer.layer in ("x", f"bad\\udcff{number}")
        layer.layer.encode("utf-8")
        assert torch.equal(torch.cat(list(layer)), X)
        odd.write_bytes(b"damaged")
        refused(odd, f"bad\\udcff{number}")


def test_a_layer_name_is_changed_only_where_it_is_no_text() -> None:
    assert layer_name("blocks.3:\x1b é") == "blocks.3:\x1b é"
    assert layer_name("bad\udcff") == "bad\\udcff"


def test_names_are_sorted_by_their_numbers_and_never_equal() -> None:
    names = ["hs10", "hs2", "hs02", "x²", "²", "9" * 5000, "x", "", "hs"]
    assert sorted(names, key=natural).index("hs2") < sorted(names, key=natural).index("hs10")
    assert len({tuple(natural(name)) for name in names}) == len(names)


def test_layers_whose_names_are_alike_are_kept_apart(tmp_path: Path) -> None:
    names = ["x", "X", "x ", "x.json", "x.npy", "hs1", "hs01", "é", "e\u0301"]
    save_file({name: X + n for n, name in enumerate(names)}, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", **{name: X.numpy() + n for n, name in enumerate(names)})  # type: ignore[arg-type]
    for suffix in ("safetensors", "npz"):
        layers = open_layers(tmp_path / f"x.{suffix}")
        assert {*layers} == {*names}
        for n, name in enumerate(names):
            assert torch.equal(torch.cat(list(layers[name])), X + n), (suffix, name)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    npy(Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.npy")), X.numpy())
    npy(tmp_path / "bad\\udcff.npy", X.numpy())
    refused(tmp_path, "two files hold the layer")
    assert len(X) == TOKENS


@pytest.mark.parametrize("name", ["x.pt", "mask.pt", "lengths.pt"])
def test_a_pickle_that_never_ends_is_not_loaded(tmp_path: Path, name: str) -> None:
    endless: Any = ()
    for _ in range(40):
        endless = (endless, endless)
    torch.save({"x": endless}, tmp_path / name)
    npy(tmp_path / "x.npy", BATCHED.numpy())
    given = {} if name == "x.pt" else {name.removesuffix(".pt"): tmp_path / name}
    source = tmp_path / ("x.npy" if given else name)
    with pytest.raises(InputError, match="got a pickle that is not loaded: it has tuples in tuples"):
        open_activations(source, **given)  # type: ignore[arg-type]


def test_damaged_values_in_a_small_torch_file_are_refused(tmp_path: Path) -> None:
    torch.save(X, tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(whole.replace(X.numpy().tobytes(), (X + 1).numpy().tobytes()))
    refused(tmp_path / "x.pt", "got another in 'x/data/0': the file is damaged; get it again")


def test_rows_that_are_far_larger_than_their_file_are_refused_before_one_is_read(tmp_path: Path) -> None:
    """A list of a billion zeros takes a few bytes of a compressed file, and a hole in a file takes none."""
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (16, 2**30)})
        file.truncate(file.tell() + 2**36)
    message = "layer 'x' in chunks of 2,048 tokens of d_in = 1,073,741,824, got"
    refused(tmp_path / "x.npy", f"expected 128.0 GiB of free memory to read {message}")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_the_memory_of_a_chunk_is_asked_for_by_what_a_compressed_file_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    d_in = 2**20
    zeros = np.zeros((2, d_in), np.float32)
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, x=zeros)
    else:
        column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(zeros.reshape(-1)), d_in)
        pyarrow.parquet.write_table(pyarrow.table({"x": column}), path)
    assert path.stat().st_size < zeros.nbytes / 100
    monkeypatch.setattr("autopsae.memory.SMALL", 0)
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: 2 * zeros.nbytes)
    assert torch.equal(read_all(path)[0], torch.from_numpy(zeros))
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: 2 * zeros.nbytes - 1)
    tracemalloc.start()
    refused(
        path, "to read layer 'x' in chunks of 2,048 tokens of d_in = 1,048,576, got 0.0; use a machine with more"
    )
    assert tracemalloc.get_traced_memory()[1] < zeros.nbytes / 4
    tracemalloc.stop()


def test_lists_of_several_lengths_are_told_by_the_description_of_a_parquet_file(tmp_path: Path) -> None:
    for rows in ([[1.0, 2.0], [3.0]], [[1.0, 2.0], None]):
        pyarrow.parquet.write_table(pyarrow.table({"x": rows}), tmp_path / "x.parquet")
        refused(tmp_path / "x.parquet", "the lists in x have several lengths, or some are missing")
