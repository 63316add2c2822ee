"""NumPy files: a `.npy` array [tokens, d_in] or [sequences, tokens, d_in], or a `.npz` archive of such arrays."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any
from zipfile import ZipExtFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopsae.activations.formats.rows import rows_at
from autopsae.activations.formats.streams import forward_only
from autopsae.activations.formats.weights import refuse_weights
from autopsae.activations.names import layer_name
from autopsae.activations.parts import NoLayers, Part, runs, shape_as_tokens
from autopsae.arrays import CHUNK_TOKENS, InputError
from autopsae.reading import input_errors

MOST_HEADER = 2**16
"""Bytes of a header at most. NumPy reads as many as the file says, up to 4 GiB, before it refuses over 10,000."""

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

UNUSABLE = {
    "O": "Python objects, a pickle, which is never loaded",
    "V": "structured rows",
    "S": "bytes",
    "U": "text",
    "M": "dates",
    "m": "times",
}
"""What an array is that has no rows of numbers, by NumPy's kind."""


def npy_layer(path: Path) -> list[Part]:
    """The one layer of a `.npy` file, which gives it no name.

    Raises InputError for a damaged file, NoLayers for what is no array of floats.
    """
    with input_errors(path, "a readable .npy matrix", "was it written whole?"), path.open("rb") as file:
        shape, by_column, held = read_header(file)
        offset, size = file.tell(), path.stat().st_size
        dtype = float_type(held, shape, path)
        _check_bytes(shape, held, size - offset)
    tokens, d_in, sequence = shape_as_tokens(shape, path)
    if by_column and tokens:
        return [_by_column(path, offset, shape, held, dtype)]
    _check_byte_order(path, offset, held)
    swapped = not held.isnative
    part = rows_at(path, offset=offset, tokens=tokens, d_in=d_in, dtype=dtype, swapped=swapped, sequence=sequence)
    return [part]


def npz_layers(path: Path) -> dict[str, list[Part]]:
    """The layers of a `.npz` archive; what is no matrix of floats in it is left out.

    Raises InputError as `npy_layer`.

    Its members may be compressed, so they are streamed: every pass decompresses them anew, and nothing is kept.
    """
    with input_errors(path, "a readable .npz archive", "was it written whole?"), ZipFile(path) as archive:
        names = archive.namelist()
        if len({*names}) < len(names):
            raise ValueError("a name stands twice in it")
        arrays = [name for name in names if name.endswith(".npy")]
        refuse_weights(path, [name.removesuffix(".npy") for name in arrays])
        if {"indptr.npy", "indices.npy", "data.npy"} <= {*arrays}:
            raise InputError(f"{path}: expected dense activations, got a sparse matrix; save its toarray()")
        layers, errors = {}, []
        for name in arrays:
            try:
                layers[layer_name(name.removesuffix(".npy"))] = [_member(path, archive, name)]
            except NoLayers as error:
                errors.append(error)
    if not layers:
        empty = NoLayers(f"{path}: expected floating-point arrays, found none")
        raise errors[0] if errors else empty
    return layers


def read_header(file: IO[bytes] | ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether it is stored column by column, type) of an array, of which no value is read.

    file: at its beginning. Raises what NumPy does for a broken header, and ValueError for one that is too long.
    """
    version = np.lib.format.read_magic(file)
    start, places = file.tell(), 2 if version == (1, 0) else 4
    length = int.from_bytes(file.read(places), "little")
    if length > MOST_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    file.seek(start)
    shape, by_column, dtype = HEADERS[version](file)
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise ValueError(f"shape {shape}")
    return shape, bool(by_column), dtype


def only_array(path: Path, most: int) -> NDArray[Any]:
    """The one array of a `.npy` or a `.npz`, of numbers of any type.

    Raises ValueError for a header that tells of more than `most` values, of which none is then read: an archive
    unfolds to a thousand times its size. Raises for a broken file what NumPy and zipfile do.
    """
    if path.suffix == ".npy":
        with path.open("rb") as file:
            return _values(file, path.stat().st_size, most)
    with ZipFile(path) as archive:
        [name] = archive.namelist()
        with archive.open(name) as member:
            return _values(member, archive.getinfo(name).file_size, most)


def _values(file: IO[bytes] | ZipExtFile, size: int, most: int) -> NDArray[Any]:
    shape, by_column, held = read_header(file)
    if prod(shape) > most:
        raise ValueError(f"shape {shape}, where {most:,} values are the most that fit this source")
    if held.hasobject:
        raise ValueError(UNUSABLE["O"])
    _check_bytes(shape, held, size - file.tell())
    values = np.frombuffer(file.read(), held)
    return values.reshape(shape, order="F" if by_column else "C")


def float_type(dtype: np.dtype[Any], shape: tuple[int, ...], where: object) -> torch.dtype:
    """The torch type of a NumPy array. Raises InputError for floats of other sizes, NoLayers for other types."""
    if dtype.kind == "f" and dtype.itemsize in (2, 4, 8):
        return torch.from_numpy(np.zeros(0, dtype.newbyteorder("="))).dtype
    # The bfloat16 of ml_dtypes and JAX, for which NumPy has no name and writes plain two bytes.
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None and dtype.subdtype is None:
        return torch.bfloat16
    error = InputError if dtype.kind == "f" else NoLayers
    got = UNUSABLE.get(dtype.kind, str(dtype))
    raise error(
        f"{where}: expected a float16/32/64 matrix [tokens, d_in], got shape {shape} of {got}; "
        "save floating-point activations"
    )


def _check_bytes(shape: tuple[int, ...], held: np.dtype[Any], size: int) -> None:
    expected = prod(shape) * held.itemsize
    if size != expected:
        raise EOFError(f"the header tells of {expected:,} bytes of values, the file has {size:,}")


def _check_byte_order(path: Path, offset: int, held: np.dtype[Any]) -> None:
    """InputError where values make sense in the other byte order alone: in the header, one bit tells which it is.

    In the wrong order the exponents are the last bits of the values: random, and spread over all that the type can
    hold, unless the values were once of a narrower type.
    """
    if held.kind != "f":
        return
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(2**16)
    given, other = (_exponent_spread(np.frombuffer(content, order)) for order in (held, held.newbyteorder("S")))
    widest = np.finfo(held).maxexp * 2
    if given > 0.2 * widest and other < given / 3:
        raise InputError(
            f"{path}: expected values in the byte order of the header, got some that make sense in the "
            "other order alone; save the array again"
        )


def _exponent_spread(values: NDArray[Any]) -> float:
    exponents = np.frexp(values[np.isfinite(values) & (values != 0)])[1]
    return float(exponents.std()) if len(exponents) else 0.0


def _member(path: Path, archive: ZipFile, name: str) -> Part:
    with archive.open(name) as file:
        shape, by_column, held = read_header(file)
        where = f"{path}: {name}"
        dtype = float_type(held, shape, where)
        if len(shape) not in (2, 3):
            raise NoLayers(f"{where}: expected a matrix [tokens, d_in], got shape {shape}; reshape it")
        _check_bytes(shape, held, archive.getinfo(name).file_size - file.tell())
    tokens, d_in, sequence = shape_as_tokens(shape, where)
    if by_column:
        raise InputError(f"{where}: expected rows, got columns; save numpy.ascontiguousarray of it")

    def batches() -> Iterator[Tensor]:
        with ZipFile(path) as again, again.open(name) as file:
            read_header(file)
            for first in range(0, tokens, CHUNK_TOKENS):
                count = min(CHUNK_TOKENS, tokens - first) * d_in
                values = np.frombuffer(file.read(count * held.itemsize), held)
                # At the end the archive compares its checksum, before the last rows are given.
                if len(values) != count or (first + CHUNK_TOKENS >= tokens and file.read(1)):
                    raise EOFError(f"{name} does not have the length that it says")
                yield _native(values).view(dtype).view(-1, d_in)

    return Part(
        tokens=tokens, d_in=d_in, dtype=dtype, read=forward_only(path, lambda _: (0, batches())), sequence=sequence
    )


def _native(values: NDArray[Any]) -> Tensor:
    """A copy in this machine's byte order; two bytes without a name as 16-bit integers."""
    return torch.from_numpy(
        np.array(values.view("i2")) if values.dtype.kind == "V" else values.astype(values.dtype.newbyteorder("="))
    )


def _by_column(path: Path, offset: int, shape: tuple[int, ...], held: np.dtype[Any], dtype: torch.dtype) -> Part:
    """An array in Fortran's order, whose rows lie all over the file: mapped."""
    array: NDArray[Any] = np.memmap(path, mode="r", dtype=held, offset=offset, shape=shape, order="F")
    tokens, d_in, sequence = shape_as_tokens(shape, path)
    sequences = array if sequence else array[None]

    def read(start: int, stop: int) -> Tensor:
        rows = [sequences[n, first:last] for n, first, last in runs(start, stop, sequence or tokens)]
        return _native(np.ascontiguousarray(np.concatenate(rows))).view(dtype)

    return Part(tokens=tokens, d_in=d_in, dtype=dtype, read=read, sequence=sequence)
