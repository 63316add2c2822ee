"""A layer as one file holds it: rows that are read piece by piece."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import CHUNK_TOKENS, InputError
from autopsae.words import printable


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
    numbers: Callable[[], NDArray[np.int64]] | None = None
    """`numbers()` gives the number of each token's document, where the file holds them."""


class NoLayers(InputError):
    """A file that can be read, but holds no matrix of floats."""


def shape_as_tokens(shape: Sequence[int], where: object) -> tuple[int, int, int | None]:
    """(tokens, d_in, tokens of a sequence or None) of an array [tokens, d_in] or [sequences, tokens, d_in].

    Raises InputError for any other number of dimensions, and for rows without a value.
    """
    if len(shape) not in (2, 3) or not shape[-1]:
        raise InputError(
            f"{where}: expected a matrix [tokens, d_in] or an array [sequences, tokens, d_in], got "
            f"shape {printable(list(shape), 80)}; reshape it"
        )
    return (shape[0], shape[1], None) if len(shape) == 2 else (shape[0] * shape[1], shape[2], shape[1])


def document_numbers(parts: Sequence[Part]) -> NDArray[np.int64] | None:
    """The number of each token's document as files hold it, or of its sequence; None where neither is known."""
    numbers, sequences = [], 0
    for part in parts:
        if part.numbers is not None:
            numbers.append(part.numbers())
        elif part.sequence is not None:
            numbers.append(sequences + np.arange(part.tokens) // part.sequence)
            sequences += part.tokens // part.sequence
        else:
            return None
    return np.concatenate(numbers)


def runs(start: int, stop: int, length: int) -> Iterator[tuple[int, int, int]]:
    """(sequence, first, last) where the rows start ... stop - 1 lie in sequences of `length` tokens."""
    for number in range(start // length, -(-stop // length)):
        yield number, max(0, start - number * length), min(length, stop - number * length)


def keep_rows(part: Part, mask: Bool[np.ndarray, "tokens"]) -> Part:
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

    numbers = part.numbers
    kept = None if numbers is None else lambda: numbers()[mask]
    return replace(part, tokens=int(before[-1]), read=read, sequence=None, numbers=kept)
