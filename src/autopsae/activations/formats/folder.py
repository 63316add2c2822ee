"""A folder of files of one kind: shards of the same layers, or a layer each.

Where a file names its tensors (safetensors, .npz, a dict in a .pt) the files are shards, and the names are the
layers. Where it does not (.npy, a tensor in a .pt) a file is a layer under its own name, except that files named
NAME-shard-3 (or part, chunk, batch), NAME-3-of-8 or by a number alone are shards: of the layer NAME, or, without a
NAME, of a layer that is named as the folder.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from autopsae.activations.names import layer_name, natural
from autopsae.activations.parts import NoLayers, Part
from autopsae.arrays import InputError
from autopsae.words import list_names, printable, show

SHARD = re.compile(
    r"(?:(?P<name>.*?)[-_. ]+)??(?P<word>shard|part|chunk|batch)?[-_. ]*\d+(?:[-_. ]*of[-_. ]*(?P<all>\d+))?",
    re.IGNORECASE | re.ASCII,
)
NUMBERED_LAYER = re.compile(r"(?:^|[-_. ])(?:layers?|blocks?|h|hs|resid\w*)[-_. ]*(\d+)", re.IGNORECASE)

Layers = dict[str, list[Part]]
Reader = Callable[[Path], Layers | list[Part]]
"""Reads a file: its layers by their names, or the parts of the one layer that has none."""


def files_layers(folder: Path, files: Mapping[Path, Reader]) -> Layers:
    """The layers of a folder's files, in natural order; files without one (labels, masks) are left out.

    files: each with its reader. Raises InputError for files of several kinds: which of them is meant?
    """
    opened: dict[Path, Layers | list[Part]] = {}
    for file, reader in files.items():
        try:
            opened[file] = reader(file)
        except NoLayers as error:
            without = error
    if not opened:
        raise without
    kinds = {files[file] for file in opened}
    named = {file: layers for file, layers in opened.items() if isinstance(layers, dict)}
    unnamed = {file: parts for file, parts in opened.items() if isinstance(parts, list)}
    if len(kinds) > 1 or (named and unnamed):
        raise InputError(
            f"{folder}: expected files of one kind, got {list_names([file.name for file in opened])}; "
            "give one of them, or a folder for each kind"
        )
    if named:
        _check_layers_in_names(folder, named)
        return join_files(named)
    groups = _by_layer(folder, unnamed)
    return {
        name: join_files({file: {name: parts} for file, parts in groups[name].items()})[name]
        for name in sorted(groups, key=natural)
    }


def join_files(opened: Mapping[Path, Layers]) -> Layers:
    """The layers of the first file, each joined with those of that name in all the others.

    Raises InputError where another file lacks a layer or holds one of another width.
    """
    _check_all_there(next(iter(opened)).parent, [*opened])
    (first, layers), *others = opened.items()
    layers = {name: [*layers[name]] for name in sorted(layers, key=natural)}
    for file, held in others:
        if held.keys() != layers.keys():
            name = next(name for name in [*layers, *held] if name not in held or name not in layers)
            lacks, has = (file, first) if name in layers else (first, file)
            raise InputError(
                f"{lacks}: expected layer {show(name, 80)} as in {has.name}, got "
                f"{list_names(list(held if lacks is file else layers))}"
            )
        for name in layers:
            layers[name] += held[name]
    for name, parts in layers.items():
        _check_widths(name, parts, opened)
    return layers


def _check_widths(name: str, parts: list[Part], opened: Mapping[Path, Layers]) -> None:
    width = parts[0].d_in
    for file, held in opened.items():
        for part in held[name]:
            if part.d_in != width:
                raise InputError(
                    f"{file}: expected layer {show(name, 80)} of d_in = {width} as in "
                    f"{printable(next(iter(opened)).name)}, got {part.d_in}; were two "
                    "harvests written into one folder?"
                )


def _by_layer(folder: Path, opened: Mapping[Path, list[Part]]) -> dict[str, dict[Path, list[Part]]]:
    """Layer -> its files, by their names."""
    groups: dict[str, dict[Path, list[Part]]] = {}
    whole = set()
    for file, parts in opened.items():
        name, is_shard = _layer_of(file)
        if not is_shard:
            whole.add(name)
        groups.setdefault(name, {})[file] = parts
        if name in whole and len(groups[name]) > 1:
            raise InputError(f"{folder}: two files hold the layer {show(name, 80)}; rename one")
    return groups


def shard_layers(file: Path, reader: Reader) -> Layers:
    """The layers of one file that may be one of several shards, named as `files_layers` names those of all."""
    layers = reader(file)
    return layers if isinstance(layers, dict) else {_layer_of(file)[0]: layers}


def _layer_of(file: Path) -> tuple[str, bool]:
    """(the layer that a file without names is of, whether it is a shard of it), by the file's name."""
    shard = SHARD.fullmatch(file.stem)
    if shard and (shard["word"] or shard["all"] or not shard["name"]):
        return layer_name(shard["name"] or file.parent.resolve().name), True
    return layer_name(file.stem), False


def _check_all_there(folder: Path, files: list[Path]) -> None:
    """InputError where shards say that there are more of them than there are."""
    told = {int(shard["all"][:9]) for file in files if (shard := SHARD.fullmatch(file.stem)) and shard["all"]}
    if told and told != {len(files)}:
        raise InputError(
            f"{folder}: expected {' or '.join(f'{n:,}' for n in sorted(told))} shards, as "
            f"{printable(files[0].name, 60)} says, got {len(files):,}; give the folder with all of them"
        )


def _check_layers_in_names(folder: Path, opened: Mapping[Path, Layers]) -> None:
    """InputError where the files' names tell of several layers, and the names of their tensors of one."""
    numbers = {number[1] for file in opened if (number := NUMBERED_LAYER.search(file.stem))}
    if len(numbers) > 1 and len({frozenset(layers) for layers in opened.values()}) == 1:
        raise InputError(
            f"{folder}: {list_names([file.name for file in opened], 3)} are named as several layers, but "
            "hold tensors of the same names, as shards of one do; open one at a time, or name each tensor as "
            "its layer"
        )
