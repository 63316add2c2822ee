"""NumPy files: a `.npy` array [tokens, d_in] or [sequences, tokens, d_in]."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopsae.activations.formats.reading import reading, rows_at
from autopsae.activations.names import printable
from autopsae.activations.parts import NoLayers, Part, shaped
from autopsae.arrays import InputError

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

UNUSABLE = {
    "O": "Python objects (a pickle, which is never loaded; a sparse matrix is saved so too)",
    "V": "structured rows",
    "c": "complex numbers",
    "S": "bytes",
    "U": "text",
    "M": "dates",
    "m": "times",
}
"""What an array is that has no rows of numbers, by NumPy's kind."""


def npy_layers(path: Path) -> dict[str, Part]:
    """The one layer of a `.npy` file. Raises InputError for a damaged one and for what is no array of floats."""
    with reading(path, "a readable .npy matrix", "was it written whole?"), path.open("rb") as file:
        shape, by_column, held = read_header(file)
        offset, size = file.tell(), path.stat().st_size
        dtype = float_type(held, shape, path)
        expected = offset + int(np.prod(shape, dtype=object)) * held.itemsize
        if size != expected:
            raise EOFError(f"the header tells of {expected:,} bytes, the file has {size:,}")
    tokens, d_in, sequence = shaped(shape, path)
    if by_column:
        return {"": _by_column(path, offset, shape, held, tokens)}
    swapped = not held.isnative
    return {
        "": rows_at(path, offset=offset, tokens=tokens, d_in=d_in, dtype=dtype, swapped=swapped, sequence=sequence)
    }


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether it is stored column by column, type) of an array; raises what NumPy does for a broken one."""
    shape, by_column, dtype = HEADERS[np.lib.format.read_magic(file)](file)
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise ValueError(f"shape {shape}")
    return shape, bool(by_column), dtype


def float_type(dtype: np.dtype[Any], shape: tuple[int, ...], where: object) -> torch.dtype:
    """The torch type of a NumPy array. Raises InputError for what is no float16, 32, 64, NoLayers for integers."""
    if dtype.kind == "f" and dtype.itemsize in (2, 4, 8):
        return torch.from_numpy(np.zeros(0, dtype.newbyteorder("="))).dtype
    # The bfloat16 of ml_dtypes and JAX, for which NumPy has no name and writes plain two bytes.
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None and dtype.subdtype is None:
        return torch.bfloat16
    error = NoLayers if dtype.kind in "iub" else InputError
    got = UNUSABLE.get(dtype.kind, str(dtype))
    raise error(
        f"{printable(where)}: expected a float16/32/64 matrix [tokens, d_in], got shape {shape} of {got}; "
        "save floating-point activations"
    )


def _by_column(path: Path, offset: int, shape: tuple[int, ...], held: np.dtype[Any], tokens: int) -> Part:
    """An array in Fortran's order, whose rows lie all over the file: mapped."""
    array: NDArray[Any] = np.memmap(path, mode="r", dtype=held, offset=offset, shape=shape, order="F")
    length = shape[1] if len(shape) == 3 else tokens
    sequences = array if len(shape) == 3 else array[None]

    def read(start: int, stop: int) -> Tensor:
        pieces = [
            sequences[n, max(0, start - n * length) : stop - n * length]
            for n in range(start // length, -(-stop // length))
        ]
        rows = np.concatenate(pieces)
        return torch.from_numpy(rows.astype(held.newbyteorder("="), copy=False).reshape(-1, shape[-1]))

    dtype = float_type(held, shape, path)
    return Part(
        tokens=tokens, d_in=shape[-1], dtype=dtype, read=read, sequence=shape[1] if len(shape) == 3 else None
    )
