"""What was saved is checked when it is read back: names, types, shapes, sizes, finiteness and checksums.

Words and numbers are a JSON object that holds its own checksum. What is made of words, numbers and tensors is a
pair: NAME.json, and NAME.safetensors whose checksum the JSON holds too. Files of the first version, whose JSON had
no checksum, are read, and checked in all other respects. Each JSON says what wrote it (`provenance`), which is no
part of its content: it is covered by the checksum, and neither returned nor compared.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import pair_files, raw_bytes, write_tensors, write_text
from autopsae.kinds import Kind, check_kind
from autopsae.mirror import copy_of
from autopsae.provenance import PROVENANCE, provenance
from autopsae.reading import check_regular, input_errors, parse, read_bytes
from autopsae.urls import is_file_there
from autopsae.words import show

VERSION = 2
"""Of our JSON files. Those of version 1 lack `content_sha256`."""

_CHECKSUM = "content_sha256"
_HEADER = ("format", "version", _CHECKSUM)
_TENSORS = "sha256"
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def save_object(path: str | Path, *, format: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write `content` as JSON with its checksum, whole or not at all, and return it as `load_object` will.

    Numbers that are not finite become null.
    """
    written, wrote = as_json(content), {PROVENANCE: as_json(provenance())}
    whole = {"format": format, "version": VERSION, **wrote, **written, _CHECKSUM: checksum(wrote | written)}
    write_text(path, json.dumps(whole, indent=2, allow_nan=False) + "\n")
    return written


def save_result(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a result as JSON, with what wrote it (`provenance`), whole or not at all. It is not read back."""
    write_text(path, json.dumps({**content, PROVENANCE: provenance()}, indent=2, allow_nan=False) + "\n")


def load_object(path: str | Path, *, format: str, kind: Kind) -> dict[str, Any]:
    """The content of a JSON file that `save_object` wrote, or the first version of the library, without a header.

    Raises InputError for one that is missing, damaged, too large, of another format, or not of this kind.
    """
    path = Path(path)
    saved = _read_object(path, format)
    return _check(path, saved, format, kind, unsigned=not {*_HEADER} & {*saved})


def provenance_of(path: Path) -> dict[str, Any]:
    """What wrote a JSON file of ours; {} where it does not say. Raises InputError for a file that is no JSON."""
    with input_errors(path, "a JSON file of autopsae", "take an earlier copy, or make it anew"):
        content = parse(read_bytes(path))
    told = content.get(PROVENANCE) if isinstance(content, dict) else None
    return told if isinstance(told, dict) else {}


def save_pair(
    path: str | Path, *, format: str, content: Mapping[str, Any], tensors: Mapping[str, Tensor | None]
) -> None:
    """Write `path`.json and `path`.safetensors; tensors that are None are left out.

    The JSON is written last and holds the checksum of the tensors, so a half-saved pair cannot be loaded. A pair of
    the same format is replaced. Raises InputError for one of another, as `check_free`.
    """
    check_free(path, format=format)
    described, stored = pair_files(path)
    digest = write_tensors(stored, {name: t for name, t in tensors.items() if t is not None})
    save_object(described, format=format, content={**content, _TENSORS: digest})


def check_free(path: str | Path, *, format: str) -> None:
    """InputError where the JSON of a pair `path` is there and has another format: no SAE gives way to a
    prescription.
    """
    described = pair_files(path)[0]
    try:
        there = parse(read_bytes(described)) if is_file_there(described) else None
    except ValueError:  # InputError too: what cannot be read is no pair of ours
        return
    taken = there.get("format") if isinstance(there, dict) else None
    if taken not in (None, format):
        raise InputError(f"{path}: expected a new name, or {format}, got {show(taken, 80)}; pass another name")


def load_pair(path: str | Path, *, format: str, kind: Kind) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(content, tensors) that `save_pair` wrote; `path` with or without a suffix. kind: of the content.

    Raises InputError for a missing, foreign, damaged, incomplete or half-saved pair. Whether the tensors are those
    that the content promises is for `check_tensors` to say.
    """
    described, stored = pair_files(path)
    saved = _read_object(described, format, called=Path(path))
    stored = copy_of(stored)
    first = (saved.get("format"), saved.get("version")) == (format, 1) and _CHECKSUM not in saved
    digest = saved.pop(_TENSORS, None)  # of any type here, as it is compared with that of the tensors
    content = _check(described, saved, format, kind, unsigned=first)
    with input_errors_of_saved(stored, format):
        check_regular(stored)
        with stored.open("rb") as file:
            same = digest == file_digest(file, "sha256").hexdigest()
        if not same:
            raise InputError(f"{stored}: not the tensors that {described.name} describes; save the pair again")
        return content, read_tensors(stored)[1]


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(the metadata of a safetensors file, its tensors). For within `input_errors_of_saved`."""
    check_regular(path)
    with safe_open(path, framework="pt") as opened:
        return opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a saved tensor must be."""

    shape: tuple[int, ...]
    dtypes: Collection[torch.dtype] = FLOATS
    finite: bool = True
    """No NaN and no infinity."""
    needed: bool = True
    """False where the file may lack it."""


def check_tensors(path: str | Path, tensors: Mapping[str, Tensor], layouts: Mapping[str, Layout]) -> None:
    """InputError, naming the tensor, unless these are the tensors that `layouts` describes, and no others."""
    missing = [name for name, layout in layouts.items() if layout.needed and name not in tensors]
    more = [name for name in tensors if name not in layouts]
    if missing or more:
        wrong = f"it lacks {', '.join(missing)}" if missing else f"got also {show(more)}"
        raise InputError(f"{path}: expected the tensors {', '.join(layouts)}, but {wrong}; save it again")
    for name, layout in layouts.items():
        if name not in tensors:
            continue
        tensor = tensors[name]
        if tuple(tensor.shape) != layout.shape or tensor.dtype not in layout.dtypes:
            types = " or ".join(_short(dtype) for dtype in layout.dtypes)
            raise InputError(
                f"{path}: {name}: expected shape {layout.shape} of {types}, got {tuple(tensor.shape)} of "
                f"{_short(tensor.dtype)}; save it again"
            )
        if layout.finite and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise InputError(
                f"{path}: {name}: expected finite values, got NaN or infinite ones in {bad:,} of "
                f"{tensor.numel():,} places; take an earlier one"
            )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` as it will be read back: names are text, tuples lists, numbers that are not finite None."""
    read_back: dict[str, Any] = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return read_back


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON says, however it is laid out; not of the tensors' own checksum in it."""
    rest = _without(content, _TENSORS)
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tensors_checksum(words: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of `words` and of the names, types, shapes and values of tensors."""
    digest = sha256(words.encode())
    for name in sorted(tensors):
        digest.update(f"\n{name} {_short(tensors[name].dtype)} {tuple(tensors[name].shape)}\n".encode())
        digest.update(raw_bytes(tensors[name]))
    return digest.hexdigest()


def _read_object(path: Path, format: str, called: Path | None = None) -> dict[str, Any]:
    """called: the name by which the user called it."""
    with input_errors_of_saved(called or path, format):
        content = parse(read_bytes(path))
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a saved {format}, got {show(content)}; take an earlier copy, or make it anew"
        )
    return content


def _check(path: Path, saved: dict[str, Any], format: str, kind: Kind, *, unsigned: bool) -> dict[str, Any]:
    """What stands under the header, if it is of this kind and, unless `unsigned`, header and checksum are right."""
    signed = _without(saved, *_HEADER)
    content = _without(signed, PROVENANCE)
    if not unsigned and (saved.get("format"), saved.get("version")) != (format, VERSION):
        got = f"{show(saved.get('format'))} version {show(saved.get('version'))}"
        raise InputError(f"{path}: expected format {format!r} version {VERSION} or 1, got {got}")
    check_kind(path, content, kind)
    if not unsigned and saved.get(_CHECKSUM) != checksum(signed):
        raise InputError(
            f"{path}: expected what was saved, got other content than its checksum says; it was changed or "
            "damaged since: take an earlier copy, or make it anew"
        )
    return content


def _without(content: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def input_errors_of_saved(path: Path, format: str) -> AbstractContextManager[None]:
    """InputError for whatever keeps a file of ours from being read."""
    return input_errors(path, f"a saved {format}", "take an earlier copy, or make it anew")
