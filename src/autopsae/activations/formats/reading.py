"""Reading files that may be anything: regular ones only, JSON within bounds, raw rows, one error class."""

import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autopsae.activations.names import printable
from autopsae.activations.parts import Part, runs
from autopsae.arrays import InputError

MOST_JSON = 32 * 2**20
"""Bytes of a JSON file at most: an index of 200,000 shards has fewer."""

WIDENED = (torch.float8_e4m3fn, torch.float8_e5m2)
"""Types with too few operators to compute with; every value of theirs is one of float32."""


@contextmanager
def reading(where: object, what: str, again: str) -> Iterator[None]:
    """Whatever a reader raises within is one InputError: `where` is not `what`; `again` says what to try."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged bytes can end in any of Python's errors
        lines = str(error).splitlines()
        reason = printable(f"{type(error).__name__}: {lines[0] if lines else ''}", 200)
        raise InputError(f"{printable(where)}: not {what} ({reason}); {again}") from error


def is_folder(path: Path) -> bool:
    """False for a regular file. Raises InputError for what is neither, is not there or cannot be opened.

    A pipe would be waited for, and a device has no end.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{printable(path)}: no such file or folder; {_pair_named(path)}") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{printable(path)}: cannot be opened ({printable(error, 200)}); check the name"
        ) from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InputError(
            f"{printable(path)}: expected a regular file or a folder, got a pipe or a device; write it to a file"
        )
    return stat.S_ISDIR(mode)


def _pair_named(path: Path) -> str:
    """What to try. A saved SAE or prescription is known by its name without a suffix, and is no activations."""
    if path.with_name(path.name + ".json").is_file() and path.with_name(path.name + ".safetensors").is_file():
        return "there is an SAE or a prescription of that name, expected are activations"
    return "check the name"


def read_json(path: Path, what: str = "a readable JSON file") -> Any:
    """What a JSON file holds. Raises InputError for a file that is missing, over `MOST_JSON`, or no JSON."""
    if is_folder(path):
        raise InputError(f"{printable(path)}: expected {what}, got a folder")
    with reading(path, what, "get it again"):
        if path.stat().st_size > MOST_JSON:
            raise InputError(
                f"{printable(path)}: expected a JSON file of at most {MOST_JSON:,} bytes, got "
                f"{path.stat().st_size:,}"
            )
        return json.loads(path.read_text(encoding="utf-8"))


def as_object(value: object, where: object) -> Mapping[str, Any]:
    """A JSON object, or InputError."""
    if not isinstance(value, dict):
        raise InputError(f"{printable(where)}: expected a JSON object, got {printable(repr(value), 60)}")
    return value


def count_of(content: Mapping[str, Any], name: str, where: object) -> int:
    """A number of things (0 or more) in a JSON object, or InputError."""
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{printable(where)}: {name}: expected a whole number, got {printable(repr(value), 60)}")
    return value


def neighbour(folder: Path, name: object, where: object) -> Path:
    """The file of that name in `folder`. Raises InputError for a name that leads anywhere else."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(c in name for c in "/\\:\0"):
        raise InputError(
            f"{printable(where)}: expected the plain names of files in its folder, got {printable(repr(name), 80)}"
            "; an index must not lead out of its folder"
        )
    return folder / name


def rows_at(
    path: Path,
    *,
    offset: int,
    tokens: int,
    d_in: int,
    dtype: torch.dtype,
    swapped: bool = False,
    sequence: int | None = None,
    block: int | None = None,
    stride: int = 0,
) -> Part:
    """Rows that lie in a file one after the other, from byte `offset` on.

    swapped: in the other byte order. block, stride: the rows come in blocks of `block`, which start `stride` bytes
    apart. Read with plain reads rather than mapped: a file that is cut meanwhile is then an error, not a crash.
    """
    row = d_in * dtype.itemsize

    def read(start: int, stop: int) -> Tensor:
        held = np.empty((stop - start) * row, dtype=np.uint8)
        view, done, size = memoryview(held.data), 0, block or tokens
        with (
            reading(path, "a readable file of activations", "was it changed while it was read?"),
            path.open("rb") as file,
        ):
            for number, first, last in runs(start, stop, size):
                file.seek(offset + number * stride + first * row)
                if file.readinto(view[done : done + (last - first) * row]) != (last - first) * row:
                    raise EOFError(f"it ends before row {stop:,}")
                done += (last - first) * row
        if swapped:
            held = held.view(f"u{dtype.itemsize}").byteswap().view(np.uint8)
        rows = torch.from_numpy(held).view(dtype).view(stop - start, d_in)
        return rows.float() if dtype in WIDENED else rows

    given = torch.float32 if dtype in WIDENED else dtype
    return Part(tokens=tokens, d_in=d_in, dtype=given, read=read, sequence=sequence)
