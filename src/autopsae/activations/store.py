"""Activations on disk: a re-iterable of [tokens, d_in] batches per layer, read piece by piece, never whole.

Readable: a `.npy` matrix (memory-mapped), a `.safetensors` file or a folder of such shards, each tensor
[tokens, d_in] a layer; a folder written by `harvest`, whose index names its layers; a Hugging Face dataset on disk,
each column [context, d_in] a layer (SAELens' cache of activations).
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from autopsae.activations.arrow import STATE, dataset_columns
from autopsae.arrays import CHUNK_TOKENS, InputError

INDEX = "index.json"
FORMAT = "autopsae-activations"


@dataclass(frozen=True)
class Part:
    """A contiguous run of tokens in one file: `read(start, stop)` gives those rows."""

    tokens: int
    read: Callable[[int, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Activations:
    """One layer's activations on disk. Iterating yields [tokens, d_in] batches, as often as wanted.

    layer: its name; `tokens`, `d_in`: its shape; `dtype`: as stored.
    """

    layer: str
    tokens: int
    d_in: int
    dtype: torch.dtype
    parts: tuple[Part, ...]
    source_tokens: int
    """Tokens in the files; `tokens` of them, evenly spaced, are yielded."""
    complement: bool = False
    """Yield the tokens that would not be yielded otherwise, in number `tokens`."""

    def take(self, tokens: int) -> "Activations":
        """At most `tokens` tokens, evenly spaced over the source rather than its first ones.

        The first tokens of a file come from few documents and are correlated; a spread sample is not.
        """
        if tokens < 1:
            raise InputError(f"take: expected a positive number of tokens, got {tokens}")
        if self.complement:
            raise InputError(
                "take: expected a whole source, got what a split left over; take first, or hold out less"
            )
        return replace(self, tokens=min(tokens, self.tokens))

    def split(self, held_out: int) -> tuple["Activations", "Activations"]:
        """(the other tokens, `held_out` tokens evenly spaced over the source).

        Raises InputError unless some tokens are left on both sides, and for what `take` has already thinned out.
        """
        if self.tokens < self.source_tokens or not 1 <= held_out < self.tokens:
            raise InputError(
                f"split: expected 1 to {self.tokens - 1:,} tokens to hold out of all {self.source_tokens:,}, got "
                f"{held_out:,} of {self.tokens:,}"
            )
        return replace(self, tokens=self.tokens - held_out, complement=True), self.take(held_out)

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_in"]]:
        begin = 0
        for part in self.parts:
            for start in range(0, part.tokens, CHUNK_TOKENS):
                stop = min(start + CHUNK_TOKENS, part.tokens)
                rows = self._rows(begin + start, begin + stop)
                if len(rows):
                    batch = part.read(start, stop)
                    yield batch if len(rows) == stop - start else batch[torch.from_numpy(rows)]
            begin += part.tokens

    def _rows(self, first: int, last: int) -> NDArray[np.int64]:
        """Which of the source's tokens first ... last - 1 are yielded, counted from `first`."""
        source = self.source_tokens
        spaced = source - self.tokens if self.complement else self.tokens
        # Token j of the evenly spaced ones stands at floor(j source / spaced).
        places = np.arange(-(-first * spaced // source), -(-last * spaced // source)) * source // spaced
        rows = places - first
        return np.setdiff1d(np.arange(last - first), rows) if self.complement else rows


def open_activations(path: str | Path, layer: str | None = None) -> Activations:
    """The activations of one layer of `path`; `layer` may be left out where there is only one.

    Raises InputError as `open_layers`, and for an unknown layer (naming the near ones).
    """
    layers = open_layers(path)
    if layer is None:
        if len(layers) > 1:
            raise InputError(f"{path}: holds {len(layers)} layers ({_some(list(layers))}); say which")
        layer = next(iter(layers))
    return layers[select_layers(list(layers), [layer])[0]]


def open_layers(path: str | Path) -> dict[str, Activations]:
    """All layers of a `.npy` or `.safetensors` file, a folder of shards, or a dataset, in the source's order.

    Raises InputError for a path that is missing, foreign, truncated, empty, or whose shards disagree.
    """
    path = Path(path)
    if (path / STATE).exists():
        return {
            name: _layer(name, column.d_in, column.dtype, [Part(column.tokens, column.read)])
            for name, column in dataset_columns(path).items()
        }
    if path.is_dir():
        index = path / INDEX
        files = _indexed_shards(index) if index.exists() else sorted(path.glob("*.safetensors"))
        if not files:
            raise InputError(f"{path}: expected .safetensors shards, found none")
        return _open_shards(files)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected .npy, .safetensors or a folder of shards")
    if path.suffix == ".npy":
        return {path.stem: _open_npy(path)}
    if path.suffix == ".safetensors":
        return _open_shards([path])
    raise InputError(
        f"{path}: expected .npy, .safetensors, a folder of shards or a dataset, got "
        f"{path.suffix or 'no suffix'!r}; "
        "convert with numpy.save or safetensors.torch.save_file"
    )


def select_layers(available: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The names in `wanted` (a bare number N stands for hidden state `hsN`), or InputError with near names."""
    names = [f"hs{name}" if name.isdigit() and name not in available else name for name in wanted]
    for name in names:
        if name not in available:
            near = difflib.get_close_matches(name, available, n=3, cutoff=0.5) or list(available)
            raise InputError(f"unknown layer {name!r}; near names: {_some(near)} ({len(available)} in all)")
    return names


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _open_npy(path: Path) -> Activations:
    try:
        matrix = np.lib.format.open_memmap(path, mode="r")  # never a pickle, never an archive
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable .npy matrix ({error}); was it written whole?") from error
    if matrix.ndim != 2 or matrix.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"{path}: expected a float16/32/64 matrix [tokens, d_in], got shape {matrix.shape} of {matrix.dtype}"
        )
    # np.array copies the slice: torch warns about read-only memory maps.
    part = Part(len(matrix), lambda start, stop: torch.from_numpy(np.array(matrix[start:stop])))
    dtype = torch.from_numpy(np.zeros(0, matrix.dtype)).dtype
    return _layer(path.stem, matrix.shape[1], dtype, [part])


def _indexed_shards(index: Path) -> list[Path]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(f"{index}: expected format {FORMAT!r}, got {content['format']!r}")
        if not content.get("complete", True):
            raise InputError(
                f"{index.parent}: the harvest is not finished ({content['tokens']:,} tokens so far); "
                "run it again, it goes on from there"
            )
        return [index.parent / shard["file"] for shard in content["shards"]]
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index}: not an index of {FORMAT} ({error!r}); harvest the folder again") from error


def _open_shards(files: list[Path]) -> dict[str, Activations]:
    """Layers are the floating-point matrices that the first shard holds; every other shard must hold them too."""
    shapes = [_matrices(file) for file in files]
    layers = {}
    for name in sorted(shapes[0], key=_natural):
        _, d_in, dtype = shapes[0][name]
        parts = []
        for file, held in zip(files, shapes, strict=True):
            if name not in held:
                raise InputError(f"{file}: expected layer {name!r} as in {files[0].name}, got {_some(list(held))}")
            if held[name][1] != d_in:
                raise InputError(
                    f"{file}: expected layer {name!r} of d_in = {d_in} as in {files[0].name}, got {held[name][1]}; "
                    "were two harvests written into one folder?"
                )
            parts.append(_shard_part(file, name, held[name][0]))
        layers[name] = _layer(name, d_in, dtype, parts)
    if not layers:
        raise InputError(f"{files[0]}: expected floating-point matrices [tokens, d_in], found none")
    return layers


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts hs2 before hs10; safetensors itself keeps names in alphabetical order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _matrices(file: Path) -> dict[str, tuple[int, int, torch.dtype]]:
    """Name -> (tokens, d_in, dtype) of the floating-point matrices in a safetensors file; reads the header only."""
    found = {}
    try:
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (not a dict)
                shape = shard.get_slice(name).get_shape()
                if len(shape) == 2 and (dtype := _empty_slice(shard, name).dtype).is_floating_point:
                    found[name] = (shape[0], shape[1], dtype)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a readable safetensors file ({error}); was it written whole?") from error
    return found


def _empty_slice(shard: safe_open, name: str) -> Tensor:
    empty: Tensor = shard.get_slice(name)[:0]
    return empty


def _shard_part(file: Path, name: str, tokens: int) -> Part:
    def read(start: int, stop: int) -> Tensor:
        with safe_open(file, framework="pt") as shard:
            rows: Tensor = shard.get_slice(name)[start:stop]
            return rows

    return Part(tokens, read)


def _layer(name: str, d_in: int, dtype: torch.dtype, parts: list[Part]) -> Activations:
    tokens = sum(part.tokens for part in parts)
    if not tokens:
        raise InputError(f"layer {name!r}: expected at least one token, the files hold none")
    return Activations(layer=name, tokens=tokens, d_in=d_in, dtype=dtype, parts=tuple(parts), source_tokens=tokens)
