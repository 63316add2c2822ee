"""Which reader a path gets: by the suffix of a file, by the files that lie in a folder."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from autopsae.activations.formats.arrow import SPLITS, STATE, dataset_layers, split_layers
from autopsae.activations.formats.folder import Layers, Reader, files_layers, join_files
from autopsae.activations.formats.npy import npy_layer, npz_layers
from autopsae.activations.formats.parquet import METADATA, bionemo_layers, parquet_layers
from autopsae.activations.formats.pt import pt_layers
from autopsae.activations.formats.saev import SHARDS, saev_layers
from autopsae.activations.formats.safetensors import safetensors_layers
from autopsae.activations.formats.weights import refuse_foreign_folder, refuse_model_file
from autopsae.activations.index import INDEX, check_shards, read_index
from autopsae.activations.names import layer_name, natural
from autopsae.activations.parts import Part
from autopsae.activations.remote import RemoteFile, read_in_turn, read_store_index, store_layers
from autopsae.arrays import InputError
from autopsae.mirror import copy_folder
from autopsae.reading import input_errors, is_folder
from autopsae.urls import is_of_the_web, list_folder, name_of, url_of
from autopsae.words import list_names, show


def layers_of(path: Path) -> Layers:
    """Layer -> its parts, in the source's order.

    Raises InputError for a path that is missing, foreign, damaged, empty, or whose shards disagree.
    """
    if url := url_of(path):
        try:
            return _layers_at(url)
        except InputError as error:  # a Path writes a URL with one slash
            raise type(error)(str(error).replace(str(Path(url)), url)) from error
    if is_folder(path):
        return _folder_layers(path)
    beside = OF_A_FOLDER.get(path.suffix)
    if path.name in {mark for marks in FOLDERS for mark in marks} or (beside and (path.parent / beside).is_file()):
        raise InputError(f"{path}: expected a folder, got a file of one; give {path.parent}")
    if path.suffix not in FILES:
        refuse_model_file(path)
        raise InputError(
            f"{path}: expected {KINDS} or a folder, got "
            f"{show(path.suffix or 'no suffix', 40)}; "
            "convert with numpy.save or safetensors.torch.save_file"
        )
    layers = FILES[path.suffix](path)
    return join_files({path: layers if isinstance(layers, dict) else {layer_name(path.stem): layers}})


def _layers_at(url: str) -> Layers:
    """The same for a URL."""
    name = PurePosixPath(name_of(url))
    if name.suffix in FILES:
        layers = REMOTE[name.suffix](Path(url))
        named = layers if isinstance(layers, dict) else {layer_name(name.stem): layers}
        return read_in_turn(join_files({Path(url): named}))
    # The web has no list of files, but may have a store, of which the index tells them.
    files: Mapping[str, int | None] = {INDEX: 0} if is_of_the_web(url) else list_folder(url)
    if INDEX in files:
        index = read_store_index(url)
        folder, shards = Path(url), index["shards"]
        opened = zip(shards, store_layers(url, index, shards), strict=True)
        return read_in_turn(join_files({folder / shard["file"]: layers for shard, layers in opened}))
    held = {*files, *(PurePosixPath(file).suffix for file in files)}
    for marks, reader in FOLDERS.items():
        if held.issuperset(marks):
            return reader(copy_folder(url))
    refuse_foreign_folder(Path(url), files)
    sizes = {file: size for file, size in files.items() if size is not None and not file.startswith(".")}
    readers: dict[Path, Reader] = {}
    for file in sorted(sizes, key=natural):
        if (suffix := PurePosixPath(file).suffix) in FILES:
            readers[Path(url) / file] = REMOTE[suffix]
    if not readers:
        raise InputError(f"{url}: expected {KINDS} files, found none among {list_names(files)}")
    return read_in_turn(files_layers(Path(url), readers))


def _read_remote(suffix: str, path: Path) -> Layers | list[Part]:
    url = url_of(path)
    assert url is not None
    return RemoteFile(url, FILES[suffix]).layers()


def _folder_layers(folder: Path) -> Layers:
    with input_errors(folder, "a readable folder", "check its permissions"):
        # Hidden files are nobody's shards: macOS leaves a ._NAME beside each NAME on foreign disks.
        files = sorted((f for f in folder.iterdir() if not f.name.startswith(".")), key=lambda f: natural(f.name))
    names = [file.name for file in files]
    held = {*names, *(file.suffix for file in files)}
    for marks, reader in FOLDERS.items():
        if held.issuperset(marks):
            return reader(folder)
    refuse_foreign_folder(folder, names)
    readable = {file: FILES[file.suffix] for file in files if file.suffix in FILES and not is_folder(file)}
    if not readable:
        raise InputError(f"{folder}: expected {KINDS} files, found none{_inside(files)}")
    return files_layers(folder, readable)


def _inside(files: Sequence[Path]) -> str:
    """What a folder holds instead, for a message."""
    folders = [file.name for file in files if file.is_dir()]
    if folders:
        return f", but the folders {list_names(folders)}; give one of them"
    return f" among {list_names([file.name for file in files])}" if files else ""


def _read_harvest(folder: Path) -> Layers:
    index = read_index(folder)
    if not index.get("complete", True):
        raise InputError(
            f"{folder}: the harvest is not finished ({index['tokens']:,} tokens so far); "
            "run it again, it goes on from there"
        )
    check_shards(folder, index)
    shards = [folder / shard["file"] for shard in index["shards"]]
    if not shards:
        raise InputError(f"{folder}: expected shards in {INDEX}, found none; harvest it again")
    return join_files({shard: safetensors_layers(shard) for shard in shards})


FILES: dict[str, Reader] = {
    ".npy": npy_layer,
    ".npz": npz_layers,
    ".safetensors": safetensors_layers,
    ".pt": pt_layers,
    ".pth": pt_layers,
    ".parquet": parquet_layers,
}
"""The reader of a file, by its suffix."""

REMOTE: dict[str, Reader] = {suffix: partial(_read_remote, suffix) for suffix in FILES}
"""The reader of a file at a URL, by its suffix."""

KINDS = ", ".join(FILES)

FOLDERS: dict[tuple[str, ...], Callable[[Path], Layers]] = {
    (INDEX,): _read_harvest,
    (STATE,): dataset_layers,
    (SPLITS,): split_layers,
    (METADATA, SHARDS): saev_layers,
    (METADATA, ".parquet"): bionemo_layers,
}
"""The reader of a folder, by names or suffixes of files that lie in it."""

OF_A_FOLDER = {".safetensors": INDEX, ".parquet": METADATA, ".bin": SHARDS, ".arrow": STATE, ".json": STATE}
"""Suffix of a shard -> the file beside it that makes it a part of its folder."""
