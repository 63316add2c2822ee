"""A layer as one file holds it: rows that are read piece by piece."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.activations.names import printable
from autopsae.arrays import CHUNK_TOKENS, InputError


@dataclass(frozen=True, kw_only=True)
class Part:
    """A contiguous run of one layer's tokens, in one file."""

    tokens: int
    """How many rows there are."""
    d_in: int
    """Width of a row."""
    dtype: torch.dtype
    """Type of the rows that `read` gives."""
    read: Callable[[int, int], Tensor]
    """`read(start, stop)` gives those rows, a matrix of its own."""
    sequence: int | None = None
    """Tokens of a sequence where the file holds [sequences, tokens, d_in]; None where it holds [tokens, d_in]."""


class NoLayers(InputError):
    """A file that can be read, but holds integers alone."""


def shaped(shape: Sequence[int], where: object) -> tuple[int, int, int | None]:
    """(tokens, d_in, tokens of a sequence or None) of an array [tokens, d_in] or [sequences, tokens, d_in].

    Raises InputError for any other number of dimensions, and for rows without a value.
    """
    if len(shape) not in (2, 3) or not shape[-1]:
        raise InputError(
            f"{printable(where)}: expected a matrix [tokens, d_in] or an array [sequences, tokens, d_in], got "
            f"shape {printable(list(shape), 80)}; reshape it"
        )
    return (shape[0], shape[1], None) if len(shape) == 2 else (shape[0] * shape[1], shape[2], shape[1])


def forward_only(
    opened: Callable[[int], tuple[int, Iterator[Tensor]]], most_open: int = 4
) -> Callable[[int, int], Float[Tensor, "rows d_in"]]:
    """`read(start, stop)` of rows that can only be streamed. opened(start): (number of its first row, batches).

    Reading on goes on with an open stream, so that a pass over all rows reads them once, and a few passes at a time
    do not disturb each other; reading further back opens another.
    """
    streams: list[tuple[int, Iterator[Tensor], Tensor]] = []  # (place of the next row, its batches, rows left over)

    def read(start: int, stop: int) -> Tensor:
        behind = [stream for stream in streams if stream[0] <= start]
        if behind:
            stream = max(behind, key=lambda stream: stream[0])
            streams.remove(stream)
            place, batches, left = stream
        else:
            place, batches = opened(start)
            left = torch.empty(0)
        rows = []
        while place < stop:
            if not len(left):
                left = next(batches)
            skipped, taken = max(0, start - place), stop - place
            rows.append(left[skipped:taken])
            place, left = place + min(taken, len(left)), left[taken:]
        streams.append((place, batches, left))
        del streams[:-most_open]
        return torch.cat([piece for piece in rows if len(piece)])

    return read


def kept(part: Part, mask: Bool[NDArray[np.bool_], "tokens"]) -> Part:
    """The rows of a part where the mask is True; never more than a chunk of the others is read at once."""
    starts = range(0, part.tokens, CHUNK_TOKENS)
    counts = [int(mask[start : start + CHUNK_TOKENS].sum()) for start in starts]
    before = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def read(start: int, stop: int) -> Tensor:
        first = int(np.searchsorted(before, start, side="right")) - 1
        last = int(np.searchsorted(before, stop, side="left"))
        pieces = []
        for block in range(first, last):
            begin = block * CHUNK_TOKENS
            rows = np.flatnonzero(mask[begin : begin + CHUNK_TOKENS])
            rows = rows[max(0, start - int(before[block])) : stop - int(before[block])]
            if len(rows):
                whole = part.read(begin, min(begin + CHUNK_TOKENS, part.tokens))
                pieces.append(whole[torch.from_numpy(rows)])
        return torch.cat(pieces)

    return replace(part, tokens=int(before[-1]), read=read, sequence=None)
