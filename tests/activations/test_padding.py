"""Lengths and masks say which tokens are real: whole numbers or booleans, of the right place, or an error."""

import json
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autopsae.activations.store import open_activations, open_layers
from autopsae.arrays import InputError
from autopsae.cli.main import main
from tests.activations.layouts import BATCHED, LENGTH, SEQUENCES, TOKENS, X, numpy_sequences

KEPT = np.arange(LENGTH) < np.random.default_rng(0).integers(1, LENGTH, SEQUENCES)[:, None]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".pth", ".txt"])
@pytest.mark.parametrize("what", ["lengths", "mask"])
def test_both_are_read_from_files(tmp_path: Path, suffix: str, what: str) -> None:
    numbers = KEPT.sum(axis=1) if what == "lengths" else KEPT
    path = tmp_path / f"numbers{suffix}"
    if suffix == ".npy":
        np.save(path, numbers)
    elif suffix == ".npz":
        np.savez_compressed(path, numbers)
    elif suffix == ".txt":
        np.savetxt(path, numbers, fmt="%d")
    else:
        torch.save(torch.from_numpy(numbers), path)
    layer = open_activations(numpy_sequences(tmp_path), **{what: path})  # type: ignore[arg-type]
    assert torch.equal(torch.cat(list(layer)), BATCHED[torch.from_numpy(KEPT)])


def test_lengths_of_all_tokens_change_nothing(tmp_path: Path) -> None:
    layer = open_activations(numpy_sequences(tmp_path), lengths=[LENGTH] * SEQUENCES)
    assert torch.equal(torch.cat(list(layer)), X)


def test_shards_of_sequences_of_different_lengths_take_one_list(tmp_path: Path) -> None:
    pieces = [torch.randn(4, 7, 3), torch.randn(2, 5, 3)]
    for number, piece in enumerate(pieces):
        save_file({"x": piece}, tmp_path / f"{number}.safetensors")
    lengths = [7, 0, 1, 3, 5, 2]
    expected = [piece[n, :length] for piece, some in zip(pieces, (lengths[:4], lengths[4:]), strict=True)
                for n, length in enumerate(some)]  # fmt: skip
    assert torch.equal(torch.cat(list(open_activations(tmp_path, lengths=lengths))), torch.cat(expected))
    with pytest.raises(InputError, match="expected 0 to 5 tokens of sequence 5, got 6"):
        open_activations(tmp_path, lengths=[7, 0, 1, 3, 5, 6])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": [3] * SEQUENCES, "mask": KEPT}, "expected lengths or a mask, got both"),
        ({"lengths": [3] * (SEQUENCES - 1)}, f"expected a length for each of {SEQUENCES} sequences, got 39"),
        ({"lengths": [3] * 39 + [LENGTH + 1]}, "expected 0 to 15 tokens of sequence 39, got 16"),
        ({"lengths": [-1] + [3] * 39}, "expected 0 to 15 tokens of sequence 0, got -1"),
        ({"lengths": [0] * SEQUENCES}, "expected a token to keep, got only padding"),
        ({"lengths": [3.0] * SEQUENCES}, "lengths: expected whole numbers, got shape [40] of float64"),
        ({"lengths": KEPT}, "lengths: expected a whole number for each sequence, got shape [40, 15] of bool"),
        ({"lengths": []}, "lengths: expected whole numbers, got shape [0]"),
        ({"lengths": [[1], [2, 3]]}, "lengths: expected an array of numbers"),
        ({"mask": np.where(KEPT, 0.0, -1e9)}, "got -1e+09; a mask that is added (0 and a large negative number)"),
        ({"mask": torch.where(torch.from_numpy(KEPT), 0.0, -torch.inf)}, "got -inf; a mask that is added"),
        ({"mask": KEPT * 2}, "mask: expected True and False, or 1 and 0 (1: a real token), got 2"),
        ({"mask": np.full(KEPT.shape, np.nan)}, "got nan"),
        ({"mask": KEPT.T}, "expected a mask of [40, 15], got shape [15, 40]; is it of this source?"),
        ({"mask": KEPT[:-1]}, "expected a mask of [40, 15], got shape [39, 15]"),
        ({"mask": KEPT[None]}, "expected a mask of [40, 15], got shape [1, 40, 15]"),
        ({"mask": ~KEPT & KEPT}, "expected a token to keep, got only padding; is the mask the other way round?"),
        ({"mask": np.ma.masked_array(KEPT, KEPT)}, "mask: expected a plain array, got a masked one"),
        ({"mask": KEPT.astype("U5")}, "mask: expected True and False, or 1 and 0, got shape [40, 15] of <U5"),
    ],
)
def test_other_lengths_and_masks_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        open_layers(numpy_sequences(tmp_path), **given)
    assert str(caught.value).isprintable()


def test_lengths_need_sequences(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    with pytest.raises(InputError, match=r"lengths go with activations \[sequences, tokens, d_in\]"):
        open_layers(tmp_path / "x.npy", lengths=[3] * SEQUENCES)


def test_a_mask_of_one_layer_is_not_laid_over_another(tmp_path: Path) -> None:
    encoder, decoder = torch.randn(6, 7, 3), torch.randn(6, 5, 3)
    save_file({"encoder": encoder, "decoder": decoder}, tmp_path / "x.safetensors")
    mask = torch.rand(6, 7) < 0.5
    layers = open_layers(tmp_path / "x.safetensors", ["encoder"], mask=mask)
    assert torch.equal(torch.cat(list(layers["encoder"])), encoder[mask])
    for chosen in ([], ["decoder"]):
        with pytest.raises(InputError, match=r"layer 'decoder': expected a mask of \[6, 5\], got shape \[6, 7\]"):
            open_layers(tmp_path / "x.safetensors", chosen, mask=mask)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"damaged", "expected a file of mask, could not read it"),
        ("x.npz", b"damaged", "expected a file of mask, could not read it"),
        ("x.pt", b"damaged", "expected a file of mask, could not read it"),
        ("x.txt", b"yes no", "expected a file of mask, could not read it"),
        ("x.csv", b"1,0", "expected .npy, .npz, .pt, .pth or .txt, got .csv"),
        (None, b"", "no such file or folder"),
        ("", b"", "expected a file of mask, got a folder"),
    ],
)
def test_a_file_that_holds_no_mask_is_refused(
    tmp_path: Path, name: str | None, content: bytes, message: str
) -> None:
    path = tmp_path / "nowhere" if name is None else tmp_path / "mask" / name
    (tmp_path / "mask").mkdir(exist_ok=True)
    if name:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        open_layers(numpy_sequences(tmp_path), mask=path)


def bomb(path: Path, array: bytes) -> Path:
    """An archive of one array, that is small and unfolds to all of it."""
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr("mask.npy", array)
    return path


def header(shape: str, version: bytes = b"\x01\x00", length: bytes | None = None) -> bytes:
    words = f"{{'descr': '|b1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + (length or len(words).to_bytes(2, "little")) + words


def test_a_file_of_more_values_than_the_source_has_places_is_not_unfolded(tmp_path: Path) -> None:
    source = numpy_sequences(tmp_path)
    archive = bomb(tmp_path / "mask.npz", header("(20000000,)") + bytes(20_000_000))
    with (tmp_path / "mask.npy").open("wb") as file:
        file.write(header("(50000000000,)"))
        file.truncate(file.tell() + 50_000_000_000)  # that take no place
    with (tmp_path / "mask.txt").open("wb") as file:
        file.truncate(50_000_000_000)
    one = torch.ones(1, dtype=torch.bool)
    torch.save(one.expand(50_000_000_000), tmp_path / "mask.pt")
    assert archive.stat().st_size < 40_000
    tracemalloc.start()
    for given, message in [
        ({"mask": archive}, f"(shape (20000000,), where {TOKENS} values are the most that fit this source)"),
        ({"lengths": archive}, f"(shape (20000000,), where {SEQUENCES} values are the most that fit this source)"),
        ({"mask": tmp_path / "mask.npy"}, "(shape (50000000000,), where 600 values are the most"),
        ({"mask": tmp_path / "mask.txt"}, "(50,000,000,000 bytes, which are too many for 600 values)"),
        ({"mask": tmp_path / "mask.pt"}, "expected a mask of [40, 15], got shape [50000000000]"),
        ({"mask": one.expand(50_000_000_000)}, "expected a mask of [40, 15], got shape [50000000000]"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)):
            open_layers(source, **given)  # type: ignore[arg-type]
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (header("(600,)") + bytes(599), "the header tells of 600 bytes of values, the file has 599"),
        (header("(600,)") + bytes(601), "the header tells of 600 bytes of values, the file has 601"),
        (header("", b"\x02\x00", b"\0\0\0\x80") + bytes(10**6), "a header of 2,147,483,648 bytes"),
        (header("(-600,)"), "shape (-600,)"),
    ],
)
def test_a_file_whose_header_is_not_of_its_content_is_refused(tmp_path: Path, array: bytes, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        open_layers(numpy_sequences(tmp_path), mask=bomb(tmp_path / "mask.npz", array))


def test_a_mask_in_fortran_s_order_is_that_mask(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.asfortranarray(KEPT))
    layer = open_activations(numpy_sequences(tmp_path), mask=tmp_path / "mask.npy")
    assert torch.equal(torch.cat(list(layer)), BATCHED[torch.from_numpy(KEPT)])


def test_a_pickle_in_a_mask_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([{}] * TOKENS, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="expected a file of mask, could not read it"):
        open_layers(numpy_sequences(tmp_path), mask=tmp_path / "mask.npy")


def autopsae(*words: object) -> None:
    sys.argv = ["autopsae", *map(str, words)]
    main()


def test_every_verb_leaves_padding_out_as_if_it_had_never_been_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    np.savetxt("lengths.txt", KEPT.sum(axis=1), fmt="%d")
    np.save("mask.npy", KEPT)
    np.save("acts.npy", BATCHED.numpy())
    Path("without").mkdir()
    np.save("without/acts.npy", X[torch.from_numpy(KEPT).reshape(-1)].numpy())
    sources = {
        "none": ["without/acts.npy"],
        "lengths": ["acts.npy", "--lengths", "lengths.txt"],
        "mask": ["acts.npy", "--mask", "mask.npy"],
    }
    size = ["--d-sae", 32, "--k", 4]
    for name, source in sources.items():
        autopsae("diagnose", *source, *size, "--json", f"{name}-diagnosis.json")
        autopsae("train", *source, *size, "--out", name, "--steps", 2, "--batch-tokens", 64, "--held-out", 50)
        autopsae("autopsy", f"{name}/sae", *source, "--json", f"{name}-autopsy.json")
    for name in ("lengths", "mask"):
        for result in ("diagnosis.json", "autopsy.json"):
            said, expected = (json.loads(Path(f"{one}-{result}").read_text()) for one in (name, "none"))
            assert said.pop("provenance")["settings"][name] == sources[name][2]
            expected.pop("provenance")
            assert said == expected, (name, result)
        assert Path(name, "sae.safetensors").read_bytes() == Path("none", "sae.safetensors").read_bytes()
