"""A sparsity from what a file says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.kinds import check_kind
from autopsae.sae.sparsity.base import SPARSITIES, Sparsity


def read_sparsity(path: Path, content: Mapping[str, Any], d_sae: int) -> Sparsity:
    """The sparsity that `to_dict` wrote into the file `path`. Its name must be in SPARSITIES.

    Raises InputError, which names the file, for settings that are missing, have another type, or are refused by
    `check` for `d_sae` latents.
    """
    settings = dict(content)
    made = SPARSITIES[content["name"]]
    check_kind(path, content, made.kind())
    settings.pop("name")
    try:
        sparsity = made(**settings)
        sparsity.check(d_sae)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return sparsity
