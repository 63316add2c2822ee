"""A folder of files of one kind: shards of the same layers, or a layer each.

Where a file names its tensors (safetensors, .npz, a dict in a .pt) the files are shards, and the names are the
layers. Where it does not (.npy, a tensor in a .pt) a file is a layer under its own name, except that files named
NAME-shard-3 (or part, chunk, batch), NAME-3-of-8 or by a number alone are shards: of the layer NAME, or, without a
NAME, of a layer that is named as the folder.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from autopsae.activations.names import layer_name, listed, natural, printable
from autopsae.activations.parts import NoLayers, Part
from autopsae.arrays import InputError

SHARD = re.compile(
    r"(?:(?P<name>.*?)[-_. ]+)?(?P<word>shard|part|chunk|batch)?[-_. ]*\d+(?:[-_. ]*of[-_. ]*(?P<all>\d+))?",
    re.IGNORECASE | re.ASCII,
)
NUMBERED_LAYER = re.compile(r"(?:^|[-_. ])(?:layers?|blocks?|h|hs|resid\w*)[-_. ]*(\d+)", re.IGNORECASE)

Layers = dict[str, list[Part]]


def files_layers(folder: Path, files: Mapping[Path, Callable[[Path], Layers]]) -> Layers:
    """The layers of a folder's files, in natural order; files of integers alone (labels, masks) are left out.

    files: each with its reader. Raises InputError for files of several kinds: which of them is meant?
    """
    opened: dict[Path, Layers] = {}
    for file, reader in files.items():
        try:
            opened[file] = reader(file)
        except NoLayers as error:
            integers = error
    if not opened:
        raise integers
    kinds = {file.suffix for file in opened}
    if len(kinds) > 1 or len({"" in layers for layers in opened.values()}) > 1:
        raise InputError(
            f"{printable(folder)}: expected files of one kind, got {listed([file.name for file in opened])}; "
            "give one of them, or a folder for each kind"
        )
    if any("" not in layers for layers in opened.values()):
        _check_layers_in_names(folder, opened)
        return joined(opened)
    named: Layers = {}
    for group, held in _by_layer(folder, opened).items():
        named[group] = joined({file: {group: layers[""]} for file, layers in held.items()})[group]
    return {name: named[name] for name in sorted(named, key=natural)}


def joined(opened: Mapping[Path, Layers]) -> Layers:
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
                f"{printable(lacks)}: expected layer {printable(repr(name), 80)} as in {printable(has.name)}, got "
                f"{listed(list(held if lacks is file else layers))}"
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
                    f"{printable(file)}: expected layer {printable(repr(name), 80)} of d_in = {width} as in "
                    f"{printable(next(iter(opened)).name)}, got {part.d_in}; were two "
                    "harvests written into one folder?"
                )


def _by_layer(folder: Path, opened: Mapping[Path, Layers]) -> dict[str, dict[Path, Layers]]:
    """Layer -> its files, by their names."""
    groups: dict[str, dict[Path, Layers]] = {}
    whole = set()
    for file, held in opened.items():
        shard = SHARD.fullmatch(file.stem)
        if shard and (shard["word"] or shard["all"] or not shard["name"]):
            name = layer_name(shard["name"] or folder.resolve().name)
        else:
            name = layer_name(file.stem)
            whole.add(name)
        groups.setdefault(name, {})[file] = held
        if name in whole and len(groups[name]) > 1:
            raise InputError(
                f"{printable(folder)}: two files hold the layer {printable(repr(name), 80)}; rename one"
            )
    return groups


def _check_all_there(folder: Path, files: list[Path]) -> None:
    """InputError where shards say that there are more of them than there are."""
    told = {int(shard["all"][:9]) for file in files if (shard := SHARD.fullmatch(file.stem)) and shard["all"]}
    if told and told != {len(files)}:
        raise InputError(
            f"{printable(folder)}: expected {' or '.join(f'{n:,}' for n in sorted(told))} shards, as "
            f"{printable(files[0].name, 60)} says, got {len(files):,}; get the others"
        )


def _check_layers_in_names(folder: Path, opened: Mapping[Path, Layers]) -> None:
    """InputError where the files' names tell of several layers, and the names of their tensors of one."""
    numbers = {number[1] for file in opened if (number := NUMBERED_LAYER.search(file.stem))}
    if len(numbers) > 1:
        raise InputError(
            f"{printable(folder)}: {listed([file.name for file in opened], 3)} are named as several layers, but "
            "hold tensors of the same names, as shards of one do; open one at a time, or name each tensor as "
            "its layer"
        )
