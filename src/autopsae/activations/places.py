"""Shards as they are given, one file or several, and the place of their tokens in the stream that they are of."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path, PurePosixPath
from typing import Any

from autopsae.activations.coverage import Coverage, Run, cover
from autopsae.activations.formats.folder import Layers, shard_layers
from autopsae.activations.formats.layouts import FILES, REMOTE, layers_of
from autopsae.activations.formats.safetensors import safetensors_layers
from autopsae.activations.index import INDEX, check_shard, index_digest, read_index
from autopsae.activations.remote import store_layers
from autopsae.activations.store import Activations, activations_of, select_layers
from autopsae.arrays import InputError
from autopsae.mirror import copy_file, copy_folder
from autopsae.reading import input_errors, is_folder
from autopsae.urls import absolute, is_file_there, name_of, url_of
from autopsae.words import list_names, printable


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The layers of one shard, and where its tokens lie."""

    run: Run
    """Its tokens."""
    layers: dict[str, Activations]
    """By name, in the source's order."""


def open_shards(
    paths: Sequence[str | Path], layers: Sequence[str] = (), *, start: int | None = None
) -> tuple[Coverage, list[Shard]]:
    """(what is covered, the shards in the order of the stream).

    paths: shards of a folder that `harvest` wrote, or such a folder for all of them: its index tells their places.
    Or any other file or folder of activations, each a shard: its tokens lie from `start` on, one shard after the
    other as they are given, or their place is unknown. layers: those that are meant; by default all.

    Raises InputError as `open_layers`, for a shard that is not the one that the index names, for shards of several
    stores, for one that is given twice, for `start` with a store, and for a layer that a shard lacks.
    """
    if not paths:
        raise InputError("expected at least one shard, got none; give files, or a folder that harvest wrote")
    folders = [_store_of(Path(path)) for path in paths]
    if any(folders):
        return _of_store([Path(path) for path in paths], folders, layers, start)
    runs, shards, place = [], list[Shard](), start or 0
    for path in map(Path, paths):
        opened = _open(_loose_layers(path), layers)
        tokens = next(iter(opened.values())).tokens
        runs.append(Run(name=path.name, start=place, tokens=tokens, digest=digest_of(path)))
        shards.append(Shard(run=runs[-1], layers=opened))
        place += tokens
    _check_layers(shards)
    return cover("files" if start is None else "places", runs), shards


def digest_of(path: Path) -> str:
    """A digest of all bytes of a file, or of all files in a folder with their names."""
    if url := url_of(path):
        path = copy_file(url) if PurePosixPath(name_of(url)).suffix in FILES else copy_folder(url)
    if not is_folder(path):
        with input_errors(path, "a readable file"), path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()[:32]
    digest = sha256()
    for file_path in sorted(path.iterdir()):
        if file_path.is_file() and not file_path.name.startswith("."):
            digest.update(f"{file_path.name} {digest_of(file_path)}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _store_of(path: Path) -> Path | None:
    """The harvested folder that a path is, or is a shard of; None for anything else."""
    url = url_of(path)
    suffix = PurePosixPath(name_of(url)).suffix if url else path.suffix
    is_whole = suffix not in FILES if url else path.is_dir()
    folder = path if is_whole else path.parent
    is_of_store = is_whole or suffix == ".safetensors"
    return folder if is_of_store and is_file_there(folder / INDEX) else None


def _of_store(
    paths: Sequence[Path], folders: Sequence[Path | None], layers: Sequence[str], start: int | None
) -> tuple[Coverage, list[Shard]]:
    folder, *others = {absolute(f): f for f in folders if f is not None}.values()
    if others or None in folders:
        stray = others[0] if others else next(p for p, f in zip(paths, folders, strict=True) if f is None)
        raise InputError(f"{stray}: expected a shard of {folder} as the others, got another; make a part of it")
    if start is not None:
        raise InputError(f"start: expected none for a store, whose {INDEX} tells the places; leave it out")
    index = read_index(folder)
    if not index.get("complete", True):
        raise InputError(f"{folder}: the harvest is not finished; run it again, it goes on from there")
    opener = _Opener(folder, index)
    tokens = {shard["file"]: opener.tokens_of(shard) for shard in index["shards"]}
    named = [name for path in paths for name in ([*tokens] if path == folder or path.is_dir() else [path.name])]
    if unknown := [name for name in named if name not in tokens]:
        raise InputError(f"{folder}: expected shards that its {INDEX} names, got {list_names(unknown)}")
    starts, place = dict[str, int](), 0
    for name, count in tokens.items():
        starts[name], place = place, place + count
    of = {shard["file"]: shard for shard in index["shards"]}
    runs, shards = [], list[Shard]()
    for name in named:
        digest = str(of[name].get("digest", ""))
        runs.append(Run(name=name, start=starts[name], tokens=tokens[name], digest=digest))
        shards.append(Shard(run=runs[-1], layers=_open(opener.layers_of(of[name]), layers)))
    covered = cover("store", runs, store=index_digest(index), shards=tokens)
    return covered, sorted(shards, key=lambda shard: shard.run.start)


@dataclass(frozen=True, kw_only=False)
class _Opener:
    """Opens shards of a store."""

    folder: Path
    index: dict[str, Any]

    def layers_of(self, shard: dict[str, Any]) -> Layers:
        """The layers of a shard, which is compared with the index: at a URL when it is read."""
        if url := url_of(self.folder):
            [layers] = store_layers(url, self.index, [shard])
            return layers
        check_shard(self.folder, self.index, shard)
        return safetensors_layers(self.folder / shard["file"])

    def tokens_of(self, shard: dict[str, Any]) -> int:
        """Tokens of a shard as the index says, or the file where the index of the first version does not."""
        if "tokens" in shard:
            return int(shard["tokens"])
        return sum(part.tokens for part in next(iter(self.layers_of(shard).values())))


def _loose_layers(path: Path) -> Layers:
    """The layers of a file or a folder; a file NAME-shard-3.npy is of the layer NAME."""
    if url := url_of(path):
        suffix = PurePosixPath(name_of(url)).suffix
        return layers_of(path) if suffix not in FILES else shard_layers(path, REMOTE[suffix])
    if is_folder(path) or path.suffix not in FILES:
        return layers_of(path)
    return shard_layers(path, FILES[path.suffix])


def _open(layers: Layers, wanted: Sequence[str]) -> dict[str, Activations]:
    names = select_layers(list(layers), wanted) if wanted else list(layers)
    return {name: activations_of(name, layers[name]) for name in names}


def _check_layers(shards: Sequence[Shard]) -> None:
    first = shards[0]
    for shard in shards:
        name = printable(shard.run.name, 60)
        if shard.layers.keys() != first.layers.keys():
            raise InputError(
                f"{name}: expected the layers of {printable(first.run.name, 60)} "
                f"({list_names(list(first.layers))}), got {list_names(list(shard.layers))}; make a part of each "
                "layer by itself"
            )
        lengths = {layer: of.tokens for layer, of in shard.layers.items()}
        if len({*lengths.values()}) > 1:
            raise InputError(
                f"{name}: expected layers of as many tokens each, got {printable(lengths, 120)}; make a part of "
                "each layer by itself (--layer)"
            )
