"""Activations on disk: a re-iterable of [tokens, d_in] batches per layer, read piece by piece, never whole.

What can be read is listed in docs/files.md; `formats` has a module for each layout.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.activations.formats.layouts import layers_of
from autopsae.activations.padding import Numbers, without_padding
from autopsae.activations.parts import Part, document_numbers
from autopsae.activations.spread import spread
from autopsae.arguments import whole_arguments
from autopsae.arrays import CHUNK_TOKENS, InputError
from autopsae.memory import check_memory
from autopsae.tables import Result
from autopsae.words import list_names, printable, show

COPIES = 2
"""Of a chunk while it is read: the bytes of the file, and the rows that are made of them."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Activations(Result):
    """One layer's activations on disk. Iterating yields [tokens, d_in] batches, as often as wanted."""

    layer: str
    """The layer's name."""
    tokens: int
    """Number of tokens that are yielded."""
    d_in: int
    """Their width."""
    dtype: torch.dtype
    """Type of the batches, as stored (float32 for float8)."""
    parts: tuple[Part, ...]
    """Where the tokens lie, in order."""
    source_tokens: int
    """Tokens in the files; `tokens` of them, spread over all, are yielded."""
    complement: bool = False
    """Yield the tokens that would not be yielded otherwise, in number `tokens`."""
    from_files: ClassVar[bool] = True
    """Beside a GPU, another thread may read them."""

    @whole_arguments("tokens")
    def take(self, tokens: int) -> "Activations":
        """At most `tokens` tokens, spread over the source (`spread`) rather than its first ones.

        The first tokens of a file come from few documents and are correlated; a spread sample is not.
        """
        if tokens < 1:
            raise InputError(f"take: expected a positive number of tokens, got {tokens}")
        if self.complement:
            raise InputError(
                "take: expected a whole source, got what a split left over; take first, or hold out less"
            )
        return replace(self, tokens=min(tokens, self.tokens))

    @whole_arguments("held_out")
    def split(self, held_out: int) -> tuple["Activations", "Activations"]:
        """(the other tokens, `held_out` tokens spread over the source).

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
        rows = spread(first, last, chosen=spaced, of=source) - first
        return np.setdiff1d(np.arange(last - first), rows) if self.complement else rows

    @property
    def documents(self) -> NDArray[np.int64] | None:
        """The number of the document that each yielded token is from, as a harvest stores it, or else of its
        sequence; None where the files do not tell.
        """
        numbers = document_numbers(self.parts)
        return None if numbers is None else numbers[self._rows(0, self.source_tokens)]

    @property
    def spread_over(self) -> int:
        """Number of tokens that those that are yielded are spread over: all of the files, or what a split left."""
        return self.tokens if self.complement else self.source_tokens

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{printable(self.layer)}: {self.tokens:,} tokens of d_in = {self.d_in:,}, {dtype}"


def open_activations(
    path: str | Path,
    layer: str | None = None,
    *,
    lengths: Numbers | None = None,
    mask: Numbers | None = None,
) -> Activations:
    """The activations of one layer of `path`; `layer` may be left out where there is only one.

    lengths, mask: what is no padding, as for `open_layers`.
    Raises InputError as `open_layers`, and for an unknown layer (naming the near ones).
    """
    available = layers_of(Path(path))
    if layer is None:
        if len(available) > 1:
            names = list_names(list(available))
            raise InputError(f"{path}: holds {len(available)} layers ({names}); say which")
        layer = next(iter(available))
    [name] = select_layers(list(available), [layer])
    return activations_of(name, without_padding(name, available[name], lengths, mask))


def open_layers(
    path: str | Path,
    layers: Sequence[str] = (),
    *,
    lengths: Numbers | None = None,
    mask: Numbers | None = None,
) -> dict[str, Activations]:
    """Layers of a file or folder in one of the layouts of docs/files.md: all in the source's order, or those named.

    lengths: for activations [sequences, tokens, d_in], how many tokens of each sequence are real, the first ones.
    mask: [sequences, tokens] or one for each token, True or 1 where it is real. The others are padding, and left
    out. Both may be files (.npy, .npz, .pt, .txt).

    Raises InputError for a path that is missing, foreign, damaged, empty, or whose shards disagree, for an unknown
    layer, and for lengths or a mask that do not fit a layer.
    """
    available = layers_of(Path(path))
    names = select_layers(list(available), layers) if layers else list(available)
    return {name: activations_of(name, without_padding(name, available[name], lengths, mask)) for name in names}


def select_layers(available: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The names in `wanted` (a bare number N stands for hidden state `hsN`), or InputError with near names."""
    names = [f"hs{name}" if name.isdigit() and name not in available else name for name in wanted]
    for name in names:
        if name not in available:
            near = difflib.get_close_matches(name, available, n=3, cutoff=0.5) or list(available)
            raise InputError(
                f"unknown layer {show(name, 80)}; near names: {list_names(near)} ({len(available)} in all)"
            )
    return names


def activations_of(name: str, parts: Sequence[Part]) -> Activations:
    """The activations of a layer that lie in these parts. Raises InputError where there is no token, or where the
    memory is too small to read them.
    """
    tokens = sum(part.tokens for part in parts)
    if not tokens:
        raise InputError(f"layer {show(name, 80)}: expected at least one token, the files hold none")
    # A compressed file, or one with holes, may tell of rows that are far larger than it is.
    largest = max(min(part.tokens, CHUNK_TOKENS) * part.d_in * part.dtype.itemsize for part in parts)
    what = f"to read layer {show(name, 80)} in chunks of {CHUNK_TOKENS:,} tokens of d_in = {parts[0].d_in:,}"
    check_memory(COPIES * largest, torch.device("cpu"), what, "use a machine with more, or a narrower layer")
    return Activations(
        layer=name,
        tokens=tokens,
        d_in=parts[0].d_in,
        dtype=reduce(torch.promote_types, (part.dtype for part in parts)),
        parts=tuple(parts),
        source_tokens=tokens,
    )
