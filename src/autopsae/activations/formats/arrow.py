"""Activations cached as a Hugging Face dataset on disk, as SAELens' CacheActivationsRunner leaves them.

A row is a context [tokens, d_in], or one token [d_in]; a layer is a column of such rows, beside one of token ids.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autopsae.activations.formats.rows import neighbour
from autopsae.activations.names import layer_name
from autopsae.activations.parts import Part
from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.reading import as_object, check_regular, input_errors, read_json
from autopsae.words import list_names, show

STATE = "state.json"
"""What tells the folder of a dataset from others."""
SPLITS = "dataset_dict.json"
"""What tells the folder of several datasets, train and test, from others."""

WHAT = "a readable Hugging Face dataset"


def dataset_layers(folder: Path) -> dict[str, list[Part]]:
    """The layers of a dataset that `datasets.save_to_disk` wrote, in its order.

    Raises InputError where pyarrow is not installed, for a folder that it cannot read, and where no column holds
    matrices of one size.
    """
    pyarrow = import_pyarrow(folder, "a Hugging Face dataset")
    state = as_object(read_json(folder / STATE), folder / STATE)
    with input_errors(folder, WHAT, "cache it again"):
        if state.get("_indices_data_files"):
            raise ValueError("its rows are chosen by indices; flatten_indices() it")
        files = [neighbour(folder, entry["filename"], folder / STATE) for entry in state["_data_files"]]
        for file in files:
            check_regular(file)
        tables = [pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all() for file in files]
        table = pyarrow.concat_tables(tables)
        columns = zip(table.column_names, table.columns, strict=True)
        columns_by_layer = {layer_name(name): column_parts(column, folder) for name, column in columns}
        # Where there are matrices, a list of numbers is something told of each context: the loss of each token.
        flat = all(part.sequence is None for parts in columns_by_layer.values() for part in parts)
        layers = {name: parts for name, parts in columns_by_layer.items() if parts and (flat or parts[0].sequence)}
    if not layers:
        raise InputError(
            f"{folder}: expected a column of [context, d_in] matrices of one size, float16, 32 or "
            f"64, got "
            f"{list_names([f'{field.name} {field.type}' for field in table.schema])}"
        )
    return layers


def split_layers(folder: Path) -> dict[str, list[Part]]:
    """The layers of the one split of a DatasetDict. Raises InputError where there are several, naming them."""
    names = as_object(read_json(folder / SPLITS), folder / SPLITS).get("splits")
    if not isinstance(names, list) or not names:
        raise InputError(f"{folder / SPLITS}: expected a list of splits, got {show(names, 60)}")
    splits = [neighbour(folder, name, folder / SPLITS) for name in names]
    if len(splits) > 1:
        raise InputError(
            f"{folder}: holds {len(splits)} splits ({list_names(names)}); give one of them, as {splits[0]}"
        )
    return dataset_layers(splits[0])


def import_pyarrow(path: Path, what: str) -> Any:
    """The module, or InputError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise package_error(f"{path}: {what}", "pyarrow", error, install="pyarrow") from error
    return pyarrow


def column_parts(column: Any, folder: Path) -> list[Part]:
    """The chunks of a column of nested lists of floats, of one size each; none for a column of anything else.

    Raises ValueError where a row is missing.
    """
    chunks = [flatten_lists(chunk) for chunk in column.chunks if len(chunk)]
    if not chunks or len({lengths for _, lengths in chunks}) > 1 or not chunks[0][1]:
        return []
    return [_part(values, lengths, folder) for values, lengths in chunks]


def flatten_lists(chunk: Any) -> tuple[Any, tuple[int, ...]]:
    """(the floats in nested lists, the length of the lists at each level).

    No lengths where they differ within a level, and where there are no lists or no floats in them. Raises
    ValueError where a list is missing, and what pyarrow does for a damaged one.
    """
    from pyarrow import compute, types

    values = getattr(chunk, "storage", chunk)  # datasets registers types of its own for matrices
    values.validate(full=True)  # offsets out of a damaged file would be followed anywhere
    lengths: tuple[int, ...] = ()
    while types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
        if values.null_count:
            raise ValueError(f"{values.null_count:,} rows are missing")
        sizes = compute.min_max(compute.list_value_length(values)).as_py()
        if sizes["min"] != sizes["max"] or not sizes["min"]:
            return values, ()
        lengths = (*lengths, int(sizes["min"]))
        values = values.flatten()
    return values, lengths if types.is_floating(values.type) else ()


def _part(values: Any, lengths: tuple[int, ...], folder: Path) -> Part:
    held = np.dtype(values.type.to_pandas_dtype())
    d_in = lengths[-1]

    def read(start: int, stop: int) -> Tensor:
        with input_errors(folder, WHAT, "cache it again"):
            # Numbers that are missing cannot be had without a copy of the rest, and so are refused.
            rows = values.slice(start * d_in, (stop - start) * d_in).to_numpy(zero_copy_only=True)
            return torch.from_numpy(np.array(rows).reshape(-1, d_in))

    return Part(
        tokens=len(values) // d_in,
        d_in=d_in,
        dtype=torch.from_numpy(np.zeros(0, held)).dtype,
        read=read,
        sequence=lengths[-2] if len(lengths) > 1 else None,
    )
