import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autopsae.activations.index import FORMAT, INDEX
from autopsae.activations.spread import spread
from autopsae.activations.store import open_activations, open_layers, select_layers
from autopsae.arrays import InputError, Tokens

pytestmark = pytest.mark.quick


def matrix(tokens: int = 10, d_in: int = 3, start: int = 0) -> torch.Tensor:
    return torch.arange(start * d_in, (start + tokens) * d_in, dtype=torch.float32).reshape(tokens, d_in)


def read(activations: Tokens) -> torch.Tensor:
    return torch.cat(list(activations))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npy_is_read_as_stored_and_again(tmp_path: Path, dtype: type) -> None:
    x = np.arange(15_003, dtype=dtype).reshape(5001, 3) / 16
    np.save(tmp_path / "hs3.npy", x)
    layer = open_activations(tmp_path / "hs3.npy")
    assert (layer.layer, layer.tokens, layer.d_in) == ("hs3", 5001, 3)
    for _ in range(2):
        assert torch.equal(read(layer), torch.from_numpy(x))


def test_column_major_npy_is_read_by_tokens(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(matrix().numpy()))
    assert torch.equal(read(open_activations(tmp_path / "x.npy")), matrix())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_shards_are_joined_in_the_order_of_their_names(tmp_path: Path, dtype: torch.dtype) -> None:
    for i, (start, tokens) in enumerate([(0, 4), (4, 1), (5, 5)]):
        x = matrix(tokens, start=start).to(dtype)
        save_file({"hs0": x, "hs1": x + 1, "ids": torch.arange(tokens)}, tmp_path / f"{i}.safetensors")
    layers = open_layers(tmp_path)
    assert list(layers) == ["hs0", "hs1"]
    assert layers["hs1"].dtype == dtype
    assert torch.equal(read(layers["hs0"]), matrix().to(dtype))
    assert torch.equal(read(open_activations(tmp_path, "hs1")), (matrix() + 1).to(dtype))


def test_layers_come_in_the_model_s_order(tmp_path: Path) -> None:
    save_file({name: matrix() for name in ("hs10", "hs2", "mlp", "hs0")}, tmp_path / "x.safetensors")
    assert list(open_layers(tmp_path)) == ["hs0", "hs2", "hs10", "mlp"]


def test_a_single_safetensors_file_is_a_source(tmp_path: Path) -> None:
    save_file({"acts": matrix()}, tmp_path / "one.safetensors")
    assert torch.equal(read(open_activations(tmp_path / "one.safetensors")), matrix())


def test_taken_tokens_are_spread_evenly_over_all_shards(tmp_path: Path) -> None:
    for i in range(4):
        save_file({"x": matrix(25, start=25 * i)}, tmp_path / f"{i}.safetensors")
    layer = open_activations(tmp_path).take(20)
    assert layer.tokens == 20
    assert torch.equal(read(layer), matrix(100)[spread(0, 100, chosen=20, of=100)])
    assert torch.equal(read(layer.take(7)), matrix(100)[spread(0, 100, chosen=7, of=100)])
    assert layer.take(1000).tokens == 20


@pytest.mark.parametrize("held_out", [1, 7, 50, 99])
def test_a_split_parts_all_tokens_evenly(tmp_path: Path, held_out: int) -> None:
    for i, (start, tokens) in enumerate([(0, 31), (31, 2), (33, 67)]):
        save_file({"x": matrix(tokens, start=start)}, tmp_path / f"{i}.safetensors")
    training, held = open_activations(tmp_path).split(held_out)
    assert (training.tokens, held.tokens) == (100 - held_out, held_out)
    assert len(read(training)) == training.tokens
    assert torch.equal(read(held), matrix(100)[spread(0, 100, chosen=held_out, of=100)])
    both = torch.cat([read(training), read(held)])
    assert torch.equal(both[both[:, 0].argsort()], matrix(100))


@pytest.mark.parametrize("held_out", [0, 10, 11])
def test_a_split_that_leaves_nothing_is_refused(tmp_path: Path, held_out: int) -> None:
    np.save(tmp_path / "x.npy", matrix().numpy())
    with pytest.raises(InputError, match=f"expected 1 to 9 tokens to hold out of all 10, got {held_out}"):
        open_activations(tmp_path / "x.npy").split(held_out)


def test_an_index_decides_which_shards_count(tmp_path: Path) -> None:
    for name, start in (("a", 0), ("b", 10), ("c", 20)):
        save_file({"x": matrix(start=start)}, tmp_path / f"{name}.safetensors")
    index = {"format": FORMAT, "shards": [{"file": "c.safetensors"}, {"file": "a.safetensors"}]}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert torch.equal(read(open_activations(tmp_path)), torch.cat([matrix(start=20), matrix()]))


def test_an_unfinished_harvest_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    save_file({"x": matrix()}, tmp_path / "a.safetensors")
    index = {"format": FORMAT, "shards": [{"file": "a.safetensors"}], "tokens": 10, "complete": False}
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"the harvest is not finished \(10 tokens so far\); run it again"):
        open_layers(tmp_path)


def test_a_bare_number_stands_for_a_hidden_state() -> None:
    assert select_layers(["hs0", "hs1", "mlp"], ["1", "mlp"]) == ["hs1", "mlp"]
    assert select_layers(["0", "hs0"], ["0"]) == ["0"]


def test_an_unknown_layer_is_named_with_its_near_ones() -> None:
    with pytest.raises(InputError, match=r"unknown layer 'hs33'; near names: hs3, .* \(31 in all\)"):
        select_layers([f"hs{i}" for i in range(31)], ["33"])


def test_of_several_layers_one_must_be_named(tmp_path: Path) -> None:
    save_file({"a": matrix(), "b": matrix()}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"holds 2 layers \(a, b\); say which"):
        open_activations(tmp_path)


def write_bad(folder: Path, kind: str) -> Path:
    path = folder / "bad.safetensors"
    if kind == "missing":
        return folder / "nowhere"
    if kind == "empty folder":
        return folder
    if kind == "text":
        (folder / "a.txt").write_text("hello")
        return folder / "a.txt"
    if kind.endswith("npy"):
        path = folder / "bad.npy"
        arrays = {"hypercube npy": np.zeros((2, 2, 2, 2)), "integer npy": np.zeros((2, 2), int)}
        np.save(path, arrays.get(kind, matrix().numpy()))
        if kind in ("truncated npy", "foreign npy"):
            content = path.read_bytes()
            path.write_bytes(content[:-50] if kind == "truncated npy" else b"PK\3\4" + content)
        return path
    save_file({"x": matrix()}, path)
    if kind == "truncated safetensors":
        path.write_bytes(path.read_bytes()[:-9])
    if kind == "foreign safetensors":
        path.write_bytes(b"not a tensor file at all")
    if kind == "no matrices":
        save_file({"ids": torch.arange(4), "hypercube": torch.zeros(2, 2, 2, 2)}, path)
    if kind == "no tokens":
        save_file({"x": torch.zeros(0, 3)}, path)
    if kind in ("another width", "another layer"):
        odd = {"x": matrix(d_in=4)} if kind == "another width" else {"y": matrix()}
        save_file(odd, folder / "c.safetensors")
        return folder
    if kind == "bad index":
        (folder / INDEX).write_bytes(b'{"format": \xff')
        return folder
    if kind == "foreign index":
        (folder / INDEX).write_text('{"format": "another"}')
        return folder
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file or folder; check the name"),
        ("empty folder", "expected .npy, .npz, .safetensors, .pt, .pth, .parquet files, found none"),
        ("text", "expected .npy, .npz, .safetensors, .pt, .pth, .parquet or a folder, got '.txt'"),
        ("truncated npy", "expected a readable .npy matrix"),
        ("foreign npy", "expected a readable .npy matrix"),
        (
            "hypercube npy",
            "expected a matrix [tokens, d_in] or an array [sequences, tokens, d_in], got shape [2, 2, 2, 2]",
        ),
        ("integer npy", "expected a float16/32/64 matrix [tokens, d_in], got shape (2, 2) of int64"),
        ("truncated safetensors", "expected a readable safetensors file"),
        ("foreign safetensors", "expected a readable safetensors file"),
        ("no matrices", "expected floating-point matrices [tokens, d_in], found none"),
        ("no tokens", "expected at least one token, the files hold none"),
        ("another width", "c.safetensors: expected layer 'x' of d_in = 3 as in bad.safetensors, got 4"),
        ("another layer", "c.safetensors: expected layer 'x' as in bad.safetensors, got y"),
        ("bad index", "expected an index of autopsae-activations"),
        ("foreign index", "expected format 'autopsae-activations', got 'another'"),
    ],
)
def test_a_source_that_cannot_be_read_says_so(tmp_path: Path, kind: str, message: str) -> None:
    path = write_bad(tmp_path, kind)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        open_layers(path)
    assert "\n" not in str(caught.value)


def test_a_pickle_in_npy_clothes_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"of Python objects, a pickle, which is never loaded"):
        open_layers(tmp_path / "x.npy")


def test_no_tokens_to_take_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", matrix().numpy())
    with pytest.raises(InputError, match="expected a positive number of tokens, got 0"):
        open_activations(tmp_path / "x.npy").take(0)
