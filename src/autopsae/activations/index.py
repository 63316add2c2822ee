"""The index of a harvested folder: which shards it has, what each must hold, and a digest of each.

Version 2 holds a digest for each shard, and a checksum of all that it says; version 1, which had neither, is read
as it is.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autopsae.activations.formats.rows import neighbour
from autopsae.activations.formats.safetensors import FLOATS, Entry, read_header
from autopsae.arrays import InputError
from autopsae.reading import as_object, input_errors, read_json, whole_of
from autopsae.saved import checksum
from autopsae.words import list_names, printable, show

INDEX = "index.json"
FORMAT = "autopsae-activations"
VERSION = 2

CHECKSUM = "content_sha256"
NAMES = ["layers", "shards", "tokens", "batches_done", "complete", "request", CHECKSUM]
SHARD_NAMES = ["file", "tokens", "digest"]
"""What an index, and each shard in it, must have since version 2; of the first, what it says is compared."""

BLOCK = 4096
"""Bytes of a block that the digest reads."""

SHARD = re.compile(r"shard-\d{5,}\.safetensors")
"""The names that `shard_name` gives."""


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:05d}.safetensors"


def read_index(folder: Path) -> dict[str, Any]:
    """The index of `folder`, in which shards are a list of `file`, `tokens` and, since version 2, `digest`.

    Raises InputError for an index that is damaged, of another format, or names a file outside its folder or twice,
    and for one of version 2 that says something else than its checksum.
    """
    path = folder / INDEX
    index = as_object(read_json(path, f"an index of {FORMAT}"), path)
    held_format, version = index.get("format"), index.get("version", 1)
    if held_format != FORMAT:
        got = show(held_format, 60)
        raise InputError(f"{path}: expected format {FORMAT!r}, got {got}; give another folder")
    if version not in (1, VERSION):
        got = show(version, 60)
        raise InputError(f"{path}: expected version 1 or {VERSION} of {FORMAT}, got {got}; update autopsae")
    _check_names(index, NAMES if version == VERSION else ["shards"], path)
    if not isinstance(index["shards"], list):
        raise InputError(f"{path}: expected a list of shards, got {type(index['shards']).__name__}")
    shards = [as_object(shard, f"{path}: a shard") for shard in index["shards"]]
    for shard in shards:
        _check_names(shard, SHARD_NAMES if version == VERSION else ["file"], path)
    files = [neighbour(folder, shard["file"], path).name for shard in shards]
    if len(set(files)) < len(files):
        twice = next(name for number, name in enumerate(files) if name in files[:number])
        raise InputError(f"{path}: names {twice} twice; harvest the folder again")
    if "tokens" in index and all("tokens" in shard for shard in shards):
        total = sum(whole_of(shard, "tokens", path) for shard in shards)
        if whole_of(index, "tokens", path) != total:
            raise InputError(
                f"{path}: says {index['tokens']:,} tokens, its shards have {total:,}; is a shard "
                "missing from it? harvest the folder again"
            )
    if version == VERSION and index != with_checksum(index):
        raise InputError(
            f"{path}: expected what was harvested, got other content than its checksum says; it was "
            "changed or damaged since: put the harvested one back, or harvest into a new folder"
        )
    return dict(index)


def with_checksum(index: Mapping[str, Any]) -> dict[str, Any]:
    """An index with the checksum of what it says."""
    content = {name: value for name, value in index.items() if name != CHECKSUM}
    return {**content, CHECKSUM: checksum(content)}


def _check_names(held: Mapping[str, Any], names: Sequence[str], path: Path) -> None:
    missing = [name for name in names if name not in held]
    if missing:
        raise InputError(f"{path}: not an index of {FORMAT} (no {list_names(missing)}); harvest it again")


def check_shards(folder: Path, index: Mapping[str, Any]) -> None:
    """Compare every shard with what the index says of it, from its header and its digest alone.

    Raises InputError for the first that is missing, damaged, of another size, or not the one that was written.
    """
    for shard in index["shards"]:
        check_shard(folder, index, shard)


def check_shard(folder: Path, index: Mapping[str, Any], shard: Mapping[str, Any]) -> None:
    """Compare one shard with what the index says of it. Raises InputError as `check_shards`."""
    path = folder / shard["file"]
    if not path.is_file():
        raise InputError(
            f"{folder}: the index names {path.name}, which is gone; put it back, or harvest into a new folder"
        )
    check_header(path, index, shard)
    if index.get("version") == VERSION:
        check_digest(path, shard)


def check_header(path: Path, index: Mapping[str, Any], shard: Mapping[str, Any]) -> None:
    """Compare the header of a shard with what the index says. Raises InputError as `check_shards`."""
    entries, _ = read_header(path)
    _check_entries(path, entries, index.get("layers"), shard)
    if "header" in shard and shard["header"] != header_digest(path):
        raise _other_shard(path, "header")


def check_digest(path: Path, shard: Mapping[str, Any]) -> None:
    """Compare the blocks of a shard that the digest reads. Raises InputError as `check_shards`."""
    if shard.get("digest") != digest(path):
        raise _other_shard(path, "digest")


def _other_shard(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: not the shard that was harvested (its {what} differs from the index's); put "
        "the harvested one back, or harvest into a new folder"
    )


def header_digest(path: Path) -> str:
    """SHA-256 of the header of a shard, which has the SHA-256 of each of its tensors: so of all that it holds."""
    with input_errors(path, "a readable shard", "was it written whole?"), path.open("rb") as file:
        length = file.read(8)
        return hashlib.sha256(length + file.read(int.from_bytes(length, "little"))).hexdigest()


def index_digest(index: Mapping[str, Any]) -> str:
    """Tells a store from another: the checksum of what its index says, wherever a copy of it lies."""
    return str(with_checksum(index)[CHECKSUM])[:32]


def _check_entries(path: Path, entries: Mapping[str, Entry], layers: object, shard: Mapping[str, Any]) -> None:
    held = {
        name: {"d_in": entry.shape[1], "dtype": str(FLOATS[entry.dtype]).removeprefix("torch.")}
        for name, entry in entries.items()
        if entry.dtype in FLOATS and len(entry.shape) == 2
    }
    if layers is not None and held != layers:
        raise InputError(
            f"{path}: expected the layers of the index, {printable(layers, 200)}, got "
            f"{printable(held, 200)}; were two harvests written into one folder?"
        )
    tokens = {entry.shape[0] if entry.shape else 0 for entry in entries.values()}
    if "tokens" in shard and tokens != {shard["tokens"]}:
        got = ", ".join(f"{n:,}" for n in sorted(tokens))
        raise InputError(
            f"{path}: expected {shard['tokens']:,} tokens as the index says, got {got or 'none'}; put "
            "the harvested shard back, or harvest into a new folder"
        )


def digest(path: Path) -> str:
    """Tells a shard from another: its size, its header, and blocks evenly spaced over its values.

    At least eight blocks, and two for each tensor: a few reads, however large the shard. It does not find a change
    of a few bytes between them.
    """
    entries, _ = read_header(path)
    with input_errors(path, "a readable shard", "was it written whole?"), path.open("rb") as file:
        size = path.stat().st_size
        data = 8 + int.from_bytes(file.read(8), "little")
        file.seek(0)
        hashed = hashlib.sha256(f"{size} ".encode() + file.read(data))
        blocks = max(8, 2 * len(entries))
        for number in range(blocks):
            # From the first block of the values to the last, whose end is the file's.
            file.seek(data + max(0, size - data - BLOCK) * number // (blocks - 1))
            hashed.update(file.read(BLOCK))
    return hashed.hexdigest()[:32]
