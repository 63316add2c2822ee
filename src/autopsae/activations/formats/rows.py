"""Raw rows of a file, and the files that an index names."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autopsae.activations.parts import Part, runs
from autopsae.arrays import InputError
from autopsae.reading import input_errors
from autopsae.words import show

WIDENED = (torch.float8_e4m3fn, torch.float8_e5m2)
"""Types with too few operators to compute with; every value of theirs is one of float32."""


def neighbour(folder: Path, name: object, where: object) -> Path:
    """The file of that name in `folder`. Raises InputError for a name that leads anywhere else."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(c in name for c in "/\\:\0"):
        raise InputError(
            f"{where}: expected the plain names of files in its folder, got {show(name, 80)}"
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
            input_errors(path, "a readable file of activations", "was it changed while it was read?"),
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
