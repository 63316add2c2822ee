"""What a token matrix is: shape names, input checks, and the one error class for bad input.

Everything that consumes tokens takes them as `Tokens`: one matrix [tokens, d_in], or anything that can be
iterated more than once and yields such matrices. `chunks` turns either into equal pieces of bounded size.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Tokens = Iterable[Any] | Tensor | NDArray[Any]
"""A matrix [tokens, d_in], or a re-iterable of such matrices (torch or NumPy, floating point)."""

CHUNK_TOKENS = 2048
"""Tokens handled at once: large enough for fast products, small enough to stay in cache and in memory."""


class InputError(ValueError):
    """Input that autopsae cannot use. The message says what was expected, what came, and what to try."""


class NoTokens(InputError):
    """There is not one token."""


def chunks(
    tokens: Tokens,
    size: int = CHUNK_TOKENS,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Iterator[Float[Tensor, "chunk d_in"]]:
    """Yield the tokens in order as matrices of exactly `size` rows (the last may be shorter), checked.

    Batches of any size come in; large ones are sliced, small ones joined, so memory is bounded by `size` and
    by the largest batch. `dtype` and `device` are those of what is yielded (default: the batch's own device).

    Raises NoTokens for none, and InputError for a one-shot iterator, batches that are not [tokens, d_in]
    floating-point matrices or differ in width, and NaN or infinite values (naming the first such token and how many
    there are).
    """
    start = 0
    held: list[Tensor] = []
    held_tokens = 0
    for batch in _checked_batches(tokens):
        while len(batch):
            piece = batch[: size - held_tokens]
            batch = batch[len(piece) :]
            held.append(piece)
            held_tokens += len(piece)
            if held_tokens == size:
                yield _join(held, dtype, device, start, tokens)
                start, held, held_tokens = start + size, [], 0
    if held:
        yield _join(held, dtype, device, start, tokens)
    elif start == 0:
        raise NoTokens("expected at least one token, got none; check the token limit, the mask and the source")


class Mapped:
    """Tokens seen through a function of their chunks, which may leave some out; iterated as often as wanted."""

    def __init__(
        self, tokens: Tokens, function: Callable[[Tensor], Tensor], *, dtype: torch.dtype = torch.float32
    ) -> None:
        self._tokens, self._function, self._dtype = tokens, function, dtype

    def __iter__(self) -> Iterator[Float[Tensor, "some d_in"]]:
        return map(self._function, chunks(self._tokens, dtype=self._dtype))


def _checked_batches(tokens: Tokens) -> Iterator[Tensor]:
    """The batches as torch matrices, or InputError at the first that cannot be one."""
    if isinstance(tokens, (Tensor, np.ndarray)):
        tokens = _slices(tokens)
    elif isinstance(tokens, (str, Path, Mapping)) or not isinstance(tokens, Iterable):
        raise InputError(
            f"expected a matrix [tokens, d_in] or batches of such, got {type(tokens).__name__}; open files with "
            "open_activations, and give several layers to survey"
        )
    elif iter(tokens) is tokens:
        raise InputError(
            "expected tokens that can be iterated more than once, got a one-shot iterator; "
            "pass a list of batches, or an object whose __iter__ starts afresh each time"
        )
    d_in = None
    for number, batch in enumerate(tokens):
        if isinstance(batch, (list, tuple)) and len(batch) == 1:
            [batch] = batch  # what a DataLoader over a TensorDataset yields
        if isinstance(batch, np.ndarray):
            # np.array copies the slice: torch warns about read-only memory maps, and reads them page by page.
            batch = torch.from_numpy(np.array(batch))
        if not isinstance(batch, Tensor):
            raise InputError(
                f"batch {number}: expected a torch or NumPy matrix [tokens, d_in], got {type(batch).__name__}"
            )
        if batch.ndim != 2 or not batch.is_floating_point():
            raise InputError(
                f"batch {number}: expected a floating-point matrix [tokens, d_in], got shape "
                f"{tuple(batch.shape)} of {batch.dtype}; reshape sequences to [tokens, d_in] first"
            )
        d_in = d_in or batch.shape[1]
        if batch.shape[1] != d_in:
            raise InputError(
                f"batch {number}: expected d_in = {d_in} as in the batches before it, got {batch.shape[1]}; "
                "diagnose one layer at a time"
            )
        yield batch.detach()


def _slices(matrix: Tensor | NDArray[Any]) -> Iterable[Tensor | NDArray[Any]]:
    if matrix.ndim != 2:
        raise InputError(
            f"expected a matrix [tokens, d_in], got shape {tuple(matrix.shape)}; "
            "reshape sequences to [tokens, d_in] first"
        )
    return (matrix[i : i + CHUNK_TOKENS] for i in range(0, len(matrix), CHUNK_TOKENS))


def _join(
    held: list[Tensor], dtype: torch.dtype, device: torch.device | str | None, start: int, tokens: Tokens
) -> Tensor:
    chunk = (held[0] if len(held) == 1 else torch.cat(held)).to(device=device, dtype=dtype)
    # A sum is finite unless a value is not (float64 cannot overflow on float32 input): one read, no mask.
    if not torch.isfinite(chunk.sum(dtype=torch.float64)):
        bad = ~torch.isfinite(chunk).all(dim=1)
        if bad.any():
            raise InputError(_not_finite(start + int(bad.nonzero()[0]), tokens))
    return chunk


def _not_finite(first: int, tokens: Tokens) -> str:
    counts = [(len(batch), int((~torch.isfinite(batch).all(dim=1)).sum())) for batch in _checked_batches(tokens)]
    total, bad = sum(n for n, _ in counts), sum(b for _, b in counts)
    return (
        f"expected finite activations, got NaN or infinite values in {bad:,} of {total:,} tokens, the first at "
        f"token {first:,} of those read; drop those tokens, or harvest in float32 if the model overflows in float16"
    )
