"""Files that exist whole or not at all: written beside their place, flushed to disk, then renamed into it.

What is made of words, numbers and tensors is a pair: NAME.json, and NAME.safetensors whose checksum the JSON holds.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from autopsae.arrays import InputError


def write_whole(path: str | Path, write: Callable[[Path], None]) -> None:
    """Create or replace `path` with what `write(temporary path)` leaves, or leave it untouched on any failure.

    The temporary file, `.NAME.*.partial` in the same folder, is removed if `write` fails or is interrupted.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        write(temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """`write_whole` for text in UTF-8."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_whole(path, write)


def write_folder(path: str | Path, write: Callable[[Path], None]) -> None:
    """Create the folder `path` with what `write(temporary folder)` leaves, or nothing on any failure.

    Raises InputError where there is something already.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: expected a new or empty folder, got one that holds something; pass another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        temporary.mkdir()
        write(temporary)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def differing(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The names under which what lies in a file is not what is asked for: it cannot be resumed as that."""
    return [key for key in {**there, **asked} if there.get(key, ...) != asked.get(key, ...)]


def changes(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What is `differing`, with both values, as the end of an error message."""
    return "; ".join(f"{key} {there.get(key)}, got {asked.get(key)}" for key in differing(there, asked))


def save_pair(
    path: str | Path, *, format: str, content: Mapping[str, Any], tensors: Mapping[str, Tensor | None]
) -> None:
    """Write `path`.json and `path`.safetensors; tensors that are None are left out.

    The JSON is written last and holds the checksum of the tensors, so a half-saved pair cannot be loaded.
    """
    described, stored = pair_files(path)
    present = {name: t.detach().cpu().contiguous() for name, t in tensors.items() if t is not None}
    write_whole(stored, lambda temporary: save_file(present, temporary))
    header = {"format": format, "version": 1}
    write_text(described, json.dumps({**header, **content, "sha256": _checksum(stored)}, indent=2) + "\n")


def load_pair(
    path: str | Path, *, format: str, content: Collection[str], tensors: Collection[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(content, tensors) that `save_pair` wrote; `path` with or without a suffix. content, tensors: names that must
    be there.

    Raises InputError for a missing, foreign, damaged, incomplete or half-saved pair.
    """
    described, stored = pair_files(path)
    try:
        described_content = json.loads(described.read_text(encoding="utf-8"))
        found = (described_content["format"], described_content["version"])
        if found != (format, 1):
            raise InputError(
                f"{described}: expected format {format!r} version 1, got {found[0]!r} version {found[1]}"
            )
        if described_content["sha256"] != _checksum(stored):
            raise InputError(f"{stored}: not the tensors that {described.name} describes; save the pair again")
        stored_tensors = load_file(stored)
        missing = {*content} - {*described_content} | {*tensors} - {*stored_tensors}
        if missing:
            raise InputError(
                f"{path}: expected a whole {format}, it lacks {', '.join(sorted(missing))}; save it again"
            )
        return described_content, stored_tensors
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: expected a saved {format}, could not read it ({error!r}); save it again"
        ) from error


def pair_files(path: str | Path) -> tuple[Path, Path]:
    """The two files of a pair, JSON first; `path` with or without a suffix."""
    stem = Path(path)
    if stem.suffix in (".json", ".safetensors"):
        stem = stem.with_suffix("")
    # Not with_suffix: a layer's name may hold dots ("layers.3.mlp").
    return stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".safetensors")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
