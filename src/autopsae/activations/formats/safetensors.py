"""A `.safetensors` file: every floating-point [tokens, d_in] or [sequences, tokens, d_in] is a layer.

The header is read here rather than by the library, which takes no path that is not UTF-8 and does not tell where in
the file a tensor lies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autopsae.activations.formats.rows import rows_at
from autopsae.activations.formats.weights import refuse_weights
from autopsae.activations.names import layer_name
from autopsae.activations.parts import NoLayers, Part, shape_as_tokens
from autopsae.reading import MOST_JSON, as_object, input_errors, parse, whole_of
from autopsae.words import list_names

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
DOCUMENT = "token.document"
"""The name of the tensor that says which document each token is of."""
SIZES = {name: dtype.itemsize for name, dtype in FLOATS.items()}
SIZES |= {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor in a safetensors file."""

    dtype: str
    """As the format names it: F32, BF16, I64 ..."""
    shape: tuple[int, ...]
    begin: int
    """Its first byte in the file."""


def safetensors_layers(path: Path) -> dict[str, list[Part]]:
    """The layers of a file. Raises InputError for a damaged file and for weights, NoLayers where nothing floats."""
    entries, metadata = read_header(path)
    refuse_weights(path, list(entries), metadata)
    layers = {}
    for name, entry in entries.items():
        if entry.dtype in FLOATS and len(entry.shape) in (2, 3):
            tokens, d_in, sequence = shape_as_tokens(entry.shape, f"{path}: {name}")
            dtype, offset = FLOATS[entry.dtype], entry.begin
            part = rows_at(path, offset=offset, tokens=tokens, d_in=d_in, dtype=dtype, sequence=sequence)
            layers[layer_name(name)] = [replace(part, numbers=_documents(path, entries.get(DOCUMENT), tokens))]
    if not layers:
        held = list_names([f"{name} {entry.dtype} {list(entry.shape)}" for name, entry in entries.items()])
        raise NoLayers(
            f"{path}: expected floating-point matrices [tokens, d_in], found none ({held or 'it is empty'})"
        )
    return layers


def _documents(path: Path, entry: Entry | None, tokens: int) -> Callable[[], NDArray[np.int64]] | None:
    """What reads the documents' numbers that a harvest stores beside its layers."""
    if entry is None or entry.dtype != "I64" or entry.shape != (tokens,):
        return None
    begin = entry.begin

    def read() -> NDArray[np.int64]:
        with input_errors(path, "a readable safetensors file", "was it written whole?"):
            numbers = np.fromfile(path, dtype="<i8", count=tokens, offset=begin)
            if len(numbers) < tokens:
                raise EOFError(f"it ends before the document of token {tokens:,}")
            return numbers.astype(np.int64)

    return read


def read_header(path: Path) -> tuple[dict[str, Entry], Mapping[str, Any]]:
    """(every tensor, the metadata) of a safetensors file; no tensor is read.

    Raises InputError unless tensors of known sizes fill the file from the header to its end, as the format asks.
    """
    with input_errors(path, "a readable safetensors file", "was it written whole?"), path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MOST_JSON, size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
        header = as_object(parse(file.read(length)), f"{path}: header")
        metadata = header.get("__metadata__") or {}
        entries = {
            name: _entry(as_object(held, f"{path}: {name}"), f"{path}: {name}", 8 + length)
            for name, held in header.items()
            if name != "__metadata__"
        }
        _check_places(header, 8 + length, size)
    return entries, as_object(metadata, f"{path}: metadata")


def _entry(held: Mapping[str, Any], where: str, data: int) -> Entry:
    shape, offsets, dtype = held["shape"], held["data_offsets"], held["dtype"]
    lengths = [whole_of({"shape": length}, "shape", where) for length in shape]
    begin, end = (whole_of({"data_offsets": place}, "data_offsets", where) for place in offsets)
    if dtype in SIZES and end - begin != prod(lengths) * SIZES[dtype]:
        raise ValueError(f"{end - begin:,} bytes for {dtype} {lengths}")
    return Entry(dtype=str(dtype), shape=tuple(lengths), begin=data + begin)


def _check_places(header: Mapping[str, Any], data: int, size: int) -> None:
    places = sorted(held["data_offsets"] for name, held in header.items() if name != "__metadata__")
    end = 0
    for begin, stop in places:
        if begin != end or stop < begin:
            raise ValueError(f"the tensors leave a gap or overlap at byte {begin:,}")
        end = stop
    if data + end != size:
        raise ValueError(f"the tensors end at byte {data + end:,} of {size:,}")
