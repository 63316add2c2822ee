"""Parquet: a column of lists [d_in] in each `.parquet` file, or BioNeMo's store of shards with its `metadata.json`.

Row groups are streamed, and read in blocks: a group may be larger than memory.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopsae.activations.formats.arrow import flatten_lists, import_pyarrow
from autopsae.activations.formats.folder import join_files
from autopsae.activations.formats.streams import forward_only
from autopsae.activations.names import layer_name, natural
from autopsae.activations.parts import NoLayers, Part, shape_as_tokens
from autopsae.arrays import CHUNK_TOKENS, InputError
from autopsae.reading import as_object, check_regular, input_errors, read_json, whole_of
from autopsae.words import list_names, printable

METADATA = "metadata.json"
WHAT, AGAIN = "a readable Parquet file", "was it written whole?"


def parquet_layers(path: Path) -> dict[str, list[Part]]:
    """Each column of lists of floats, all of one length, is a layer. Raises InputError for a damaged file."""
    with _open_file(path) as (file, pyarrow):
        names = [field.name for field in file.schema_arrow if _is_list(field.type, pyarrow)]
        layers = {layer_name(name): [_part(path, file, [name], _width(file, name))] for name in names}
        if not layers:
            held = list_names([f"{field.name} {field.type}" for field in file.schema_arrow])
            raise NoLayers(f"{path}: expected a column of lists of floats, got {held}")
    return layers


def bionemo_layers(folder: Path) -> dict[str, list[Part]]:
    """The one layer of a folder of BioNeMo: `metadata.json` and `shard_00000.parquet`, ..., each with one column of
    lists [hidden_dim], or with hidden_dim columns of numbers.

    Raises InputError where the shards are not those that the metadata tells of.
    """
    where = folder / METADATA
    about = as_object(read_json(where), where)
    shards = sorted(folder.glob("[!.]*.parquet"), key=lambda file: natural(file.name))
    if "hidden_dim" not in about:
        return join_files({shard: parquet_layers(shard) for shard in shards})
    d_in = whole_of(about, "hidden_dim", where)
    if "n_shards" in about and whole_of(about, "n_shards", where) != len(shards):
        raise InputError(
            f"{folder}: expected {about['n_shards']:,} shards as {METADATA} says, got "
            f"{len(shards):,}; is "
            "one missing?"
        )
    layer = layer_name(str(about.get("layer", folder.resolve().name)))
    parts = [_shard(shard, d_in) for shard in shards]
    tokens = sum(part.tokens for part in parts)
    if "n_samples" in about and whole_of(about, "n_samples", where) != tokens:
        raise InputError(
            f"{folder}: expected {about['n_samples']:,} tokens as {METADATA} says, got {tokens:,}; "
            f"was a "
            "shard replaced?"
        )
    return {layer: parts}


def _shard(path: Path, d_in: int) -> Part:
    with _open_file(path) as (file, pyarrow):
        lists = [field.name for field in file.schema_arrow if _is_list(field.type, pyarrow)]
        floats = [field.name for field in file.schema_arrow if pyarrow.types.is_floating(field.type)]
        names = lists if len(lists) == 1 else floats
        width = _width(file, names[0]) if names == lists else len(floats)
        if width != d_in:
            raise InputError(
                f"{path}: expected one column of lists of {d_in:,} floats, or {d_in:,} columns of "
                f"floats, "
                f"got lists {list_names(lists) or 'none'} and {len(floats):,} columns of floats"
            )
        return _part(path, file, names, d_in)


@contextmanager
def _open_file(path: Path) -> Iterator[tuple[Any, Any]]:
    """(the file, the module pyarrow)."""
    pyarrow = import_pyarrow(path, "a Parquet file")
    with input_errors(path, WHAT, AGAIN):
        check_regular(path)
    # Without pre-buffering pages are read as they are needed, instead of whole columns.
    with (
        input_errors(path, WHAT, AGAIN),
        pyarrow.parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file,
    ):
        yield file, pyarrow


def _is_list(held: Any, pyarrow: Any) -> bool:
    types = pyarrow.types
    lists = types.is_list(held) or types.is_large_list(held) or types.is_fixed_size_list(held)
    return bool(lists and types.is_floating(held.value_type))


def _width(file: Any, name: str) -> int:
    """Numbers in each list of a column, by the file's own description; 0 where there is no row.

    No row is read: a list of a billion equal numbers takes a few bytes of the file. Raises ValueError where the
    lists of a row group cannot all have one length.
    """
    widths = set()
    for group in map(file.metadata.row_group, range(file.num_row_groups)):
        columns = [group.column(number) for number in range(group.num_columns)]
        # Writers call the two levels under a column list.element, list.item or bag.array_element.
        values = sum(c.num_values for c in columns if c.path_in_schema.rsplit(".", 2)[0] == name)
        if group.num_rows:
            widths.add(values / group.num_rows)
    if len(widths) > 1 or not all(width.is_integer() for width in widths):
        raise ValueError(f"the lists in {printable(name, 60)} have several lengths, or some are missing")
    return int(widths.pop()) if widths else 0


def _part(path: Path, file: Any, names: list[str], d_in: int) -> Part:
    """names: one column of lists, or d_in columns of numbers."""
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    begins = [0, *accumulate(groups)]
    fields = [file.schema_arrow.field(name).type for name in names]
    held = np.result_type(*(getattr(field, "value_type", field).to_pandas_dtype() for field in fields))
    tokens, d_in, _ = shape_as_tokens((begins[-1], d_in), path)

    def batches_from(start: int) -> tuple[int, Iterator[Tensor]]:
        first = bisect_right(begins, start) - 1
        return begins[first], batches(range(first, len(groups)))

    def batches(chosen: range) -> Iterator[Tensor]:
        with _open_file(path) as (again, _):
            for batch in again.iter_batches(batch_size=CHUNK_TOKENS, row_groups=[*chosen], columns=names):
                yield torch.from_numpy(_rows(batch, d_in).astype(held))

    dtype = torch.from_numpy(np.zeros(0, held)).dtype
    return Part(tokens=tokens, d_in=d_in, dtype=dtype, read=forward_only(path, batches_from))


def _rows(batch: Any, d_in: int) -> NDArray[Any]:
    """A block of rows. Raises ValueError for numbers that are missing and for lists of another length."""
    columns = [flatten_lists(column) for column in batch.columns]
    if len(columns) == 1 and columns[0][1] == (d_in,):
        rows: NDArray[Any] = columns[0][0].to_numpy(zero_copy_only=True).reshape(-1, d_in)
        return rows
    if any(lengths for _, lengths in columns) or len(columns) != d_in:
        raise ValueError(f"expected lists of {d_in:,} numbers")
    return np.stack([values.to_numpy(zero_copy_only=True) for values, _ in columns], axis=1)
