"""Which reader a path gets: by the suffix of a file, by the files that lie in a folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from autopsae.activations.formats.arrow import STATE, dataset_layers
from autopsae.activations.formats.npy import npy_layers
from autopsae.activations.formats.reading import is_folder
from autopsae.activations.formats.safetensors import safetensors_layers
from autopsae.activations.formats.weights import refuse_foreign_folder
from autopsae.activations.index import INDEX, check_shards, read_index
from autopsae.activations.names import layer_name, listed, natural, printable
from autopsae.activations.parts import Part
from autopsae.arrays import InputError

FILES: dict[str, Callable[[Path], dict[str, Part]]] = {
    ".npy": npy_layers,
    ".safetensors": safetensors_layers,
}
"""The reader of a file, by its suffix: layer -> its rows; "" where the layer has no name of its own."""


def layers_of(path: Path) -> dict[str, list[Part]]:
    """Layer -> its parts, in the source's order.

    Raises InputError for a path that is missing, foreign, damaged, empty, or whose shards disagree.
    """
    if is_folder(path):
        return _folder_layers(path)
    if path.suffix not in FILES:
        raise InputError(
            f"{printable(path)}: expected .npy, .safetensors, a folder of shards or a dataset, got "
            f"{printable(repr(path.suffix or 'no suffix'), 40)}; "
            "convert with numpy.save or safetensors.torch.save_file"
        )
    return {name or layer_name(path.stem): [part] for name, part in _sorted(FILES[path.suffix](path)).items()}


def _folder_layers(folder: Path) -> dict[str, list[Part]]:
    # Hidden files are nobody's shards: macOS leaves a ._NAME beside each NAME on foreign disks.
    files = sorted(
        (file for file in folder.iterdir() if not file.name.startswith(".")), key=lambda f: natural(f.name)
    )
    names = [file.name for file in files]
    if INDEX in names:
        return _harvested(folder)
    refuse_foreign_folder(folder, names)
    if STATE in names:
        return dataset_layers(folder)
    shards = [file for file in files if file.suffix == ".safetensors"]
    if not shards:
        raise InputError(f"{printable(folder)}: expected .safetensors shards, found none")
    return joined(shards)


def _harvested(folder: Path) -> dict[str, list[Part]]:
    index = read_index(folder)
    if not index.get("complete", True):
        raise InputError(
            f"{printable(folder)}: the harvest is not finished ({index['tokens']:,} tokens so far); "
            "run it again, it goes on from there"
        )
    check_shards(folder, index)
    return joined([folder / shard["file"] for shard in index["shards"]])


def joined(files: Sequence[Path]) -> dict[str, list[Part]]:
    """The layers of the first file, each joined with those of that name in all the others.

    Raises InputError where another file lacks a layer or holds one of another width.
    """
    first, *others = [(file, FILES[file.suffix](file)) for file in files if not is_folder(file)]
    layers = {name: [part] for name, part in _sorted(first[1]).items()}
    for file, held in others:
        if held.keys() != layers.keys():
            name = next(name for name in [*layers, *held] if name not in held or name not in layers)
            lacks, has = (file, first[0]) if name in layers else (first[0], file)
            raise InputError(
                f"{printable(lacks)}: expected layer {printable(repr(name), 80)} as in {printable(has.name)}, got "
                f"{listed(list(held if lacks is file else layers))}"
            )
        for name, part in held.items():
            if part.d_in != layers[name][0].d_in:
                raise InputError(
                    f"{printable(file)}: expected layer {printable(repr(name), 80)} of d_in = "
                    f"{layers[name][0].d_in} as in {printable(first[0].name)}, got "
                    f"{part.d_in}; were two harvests written into one folder?"
                )
            layers[name].append(part)
    return layers


def _sorted(layers: dict[str, Part]) -> dict[str, Part]:
    """In the order of a network: hs2 before hs10."""
    return {name: layers[name] for name in sorted(layers, key=natural)}
