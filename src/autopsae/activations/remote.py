"""Activations at a URL: the readers of local files read copies, of which each holds what the layer needs.

Of a safetensors file these are its header and the bytes of the layer, of other files all. While a file is read, the
next one of the layer is copied. The shards of a store that `harvest` wrote have the SHA-256 of each tensor in their
headers, and the index has that of each header: all that is read is checked. The shards of an older store are copied
whole, and compared with the digest that its index has.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autopsae.activations.formats.folder import Layers, Reader
from autopsae.activations.formats.safetensors import DOCUMENT, SIZES, Entry, read_header, safetensors_layers
from autopsae.activations.index import VERSION, check_digest, check_header, read_index
from autopsae.activations.names import layer_name
from autopsae.activations.parts import Part
from autopsae.arrays import InputError
from autopsae.mirror import Check, Mirror, Range, copy_ahead
from autopsae.reading import MOST_JSON, input_errors
from autopsae.urls import list_folder, read_ranges

HEAD = 2**16
"""Bytes that are read of a safetensors file first: most headers are shorter."""


class RemoteFile:
    """A file at a URL, and its layers."""

    def __init__(
        self,
        url: str,
        reader: Reader,
        *,
        check: Check | None = None,
        check_whole: Check | None = None,
    ) -> None:
        """check: of the header, in a copy; where the header has the SHA-256 of tensors, they are then checked.
        check_whole: of all of it, which is copied to read any layer where the header has none.
        """
        self.url = url
        self._reader, self._check, self._check_whole = reader, check, check_whole
        self._mirror = Mirror(url)
        self._opened: tuple[int, dict[str, list[Part]]] = (0, {})
        self._entries: Mapping[str, Entry] = {}
        self._sums: Mapping[str, str] = {}
        self._length: int | None = None  # of the header

    @contextmanager
    def hold(self, layer: str | None, name: str | None = None) -> Iterator[dict[str, list[Part]]]:
        """The file's layers, as long as this context lasts, in which this layer, and the tensor `name`, can be
        read. One without a name is that of "".
        """
        with self._in_its_name(), self._mirror.hold(self._head()) as path:
            if self._opened[0] != self._mirror.copies:
                self._opened = (self._mirror.copies, self._open(path))
            with self._mirror.hold(self._ranges(layer, name)):
                yield self._opened[1]

    def layers(self) -> Layers | list[Part]:
        """Its layers, whose rows are copied when they are read. Raises as the reader of such files."""
        with self.hold(None) as held:
            layers = {
                name: [self._part(part, Rows(self, name, number)) for number, part in enumerate(parts)]
                for name, parts in held.items()
            }
        return layers[""] if [*layers] == [""] else layers

    def bytes_of(self, layer: str) -> int:
        """How many are copied for a layer, once its header is known."""
        return sum(end - begin for begin, end in self._ranges(layer, None))

    def _part(self, part: Part, rows: "Rows") -> Part:
        return replace(part, read=rows, numbers=rows.numbers if part.numbers else None)

    def _open(self, path: Path) -> dict[str, list[Part]]:
        if self._check:
            self._check(path)
        layers = self._reader(path)
        if self._reader is safetensors_layers:
            self._entries, metadata = read_header(path)
            self._sums = _sums(metadata.get("sha256"), self.url) if self._check_whole else {}
        return layers if isinstance(layers, dict) else {"": layers}

    def _head(self) -> dict[Range, Check | None]:
        """What must be there to open the file."""
        mirror = self._mirror
        if self._reader is not safetensors_layers or mirror.size <= HEAD:
            return {mirror.whole: None}
        if self._length is None or not mirror.bytes_there:
            [first] = read_ranges(self.url, [(0, 8)])
            self._length = min(int.from_bytes(first, "little"), MOST_JSON, mirror.size - 8)
        return {(0, 8 + self._length): None}

    def _ranges(self, layer: str | None, name: str | None) -> dict[Range, Check | None]:
        """Where a layer, and a tensor of the name, lie."""
        ranges = dict[Range, Check | None]()
        if self._check_whole and not self._sums:
            return {self._mirror.whole: self._check_whole}
        for tensor, entry in self._entries.items():
            if tensor == name or layer_name(tensor) == layer:
                end = entry.begin + prod(entry.shape) * SIZES.get(entry.dtype, 0)
                check = partial(_check_sum, tensor, entry.begin, end, self._sums.get(tensor))
                ranges[entry.begin, end] = check if self._sums else None
        return ranges

    @contextmanager
    def _in_its_name(self) -> Iterator[None]:
        """What the readers say of the copy is said of the URL."""
        try:
            yield
        except InputError as error:
            if str(self._mirror.path) not in str(error):
                raise
            raise type(error)(str(error).replace(str(self._mirror.path), self.url)) from error


@dataclass(eq=False)
class Rows:
    """Reads rows of one layer in a file."""

    file: RemoteFile
    layer: str
    number: int
    """Which of the layer's parts in the file."""
    following: "Rows | None" = None
    """What is read next."""
    is_asked: bool = False
    """Whether the next one was asked for."""

    def __call__(self, start: int, stop: int) -> Tensor:
        """The rows start ... stop - 1."""
        with self.file.hold(self.layer) as layers:
            if self.following is not None and not self.is_asked:
                self.is_asked = copy_ahead(self.file.bytes_of(self.layer), self.following.copy)
            # At the next pass over the file, the next one is asked for again.
            self.is_asked = self.is_asked and stop < layers[self.layer][self.number].tokens
            return layers[self.layer][self.number].read(start, stop)

    def copy(self) -> None:
        """Copy what is needed to read."""
        with self.file.hold(self.layer):
            return

    def numbers(self) -> NDArray[np.int64]:
        """The number of each token's document."""
        with self.file.hold(None, DOCUMENT) as layers:
            numbers = layers[self.layer][self.number].numbers
            assert numbers is not None
            return numbers()


def read_in_turn(layers: Layers) -> Layers:
    """The layers, of which each part tells the one after it."""
    for parts in layers.values():
        for part, after in pairwise(parts):
            if isinstance(part.read, Rows) and isinstance(after.read, Rows):
                part.read.following = after.read
    return layers


def store_layers(folder: str, index: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> list[Layers]:
    """The layers of each of these shards of a store, of which the index tells what they hold: only the header of
    the first is read. Raises InputError where it is not what the index says; of all others when they are read.
    """
    files = [_shard_file(folder, index, shard) for shard in shards]
    told = index.get("layers")
    if not told or any("tokens" not in shard for shard in shards):
        return [layers for file in files if isinstance(layers := file.layers(), dict)]
    first = files[0].layers()
    assert isinstance(first, dict)
    opened = list[Layers]()
    for file, shard in zip(files, shards, strict=True):
        held: Layers = {}
        for name, [part] in first.items():
            rows = Rows(file, name, 0)
            numbers = rows.numbers if part.numbers else None
            held[name] = [replace(part, tokens=int(shard["tokens"]), read=rows, numbers=numbers)]
        opened.append(held)
    return opened


def read_store_index(folder: str) -> dict[str, Any]:
    """The index of a store at a URL, of which the harvest is finished. Raises InputError as `read_index`."""
    index = read_index(Path(folder))
    if not index.get("complete", True):
        raise InputError(
            f"{folder}: the harvest is not finished ({index['tokens']:,} tokens so far); run it again, it goes on "
            "from there"
        )
    if not index["shards"]:
        raise InputError(f"{folder}: expected shards in its index, found none; harvest it again")
    return index


def _shard_file(folder: str, index: Mapping[str, Any], shard: Mapping[str, Any]) -> RemoteFile:
    def check(path: Path) -> None:
        check_header(path, index, shard)

    def check_whole(path: Path) -> None:
        check_digest(path, shard)

    url, has_digest = f"{folder.rstrip('/')}/{shard['file']}", index.get("version") == VERSION
    return RemoteFile(url, safetensors_layers, check=check, check_whole=check_whole if has_digest else None)


def check_shards_there(folder: str, index: Mapping[str, Any]) -> None:
    """InputError for the first shard of an index that does not lie in the folder at a URL; none is read."""
    if index["shards"]:
        held = list_folder(folder)
        for shard in index["shards"]:
            if shard["file"] not in held:
                raise InputError(
                    f"{folder}: the index names {shard['file']}, which is gone; put it back, or harvest into "
                    "another folder"
                )


def _sums(told: object, where: str) -> dict[str, str]:
    """The SHA-256 of each tensor, as the header of a shard says; {} where it does not."""
    if told is None:
        return {}
    with input_errors(where, "a shard with the SHA-256 of its tensors", "harvest it again"):
        sums = json.loads(str(told))
        return {str(name): str(value) for name, value in sums.items()}


def _check_sum(tensor: str, begin: int, end: int, expected: str | None, path: Path) -> None:
    """InputError where these bytes of a copy do not have the SHA-256 that they must have."""
    digest, place = sha256(), begin
    with path.open("rb") as file:
        file.seek(begin)
        while place < end and (block := file.read(min(2**20, end - place))):
            digest.update(block)
            place += len(block)
    if digest.hexdigest() != expected:
        raise InputError(
            f"{path}: {tensor}: expected what was harvested, got other bytes than the checksum says; it was "
            "damaged since, or on its way: run the same again, or put the harvested shard back"
        )
