"""The shards of saev (protocol 2.1): `metadata.json`, `shards.json`, and `acts000000.bin`, ... of
[examples, layers, tokens, d_model] in float32. A layer has the number that saev gives it.

The metadata hold a pickle of the data set, which is never looked at.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autopsae.activations.formats.rows import neighbour, rows_at
from autopsae.activations.parts import Part
from autopsae.arrays import InputError
from autopsae.reading import as_object, is_folder, read_json, whole_of
from autopsae.words import show

METADATA, SHARDS = "metadata.json", "shards.json"


def saev_layers(folder: Path) -> dict[str, list[Part]]:
    """The layers of a folder of shards, all tokens of an image, its CLS token (the first) included.

    Raises InputError for another protocol, and where the shards are not those that the metadata tell of.
    """
    where = folder / METADATA
    about = as_object(read_json(where), where)
    told = (about.get("protocol"), about.get("dtype"))
    if told != ("2.1", "float32"):
        raise InputError(
            f"{where}: expected shards of saev with protocol 2.1 in float32, got "
            f"{show(told[0], 40)} in {show(told[1], 40)}; save the layers as .npy"
        )
    names, d_in = about.get("layers"), whole_of(about, "d_model", where)
    if not isinstance(names, list) or not names or len({*map(str, names)}) < len(names) or not d_in:
        raise InputError(f"{where}: expected layers, each once, got {show(names, 80)}")
    tokens = whole_of(about, "patches_per_ex", where) + bool(about.get("cls_token"))
    image = len(names) * tokens * d_in * 4
    layers: dict[str, list[Part]] = {str(name): [] for name in names}
    for file, examples in _shards(folder, about):
        if is_folder(file) or file.stat().st_size != examples * image:
            raise InputError(
                f"{file}: expected {examples * image:,} bytes for {examples:,} examples, got "
                f"{file.stat().st_size:,}; was it written whole?"
            )
        for number, parts in enumerate(layers.values()):
            parts.append(
                rows_at(
                    file,
                    offset=number * tokens * d_in * 4,
                    tokens=examples * tokens,
                    d_in=d_in,
                    dtype=torch.float32,
                    sequence=tokens,
                    block=tokens,
                    stride=image,
                )
            )
    return layers


def _shards(folder: Path, about: Mapping[str, Any]) -> list[tuple[Path, int]]:
    """(file, examples in it) of every shard. Raises InputError for a list that does not agree with the metadata."""
    where = folder / SHARDS
    held = read_json(where)
    if not isinstance(held, list):
        raise InputError(f"{where}: expected a list of shards, got {show(held, 60)}")
    entries = [as_object(entry, where) for entry in held]
    shards = [
        (neighbour(folder, entry.get("name"), where), whole_of(entry, "n_examples", where)) for entry in entries
    ]
    total = sum(examples for _, examples in shards)
    if len({file for file, _ in shards}) < len(shards) or total != whole_of(about, "n_examples", folder / METADATA):
        raise InputError(
            f"{where}: expected {about.get('n_examples'):,} examples in shards named once each, as "
            f"{METADATA} says, got {total:,} in {len(shards):,}; is a shard missing, or listed twice?"
        )
    return shards
