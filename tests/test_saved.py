"""What is read back is what was saved, or an InputError that names what is wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.kinds import (
    anything,
    fields,
    flag,
    list_of,
    mapping_of,
    nothing_or,
    number,
    one_of,
    text,
    whole,
)
from autopsae.reading import DEEPEST, MOST_JSON, parse
from autopsae.remedies.affine import Affine, check_inverse
from autopsae.remedies.remedy import Remedy, whiten, z_score
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, Sparsity, TopK
from autopsae.saved import load_object, save_object
from autopsae.statistics.spectrum import Spectrum
from tests.damage import change_object, change_pair, flips

pytestmark = pytest.mark.quick

Change = Callable[[dict[str, Tensor]], object]


def put(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors: tensors.__setitem__(name, change(tensors[name]))


def take(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


# JSON


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 2}', "a name stands twice"),
        (b"[" * (DEEPEST + 2) + b"]" * (DEEPEST + 2), f"over {DEEPEST} levels"),
        (b"[" * 10**6, f"over {DEEPEST} levels"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b"\xff", "can't decode byte"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b"9" * 5000, "4300 digits"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_sound_json_is_a_value_error(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(data)


def test_numbers_that_are_not_finite_are_absent() -> None:
    assert parse(b'{"a": NaN, "b": [-Infinity, 1e999], "c": 1e300}') == {"a": None, "b": [None, None], "c": 1e300}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (text, ["", "a"], [1, None, ["a"]]),
        (flag, [True, False], [0, 1, "true", None]),
        (whole(), [1, 2**53], [0, -1, 1.0, True, "1", None, 2**53 + 1, 10**400]),
        (number(), [0, -1.5, 1e307], [True, "1", None, 10**400, float("nan"), float("inf")]),
        (number(over=0.0), [5e-324, 1], [0, 0.0, -1]),
        (one_of("a", "b"), ["a", "b"], ["c", ["a"], None, 1]),
        (nothing_or(text), [None, "a"], [1]),
        (list_of(whole()), [[], [1, 2]], [None, {}, [1, 0]]),
        (mapping_of(text), [{}, {"x": "a"}], [None, [], {"x": 1}]),
        (fields({"a": text}), [{"a": "b"}], [{}, {"a": 1}, {"a": "b", "c": 1}, []]),
        (fields({"a": text}, others=whole()), [{"a": "b", "c": 1}], [{"a": "b", "c": "d"}]),
        (anything, [None, 1, [{}]], []),
    ],
)
def test_a_kind_tells_good_values_from_bad_ones(kind: Any, good: list[object], bad: list[object]) -> None:
    assert [kind(value) for value in good] == [None] * len(good)
    assert all(": expected" in kind(value) for value in bad)


def test_what_is_wrong_is_told_by_its_place() -> None:
    kind = fields({"members": list_of(fields({"step": whole(0)}))})
    assert kind({"members": [{"step": 1}, {"step": True}]}) == (
        f".members[1].step: expected a whole number from 0 to {2**53}, got True"
    )
    assert kind({}) == ": expected members, but it lacks members"
    assert kind({"members": [], "more": 1}) == ": expected only members, got also ['more']"


CONTENT: dict[str, Any] = {"words": "ä", "count": 3, "parts": [1.5, None, {"a": True}]}
KIND = fields({"words": text, "count": whole(), "parts": list_of(anything)})


def test_an_object_is_read_as_it_was_saved_and_numbers_that_are_not_finite_as_absent(tmp_path: Path) -> None:
    saved = save_object(tmp_path / "o.json", format="ours", content={**CONTENT, "parts": (float("nan"), 2)})
    assert load_object(tmp_path / "o.json", format="ours", kind=KIND) == saved
    assert saved["parts"] == [None, 2]


def test_a_flipped_bit_in_an_object_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    save_object(path, format="ours", content=CONTENT)
    found = 0
    for damaged in flips(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            assert load_object(path, format="ours", kind=KIND) == CONTENT
        except InputError:
            found += 1
    assert found > 100


def test_an_object_without_a_header_is_read_as_of_the_first_version(tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text(json.dumps(CONTENT))
    assert load_object(tmp_path / "o.json", format="ours", kind=KIND) == CONTENT
    (tmp_path / "o.json").write_text(json.dumps({**CONTENT, "version": 3, "format": "ours"}))
    with pytest.raises(InputError, match="expected format 'ours' version 2 or 1, got 'ours' version 3"):
        load_object(tmp_path / "o.json", format="ours", kind=KIND)


def test_a_file_that_is_missing_a_folder_a_pipe_or_too_large_is_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(50 << 30)  # takes no room on the disk
    (tmp_path / "list").write_text("[]")
    messages = {
        "missing": "could not read it (there is no such file); check the name",
        ".": "could not read it (a folder, not a file); take an earlier copy",
        "pipe": "could not read it (a pipe or a device, not a file); take",
        "large": f"could not read it (over {MOST_JSON:,} bytes); take",
        "list": "expected a saved ours, got []; take",
    }
    for name, message in messages.items():
        with pytest.raises(InputError) as raised:
            load_object(tmp_path / name, format="ours", kind=KIND)
        assert message in str(raised.value)


# Maps and their inverses


def whitening(decades: float, rotation: float) -> Affine:
    drawn = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = torch.linalg.qr(torch.eye(64, dtype=torch.float64) + rotation * drawn)[0]
    covariance = (directions * torch.logspace(0, -decades, 64, dtype=torch.float64)) @ directions.T
    spectrum = Spectrum.of((covariance + covariance.T) / 2)
    return whiten(spectrum, torch.zeros(64, dtype=torch.float64)).affine


MAPS = {
    **{f"{d} decades, rotated by {r}": whitening(d, r) for d in (0.1, 6, 12, 16) for r in (1.0, 1e-3, 1e-8, 0.0)},
    "z-score over 20 decades": z_score(torch.logspace(0, -20, 64, dtype=torch.float64), torch.zeros(64)).affine,
}


@pytest.mark.parametrize("name", MAPS)
def test_the_inverse_of_a_badly_conditioned_map_passes_in_every_type(name: str) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        linear, inverse = MAPS[name].linear, MAPS[name].inverse
        assert linear is not None
        assert inverse is not None
        check_inverse(linear.to(dtype), inverse.to(dtype), "p")


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("change", [lambda t: -3 * t, lambda t: t + 1, lambda t: t * 0, lambda t: t * 1.01])
def test_what_is_no_inverse_is_refused(name: str, change: Callable[[Tensor], Tensor]) -> None:
    linear, inverse = MAPS[name].linear, MAPS[name].inverse
    assert inverse is not None
    with pytest.raises(InputError, match="p: expected an inverse that undoes linear, got one that does not"):
        check_inverse(linear, change(inverse), "p")


# Prescriptions

LINEAR = torch.eye(8, dtype=torch.float64) * 2


def prescription(path: Path) -> Prescription:
    affine = Affine(center=torch.arange(8.0, dtype=torch.float64), linear=LINEAR, inverse=LINEAR / 4)
    remedy = Remedy(name="whiten_0.3", instruction="a", affine=affine, subspace=torch.eye(8)[:3])
    made = Prescription(remedy=remedy, reason="r", layer="l", d_sae=64, sparsity=TopK(k=4))
    made.save(path)
    return made


NOT_FINITE = "expected finite values, got NaN or infinite ones in 8 of 8 places"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("center", lambda t: t * torch.nan), f"center: {NOT_FINITE}"),
        (put("center", lambda t: t * 0 + torch.inf), f"center: {NOT_FINITE}"),
        (put("inverse", lambda t: t * torch.nan), "inverse: expected finite values"),
        (put("linear", lambda t: t * torch.inf), "linear: expected finite values"),
        (put("subspace", lambda t: t * torch.inf), "subspace: expected finite values"),
        (take("linear"), "expected both linear and inverse, or neither, got inverse without linear"),
        (take("inverse"), "expected both linear and inverse, or neither, got linear without inverse"),
        (put("inverse", lambda t: -3 * t), "expected an inverse that undoes linear"),
        (put("center", lambda t: t.long()), "center: expected shape (8,) of float64 or float32 or bfloat16"),
        (put("center", lambda t: t.to(torch.complex64)), "got (8,) of complex64"),
        (put("center", lambda t: t > 0), "got (8,) of bool"),
        (put("center", lambda t: t[0].clone()), "got () of float64"),
        (put("center", lambda t: t[:7]), "got (7,) of float64"),
        (put("linear", lambda t: t[:7]), "linear: expected shape (8, 8)"),
        (put("inverse", lambda t: t.reshape(-1)), "inverse: expected shape (8, 8)"),
        (put("subspace", lambda t: t[:, :7]), "subspace: expected shape (3, 8)"),
        (put("subspace", lambda t: t[0]), "subspace: expected shape"),
        (put("subspace", lambda t: t[:0]), "subspace: expected shape (1, 8)"),
        (put("subspace", lambda t: t.repeat(3, 1)), "subspace: expected shape (8, 8)"),
        (put("subspace", lambda t: t * 2), "subspace: expected orthonormal rows"),
        (take("center"), "expected the tensors center, linear, inverse, subspace, but it lacks center"),
        (lambda t: t.__setitem__("more", LINEAR), "but got also ['more']"),
    ],
)
def test_a_prescription_with_other_tensors_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    prescription(tmp_path / "p")
    change_pair(tmp_path / "p", change)
    with pytest.raises(InputError) as raised:
        Prescription.load(tmp_path / "p")
    assert str(raised.value).startswith(f"{tmp_path / 'p.safetensors'}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"d_sae": "many"}, ".d_sae: expected a whole number from 1 to"),
        ({"k": True}, ".k: expected a whole number"),
        ({"k": 1.5}, ".k: expected a whole number"),
        ({"d_in": 7}, "center: expected shape (7,)"),
        ({"layer": 7}, ".layer: expected text, got 7"),
        ({"remedy": ["x"]}, ".remedy: expected text, got ['x']"),
        ({"remedy": None}, ".remedy: expected text, got None"),
        ({"reason": ...}, "but it lacks reason"),
        ({"more": 1}, "got also ['more']"),
        ({"sha256": 7}, "not the tensors that p.json describes"),
    ],
)
def test_a_prescription_with_other_words_or_numbers_is_refused(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    prescription(tmp_path / "p")
    change_object(tmp_path / "p.json", **content)
    with pytest.raises(InputError) as raised:
        Prescription.load(tmp_path / "p")
    assert message in str(raised.value)


def test_a_flipped_bit_in_a_pair_is_found_or_changes_nothing(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 16, dtype=torch.float64).view(2, 8)
    saved = prescription(tmp_path / "p")
    for path in (tmp_path / "p.json", tmp_path / "p.safetensors"):
        whole_file = path.read_bytes()
        for damaged in flips(whole_file, every=3):
            path.write_bytes(damaged)
            try:
                loaded = Prescription.load(tmp_path / "p")
            except InputError:
                continue
            assert path.suffix == ".json"
            assert (loaded.remedy.name, loaded.layer) == ("whiten_0.3", "l")
            assert (loaded.d_sae, loaded.sparsity) == (64, TopK(k=4))
            assert torch.equal(loaded.remedy.affine(x), saved.remedy.affine(x))
        path.write_bytes(whole_file)


# SAEs


def an_sae(path: Path, sparsity: Sparsity | None = None) -> SAE:
    W, sparsity = torch.cos(torch.arange(256.0)).view(32, 8), sparsity or TopK(k=4)
    threshold = torch.full((32,), 0.1) if isinstance(sparsity, JumpReLU) else None
    center = torch.arange(8.0, dtype=torch.float64)
    affine = Affine(center=center, linear=LINEAR, inverse=LINEAR / 4, scale=0.5)
    made = SAE(W_enc=W, W_dec=W, b_dec=W[0], b_enc=W[:, 0], sparsity=sparsity, threshold=threshold, affine=affine)
    made.save(path)
    return made


@pytest.mark.parametrize(
    ("change", "content", "message"),
    [
        (take("inverse"), {}, "got linear without inverse"),
        (take("linear"), {}, "got inverse without linear"),
        (put("inverse", lambda t: -3 * t), {}, "expected an inverse that undoes linear"),
        (put("b_dec", lambda t: t[0].clone()), {}, "b_dec: expected shape (8,) of float32, got () of float32"),
        (put("b_dec", lambda t: t[:4]), {}, "b_dec: expected shape (8,)"),
        (put("b_enc", lambda t: t[:4]), {}, "b_enc: expected shape (32,)"),
        (put("center", lambda t: t[:4]), {}, "center: expected shape (8,)"),
        (put("inverse", lambda t: t.reshape(-1)), {}, "inverse: expected shape (8, 8)"),
        (
            put("W_dec", lambda t: t.double()),
            {},
            "W_dec: expected shape (32, 8) of float32, got (32, 8) of float64",
        ),
        (put("W_dec", lambda t: t.bfloat16()), {}, "of bfloat16"),
        (put("W_enc", lambda t: t.to(torch.complex64)), {}, "of complex64"),
        (put("W_dec", lambda t: t.to(torch.float8_e4m3fn)), {}, "of float8_e4m3fn"),
        (put("center", lambda t: t > 0), {}, "of bool"),
        (put("W_enc", lambda t: t * torch.inf), {}, "W_enc: expected finite values"),
        (take("center"), {}, "it lacks center"),
        (lambda t: t.__setitem__("more", LINEAR), {}, "got also ['more']"),
        (lambda t: t.__setitem__("log_threshold", t["W_enc"][:, 0]), {}, "got also ['log_threshold']"),
        (lambda t: None, {"scale": 10**40}, "scale: expected a number that torch.float32 can hold, got 1e+40"),
        (lambda t: None, {"scale": 1e-50}, "scale: expected a number that torch.float32 can hold"),
        (lambda t: None, {"scale": True}, "scale: expected a number over 0"),
        (lambda t: None, {"scale": 1e308}, "scale: expected a number over 0"),
        (lambda t: None, {"scale": "1"}, "scale: expected a number over 0"),
        (lambda t: None, {"layer_norm": 1}, "layer_norm: expected true or false, got 1"),
        (lambda t: None, {"d_sae": 31}, "W_enc: expected shape (31, 8)"),
        (lambda t: None, {"d_in": 8.0}, "d_in: expected a whole number"),
        (lambda t: None, {"sparsity": "topk"}, "sparsity: expected an object with names"),
        (lambda t: None, {"sparsity": {"name": "topk"}}, "but it lacks k"),
        (lambda t: None, {"sparsity": {"name": "topk", "k": 1.5}}, "k: expected a whole number"),
        (lambda t: None, {"sparsity": {"name": "topk", "k": True}}, "k: expected a whole number"),
        (lambda t: None, {"sparsity": {"name": "topk", "k": 33}}, "expected 1 <= k <= d_sae = 32, got k = 33"),
        (lambda t: None, {"sparsity": {"name": "topk", "k": 1, "more": 2}}, "got also ['more']"),
        (lambda t: None, {"sparsity": {"name": "jumprelu", "bandwidth": 0.3}}, "it lacks log_threshold"),
    ],
)
def test_an_sae_of_parts_that_do_not_fit_is_refused(
    tmp_path: Path, change: Change, content: dict[str, Any], message: str
) -> None:
    an_sae(tmp_path / "s")
    change_pair(tmp_path / "s", change, **content)
    with pytest.raises(InputError) as raised:
        SAE.load(tmp_path / "s")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("sparsity", "name", "value", "message"),
    [
        (JumpReLU(), "log_threshold", torch.full((32,), 1000.0), "expected finite thresholds"),
        (JumpReLU(), "log_threshold", torch.full((32,), torch.nan), "log_threshold: expected finite values"),
        (JumpReLU(), "log_threshold", torch.zeros(31), "log_threshold: expected shape (32,)"),
        (BatchTopK(k=2), "learned_threshold", torch.tensor(torch.inf), "expected finite thresholds"),
        (BatchTopK(k=2), "learned_threshold", torch.zeros(32), "learned_threshold: expected shape ()"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(
    tmp_path: Path, sparsity: Sparsity, name: str, value: Tensor, message: str
) -> None:
    an_sae(tmp_path / "s", sparsity)
    change_pair(tmp_path / "s", put(name, lambda _: value))
    with pytest.raises(InputError) as raised:
        SAE.load(tmp_path / "s")
    assert message in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sparsity", [TopK(k=4), BatchTopK(k=4), JumpReLU()], ids=lambda one: one.name)
def test_an_sae_of_any_type_is_read_back_bit_by_bit(tmp_path: Path, sparsity: Sparsity, dtype: torch.dtype) -> None:
    saved = an_sae(tmp_path / "s", sparsity).to(dtype)
    saved.save(tmp_path / "s")
    loaded = SAE.load(tmp_path / "s")
    for name, value in saved.state_dict().items():
        assert torch.equal(
            loaded.state_dict()[name].nan_to_num(7.0), value.nan_to_num(7.0).to(loaded.state_dict()[name])
        )
