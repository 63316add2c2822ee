"""Activations cached as a Hugging Face dataset on disk, as SAELens' CacheActivationsRunner leaves them.

A row is a context; a layer is a column [context, d_in], beside the column of token ids.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autopsae.activations.parts import Part
from autopsae.arrays import InputError

STATE = "state.json"
"""What tells such a folder from others."""


def dataset_layers(path: Path) -> dict[str, list[Part]]:
    """The layers of a dataset that `datasets.save_to_disk` wrote, in its order.

    Raises InputError where `datasets` is not installed, for a folder that it cannot read, and where no column holds
    matrices of floating-point numbers.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{path}: a Hugging Face dataset; pip install datasets to read it") from error
    try:
        dataset: Any = datasets.load_from_disk(str(path))
        shaped = {name: getattr(feature, "shape", ()) for name, feature in dataset.features.items()}
    except Exception as error:  # whatever Arrow and datasets raise for a damaged folder
        raise InputError(f"{path}: not a readable Hugging Face dataset ({error}); cache it again") from error
    found = {
        name: [_column(dataset.select_columns([name]), name, *shape)]
        for name, shape in shaped.items()
        if len(shape) == 2 and all(shape) and dataset.features[name].dtype in ("float16", "float32", "float64")
    }
    if not found:
        raise InputError(
            f"{path}: expected a column of [context, d_in] matrices of one size, float16, 32 or 64, got "
            f"{dataset.features}"
        )
    return found


def _column(dataset: Any, name: str, context: int, d_in: int) -> Part:
    held = np.dtype(dataset.features[name].dtype)
    rows_of = dataset.with_format("numpy", dtype=held)  # which makes everything float32 otherwise

    def read(start: int, stop: int) -> Tensor:
        first, last = start // context, -(-stop // context)
        rows = np.asarray(rows_of[first:last][name]).reshape(-1, d_in)
        return torch.from_numpy(np.array(rows[start - first * context : stop - first * context]))

    dtype = torch.from_numpy(np.zeros(0, held)).dtype
    return Part(tokens=len(dataset) * context, d_in=d_in, dtype=dtype, read=read, sequence=context)
