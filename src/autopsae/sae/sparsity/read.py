"""A sparsity from what a file says of it."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from autopsae.arrays import InputError
from autopsae.kinds import Kind, check_kind, flag, number, one_of, text, whole
from autopsae.kinds import fields as object_of
from autopsae.sae.sparsity.base import SPARSITIES, Sparsity


def read_sparsity(path: Path, content: Mapping[str, Any], d_sae: int) -> Sparsity:
    """The sparsity that `to_dict` wrote into the file `path`. Its name must be in SPARSITIES.

    Raises InputError, which names the file, for settings that are missing, have another type, or are refused by
    `check` for `d_sae` latents.
    """
    settings = dict(content)
    made = SPARSITIES[content["name"]]
    check_kind(path, content, _kind_of(made))
    settings.pop("name")
    try:
        sparsity = made(**settings)
        sparsity.check(d_sae)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return sparsity


# The type of each setting. Its range is checked by `check` when a file is read.
_KINDS: dict[Any, Kind] = {int: whole(-(2**53)), float: number(), bool: flag, str: text}


def _kind_of(made: type[Sparsity]) -> Kind:
    """The keys and types that a file must have. A setting with a default may be missing, because an earlier version
    may not have had it.
    """
    needed: dict[str, Kind] = {"name": one_of(made.name)}
    optional: dict[str, Kind] = {}
    types = get_type_hints(made)
    for field in fields(made):  # type: ignore[arg-type]
        kinds = needed if field.default is MISSING else optional
        kinds[field.name] = _KINDS[types[field.name]]
    return object_of(needed, optional=optional)
