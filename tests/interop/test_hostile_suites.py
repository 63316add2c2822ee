"""Files of the public suites that are damaged, or made to do harm: one clear error, and nothing in them is run."""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.interop.convert import load_sae
from autopsae.reading import MOST_JSON
from autopsae.sae.model import SAE
from tests.interop import suites
from tests.interop.suites import D_IN, D_SAE
from tests.interop.test_hostile import DEEP, Harm

BY_FILE = ["openai", "saev", "qwen_scope", "goodfire", "hook_z"]
JSON = {
    "gemma_scope_2": "config.json",
    "llama_scope": "hyperparams.json",
    "llamascopium": "config.json",
    "hook_z": "gpt2_cfg.json",
}
FLIPS = 40
"""Of each file of each suite."""


def refused(path: Path) -> str:
    """The one line with which a path is refused."""
    with pytest.raises(InputError) as raised:
        load_sae(path)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 800
    return message


def same(one: SAE, other: SAE) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@torch.no_grad()
@pytest.mark.parametrize("suite", suites.ALL)
def test_a_flipped_bit_is_refused_or_gives_finite_numbers(tmp_path: Path, suite: str) -> None:
    """In an archive, which has checksums, it is refused or changes nothing."""
    made = suites.ALL[suite](tmp_path)
    before, random = load_sae(made.path), np.random.default_rng(0)
    place = made.path if made.path.is_dir() else made.path.parent
    for file in sorted(file for file in place.rglob("*") if file.is_file()):
        content = file.read_bytes()
        for flip in range(FLIPS):
            # Half of the flips in the first bytes, where headers are.
            at = int(random.integers(0, len(content) if flip % 2 else min(len(content), 300)))
            file.write_bytes(content[:at] + bytes([content[at] ^ 1 << flip % 8]) + content[at + 1 :])
            try:
                found = load_sae(made.path)
            except InputError:
                continue
            assert bool(found(torch.ones(2, found.d_in)).isfinite().all())
            if file.suffix in (".npz", ".pt", ".pth") and suite != "saev":
                assert same(found, before)
        file.write_bytes(content)
    assert same(load_sae(made.path), before)


@pytest.mark.parametrize("suite", suites.ALL)
@pytest.mark.parametrize("keep", [0, 1, 7, 100, 600])
def test_weights_that_are_cut_off(tmp_path: Path, suite: str, keep: int) -> None:
    made = suites.ALL[suite](tmp_path)
    files = [made.path] if made.path.is_file() else [f for f in made.path.rglob("*") if f.suffix != ".json"]
    for file in (file for file in files if file.is_file()):
        file.write_bytes(file.read_bytes()[:keep])
    assert "expected" in refused(made.path)


@pytest.mark.parametrize("suite", JSON)
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", "\x00\xff", "[" * DEEP, '{"a":' * DEEP, "\ufeff", "1" * 5000],
    ids=range(10),
)
def test_a_configuration_that_is_no_object(tmp_path: Path, suite: str, text: str) -> None:
    made = suites.ALL[suite](tmp_path)
    folder = made.path if made.path.is_dir() else made.path.parent
    (folder / JSON[suite]).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert JSON[suite] in refused(made.path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    made = suites.llama_scope(tmp_path / "x")
    path = made.path / "hyperparams.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    load_sae(made.path)


def test_a_configuration_without_end_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = suites.llama_scope(tmp_path / "x")
    with (made.path / "hyperparams.json").open("wb") as file:
        file.truncate(50 * 2**30)  # 50 GiB that take no place
    assert "hyperparams.json: expected a JSON object, could not read it (over 33,554,432 bytes)" in refused(
        made.path
    )
    made = suites.saev(tmp_path / "sae.pt", 5)
    made.path.write_bytes(b"{" + b" " * 2**25)
    assert "over 33,554,432 bytes" in refused(made.path)


def change(made: suites.Made, suite: str, **changes: Any) -> None:
    """Tensors changed in a suite's file; `...` leaves one out; names with `_0_` for a dot."""
    changes = {name.replace("_0_", "."): value for name, value in changes.items()}

    def merged(tensors: Any) -> dict[str, Any]:
        return {name: value for name, value in {**tensors, **changes}.items() if value is not ...}

    if suite == "gemma_scope":
        arrays = merged(dict(np.load(made.path / "params.npz")))
        np.savez(made.path / "params.npz", **arrays)
    elif made.path.is_dir():
        [file] = made.path.rglob("*.safetensors")
        save_file(merged(load_file(file)), file)
    elif suite == "saev":
        header, rest = made.path.read_bytes().split(b"\n", 1)
        state, written = merged(torch.load(io.BytesIO(rest), weights_only=True)), io.BytesIO()
        torch.save(state, written)
        made.path.write_bytes(header + b"\n" + written.getvalue())
    else:
        torch.save(merged(torch.load(made.path, weights_only=True)), made.path)


ENCODER = {
    "gemma_scope": "W_enc",
    "gemma_scope_2": "w_enc",
    "llama_scope": "encoder_0_weight",
    "llamascopium": "W_E",
    "openai": "encoder_0_weight",
    "saev": "W_enc",
    "qwen_scope": "W_enc",
    "hook_z": "W_enc",
    "goodfire": "encoder_linear_0_weight",
}
BIAS = {
    "gemma_scope": "b_enc",
    "gemma_scope_2": "b_enc",
    "llama_scope": "encoder_0_bias",
    "llamascopium": "b_E",
    "openai": "latent_bias",
    "saev": "b_enc",
    "qwen_scope": "b_enc",
    "hook_z": "b_enc",
    "goodfire": "encoder_linear_0_bias",
}


@pytest.mark.parametrize("suite", suites.ALL)
@pytest.mark.parametrize(
    "tensor",
    [
        ...,
        torch.ones(3),
        torch.ones(()),
        torch.ones(0, 0),
        torch.ones(D_SAE, D_IN, dtype=torch.int64),
        torch.ones(D_SAE, D_IN, dtype=torch.complex64),
    ],
    ids=["missing", "flat", "scalar", "empty", "int64", "complex"],
)
def test_an_encoder_that_is_none(tmp_path: Path, suite: str, tensor: Any) -> None:
    made = suites.ALL[suite](tmp_path)
    is_array = suite == "gemma_scope" and isinstance(tensor, Tensor)
    change(made, suite, **{ENCODER[suite]: tensor.numpy() if is_array else tensor})
    assert "expected" in refused(made.path)


@pytest.mark.parametrize("suite", suites.ALL)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers(tmp_path: Path, suite: str, value: float) -> None:
    made = suites.ALL[suite](tmp_path)
    size = 1024 if suite == "qwen_scope" else D_SAE
    bias = torch.zeros(size)
    bias[2] = value
    change(made, suite, **{BIAS[suite]: bias.numpy() if suite == "gemma_scope" else bias})
    assert "expected finite weights, got NaN or infinite ones in 1 of" in refused(made.path)


@pytest.mark.parametrize("suite", [suite for suite in suites.ALL if suite not in ("qwen_scope", "hook_z")])
def test_a_tensor_too_many_is_not_passed_over(tmp_path: Path, suite: str) -> None:
    made, skip = suites.ALL[suite](tmp_path), torch.ones(D_IN, D_IN)
    change(made, suite, W_skip=skip.numpy() if suite == "gemma_scope" else skip)
    assert "W_skip" in refused(made.path)
    assert "is it the SAE that its configuration describes?" in refused(made.path)


@pytest.mark.parametrize("suite", BY_FILE)
@pytest.mark.parametrize("how", ["torch", "torch, old", "pickle"])
def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path, suite: str, how: str) -> None:
    made, mark, written = suites.ALL[suite](tmp_path), tmp_path / "mark", io.BytesIO()
    content = {"pre_bias": Harm(mark), "W_enc": Harm(mark)}
    if how == "pickle":
        pickle.dump(content, written, protocol=2)
    else:
        torch.save(content, written, _use_new_zipfile_serialization=how == "torch")
    header = made.path.read_bytes().split(b"\n", 1)[0] + b"\n" if suite == "saev" else b""
    made.path.write_bytes(header + written.getvalue())
    assert "pickles that hold code are not run" in refused(made.path)
    assert not mark.exists()


def laughs() -> list[Any]:
    """A list of 2^60 elements, all of them the same few."""
    inner: list[Any] = ["ha"]
    for _ in range(60):
        inner = [inner, inner]
    return inner


@pytest.mark.parametrize("suite", ["openai", "goodfire"])
def test_a_list_that_would_be_endless_to_print_is_not_printed(tmp_path: Path, suite: str) -> None:
    made = suites.ALL[suite](tmp_path)
    change(made, suite, **{ENCODER[suite]: laughs()})
    assert "expected" in refused(made.path)
    if suite == "openai":
        made = suites.openai(tmp_path / "y" / "6.pt", k=laughs())
        assert "k: expected a whole number from 1 to 2,147,483,648, got [[[" in refused(made.path)


def bomb(kind: str) -> bytes:
    """A pickle that PyTorch would load: of a dictionary whose key takes 2^40 steps to hash, or of 2^40 zeros."""
    if kind == "zeros":
        return b"\x80\x02c__builtin__\nbytearray\n\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R."
    key = b"X\x01\x00\x00\x00a\x85q\x01" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(1, 41))
    return b"\x80\x02}q\x00" + key + b"K\x01s."


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize(
    ("kind", "message"), [("key", "it has tuples in tuples, more than 8 deep"), ("zeros", "it makes a bytearray")]
)
def test_a_pickle_that_would_not_end_or_fill_the_memory_is_not_loaded(
    tmp_path: Path, is_archive: bool, kind: str, message: str
) -> None:
    path = tmp_path / "6.pt"
    path.write_bytes(bomb(kind))
    if is_archive:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("6/data.pkl", bomb(kind))
            archive.writestr("6/version", "3\n")
    assert f"got a pickle that is not loaded: {message}" in refused(path)


def test_a_pickle_longer_than_any_state_dict_is_not_loaded(tmp_path: Path) -> None:
    torch.save({str(i): i for i in range(600_000)}, tmp_path / "6.pt")
    assert "got a pickle that is not loaded: it is of more than 4 MiB" in refused(tmp_path / "6.pt")


def test_an_archive_of_torch_with_compressed_or_damaged_parts_is_not_unfolded(tmp_path: Path) -> None:
    made = suites.openai(tmp_path / "6.pt")
    with zipfile.ZipFile(made.path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(made.path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert "expected a torch.save, whose parts are not compressed, got other ones" in refused(made.path)
    made = suites.openai(tmp_path / "7.pt")
    content = made.path.read_bytes()
    value = struct.pack("<f", float(suites.matrices()["b_enc"][3]))
    made.path.write_bytes(content.replace(value, struct.pack("<f", 7.0)))
    assert "7.pt: expected the checksums that torch.save wrote, got another in '7/data/" in refused(made.path)


def npz(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return path.parent


def header(description: str, version: bytes = b"\x01\x00") -> bytes:
    """The header of an array as NumPy writes it, with any description."""
    text = description.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "could not read it"),
        (b"nothing", "could not read it"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + pickle.dumps(1), "got object; save"),
        (header("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}") + b"x" * 8, "weights, got int64; save"),
        (header("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}") + b"x" * 8, "weights, got complex64"),
        (header("{'descr': '<f16', 'fortran_order': False, 'shape': (1,)}") + b"x" * 16, "got float128"),
        (header(FLOATS) + b"x" * 23, "expected 24 bytes as its header says, got 23"),
        (header(FLOATS.replace("2, 3", "2, 3, 10**9")) + b"x" * 24, "could not read it"),
        (header(FLOATS.replace("2, 3", "2000000000, 3000000000")) + b"x" * 24, "bytes as its header says, got 24"),
        (header(FLOATS.replace("2, 3", "-2, -3")) + b"x" * 24, "could not read it (shape (-2, -3))"),
        (header(FLOATS.replace("2, 3", "True, 3")) + b"x" * 12, "could not read it"),
        (header("__import__('os').system('true')"), "could not read it"),
        (header("(" * 10_000), "could not read it"),
        (header(FLOATS, b"\x07\x00") + b"x" * 24, "could not read it"),
        (header(FLOATS + " " * 60_000) + b"x" * 24, "could not read it"),
    ],
    ids=range(15),
)  # fmt: skip
def test_an_array_whose_header_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(npz(tmp_path / "x" / "params.npz", {"W_enc.npy": content}))


def test_an_archive_that_unfolds_to_far_more_than_it_is_is_not_unfolded(tmp_path: Path) -> None:
    zeros = header(FLOATS.replace("2, 3", "5000, 5000")) + bytes(10**8)
    folder = npz(tmp_path / "x" / "params.npz", {"W_enc.npy": zeros}, zipfile.ZIP_DEFLATED)
    assert (folder / "params.npz").stat().st_size < 200_000
    assert "expected arrays, got an archive of" in refused(folder)
    assert "bytes that unfolds to 100,000," in refused(folder)


def test_the_memory_of_what_a_file_holds_is_asked_for_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = suites.gemma_scope(tmp_path / "x")
    monkeypatch.setattr("autopsae.memory.SMALL", 0)
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: 100)
    assert "params.npz: expected 0.0 GiB of free memory for its tensors, got 0.0; read it on a larg" in refused(
        made.path
    )
    for name in ("6.pt", "params.safetensors"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(50 * 2**30)  # that take no place
        assert f"{name}: expected 50.0 GiB of free memory for its tensors" in refused(tmp_path / name)


def test_a_header_that_unfolds_without_end_is_not_unfolded(tmp_path: Path) -> None:
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 10**6
    folder = npz(tmp_path / "x" / "params.npz", {"W_enc.npy": long}, zipfile.ZIP_DEFLATED)
    assert "could not read it (a header of 2,147,483,648 bytes)" in refused(folder)


@pytest.mark.parametrize(
    "name", ["../../outside.npy", "/outside.npy", "W_enc.npy/../../outside", "\x1b[31m", "a\nb"]
)
def test_names_in_an_archive_lead_nowhere(tmp_path: Path, name: str) -> None:
    made = suites.gemma_scope(tmp_path / "x")
    with zipfile.ZipFile(made.path / "params.npz", "a") as archive:
        archive.writestr(name, header(FLOATS) + bytes(24))
    message = refused(made.path)
    assert "\x1b" not in message
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x"]


def test_a_link_out_of_the_folder_is_a_file_like_any_other(tmp_path: Path) -> None:
    made = suites.gemma_scope(tmp_path / "x")
    shutil.move(made.path / "params.npz", tmp_path / "elsewhere.npz")
    os.symlink(tmp_path / "elsewhere.npz", made.path / "params.npz")  # as the hub's cache has them
    load_sae(made.path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"schema": 7}, "schema: expected none or 1 to 5, got 7"),
        ({"schema": True}, "schema: expected none or 1 to 5, got True"),
        ({"schema": [2]}, "schema: expected none or 1 to 5, got [2]"),
        ({"schema": 2, "cfg": []}, "expected an object `cfg`, got []"),
        ({"schema": 2, "cfg": {"activation": 3}}, "expected an object `activation`, got 3"),
        ({"schema": 2, "cfg": {"activation": {"cls": "TopK"}}}, "expected an object `params`, got None"),
        ({"schema": 2, "cfg": {"activation": {"cls": "os.system", "params": {}}}}, "got 'os.system'"),
        (
            {"schema": 2, "cfg": {"activation": {"cls": "TopK", "params": {"top_k": 0}}}},
            "top_k: expected a whole number",
        ),
        ({"schema": 2, "cfg": {"activation": {"cls": "TopK", "params": {"top_k": 99}}}}, "expected"),
    ],
    ids=range(9),
)
def test_saevs_header_names_no_code(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    made = suites.saev(tmp_path / "sae.pt", 2)
    rest = made.path.read_bytes().split(b"\n", 1)[1]
    made.path.write_bytes(json.dumps(line).encode() + b"\n" + rest)
    assert message in refused(made.path)


@pytest.mark.parametrize("suite", ["llama_scope", "llamascopium"])
@pytest.mark.parametrize(
    "value", [0, -1, 1.5, True, "3", None, [3], 10**30, 10**4000, float("nan"), float("inf")], ids=range(11)
)
def test_sizes_that_are_none(tmp_path: Path, suite: str, value: Any) -> None:
    made = getattr(suites, suite)(tmp_path / "x", act_fn="topk", top_k=value)
    assert "top_k: expected a whole number from 1 to 2,147,483,648" in refused(made.path)


def test_what_is_read_has_a_bound(tmp_path: Path) -> None:
    """A message never holds more of a file than a line."""
    assert MOST_JSON <= 2**25
    made = suites.gemma_scope_2(tmp_path / "x", {"architecture": "x" * 10**6})
    assert "architecture: expected 'jump_relu', got 'xxx" in refused(made.path)
