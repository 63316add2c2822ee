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

from autopsae.threads import read_ahead
from autopsae.transfers import is_gpu, send
from autopsae.words import printable, reason

Tokens = Iterable[Any] | Tensor | NDArray[Any]
"""A matrix [tokens, d_in], or a re-iterable of such matrices (torch or NumPy, floating point)."""

CHUNK_TOKENS = 2048
"""Tokens handled at once: large enough for fast products, small enough to stay in cache and in memory."""


NOTE = "autopsae: the source of tokens raised this"
"""The beginning of the note that an exception of a source gets."""


class InputError(ValueError):
    """Input that autopsae cannot use. The message says what was expected, what came, and what to try, on one line.

    Whatever names and values it quotes, every control, invisible or broken character in it is an escape.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


class NoTokens(InputError):
    """There is not one token."""


def chunks(
    tokens: Tokens,
    size: int = CHUNK_TOKENS,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str | None = None,
) -> Iterator[Float[Tensor, "chunk d_in"]]:
    """Yield the tokens in order as matrices of exactly `size` rows (the last may be shorter), checked.

    Batches of any size come in; large ones are sliced, small ones joined, so memory is bounded by `size` and
    by the largest batch. `dtype` and `device` are those of what is yielded (default: the batch's own device); dtype
    None is float64 for float64 tokens and float32 for all others, which loses nothing.
    What is yielded is a copy: a source may refill one buffer for all of its batches.

    Raises NoTokens for none, and InputError for a device that is not there, a one-shot iterator, batches that are
    not [tokens, d_in] floating-point matrices or differ in width, rows that are masked in part, and values that are
    NaN, infinite or beyond the range of `dtype` (naming the first such token and how many there are).
    """
    check_device(device, dtype or torch.float64)
    start = 0
    held: list[Tensor] = []
    held_tokens = 0
    source = batches(tokens, size)
    # Files are read while a GPU computes; on the CPU the reader would take a core from the computation.
    if is_gpu(device) and from_files(tokens):
        source = read_ahead(source)
    for batch in source:
        while len(batch):
            piece = batch[: size - held_tokens]
            batch = batch[len(piece) :]
            # Copied before the source is asked for its next batch, which may lie in the same memory.
            own = torch.float64 if batch.dtype == torch.float64 else torch.float32
            held.append(send(piece, device, dtype or own))
            held_tokens += len(piece)
            if held_tokens == size:
                yield _join(held, start, tokens)
                start, held, held_tokens = start + size, [], 0
    if held:
        yield _join(held, start, tokens)
    elif start == 0:
        raise NoTokens("expected at least one token, got none; check the token limit, the mask and the source")


def matrix(tokens: Tokens) -> Float[Tensor, "tokens d_in"]:
    """All tokens in one matrix, in the type of a tensor or else float64: for a sample. Raises InputError as
    `chunks`.
    """
    return torch.cat(list(chunks(tokens, dtype=tokens.dtype if isinstance(tokens, Tensor) else torch.float64)))


def check_device(device: torch.device | str | None, dtype: torch.dtype = torch.float32) -> None:
    """InputError unless `dtype` can be computed there: known before the work, not after."""
    if device is None:
        return
    try:
        torch.zeros(1, dtype=dtype, device=device).sum().item()
    except (RuntimeError, AssertionError, TypeError) as error:
        name = str(dtype).removeprefix("torch.")
        raise InputError(
            f"device {str(device)!r}: expected one that computes in {name} ({reason(error)}); try cpu"
        ) from error


def from_files(tokens: Tokens) -> bool:
    """Whether our own code reads the tokens from files, and so may read them in another thread: a source of the
    user's may depend on the thread that it runs in, or fill its memory anew.
    """
    return bool(getattr(tokens, "from_files", False))


class Mapped:
    """Tokens seen through a function of their chunks, which may leave some out; iterated as often as wanted."""

    def __init__(
        self, tokens: Tokens, function: Callable[[Tensor], Tensor], *, dtype: torch.dtype = torch.float32
    ) -> None:
        self._tokens, self._function, self._dtype = tokens, function, dtype
        self.from_files = from_files(tokens)

    def __iter__(self) -> Iterator[Float[Tensor, "some d_in"]]:
        return map(self._function, chunks(self._tokens, dtype=self._dtype))


def batches(tokens: Tokens, size: int = CHUNK_TOKENS) -> Iterator[Tensor]:
    """The batches as torch matrices, a whole matrix in slices of `size`; they may lie in the source's memory.

    Raises InputError at the first batch that cannot be one.
    """
    d_in = None
    for number, batch in enumerate(_with_notes(tokens, size)):
        matrix = _matrix(batch, number)
        d_in = d_in or matrix.shape[1]
        if matrix.shape[1] != d_in:
            raise InputError(
                f"batch {number}: expected d_in = {d_in} as in the batches before it, got {matrix.shape[1]}; "
                "diagnose one layer at a time"
            )
        yield matrix


def _pieces(tokens: Tokens, size: int) -> Iterator[Any]:
    """A new pass over the tokens. Raises InputError for what cannot be iterated again and again."""
    if isinstance(tokens, (Tensor, np.ndarray)):
        return _slices(tokens, size)
    if isinstance(tokens, (str, Path, Mapping)) or not isinstance(tokens, Iterable):
        raise InputError(
            f"expected a matrix [tokens, d_in] or batches of such, got {type(tokens).__name__}; open files with "
            "open_activations, and give several layers to survey"
        )
    pieces = iter(tokens)
    if pieces is tokens:
        raise InputError(
            "expected tokens that can be iterated more than once, got a one-shot iterator; "
            "pass a list of batches, or an object whose __iter__ starts afresh each time"
        )
    return pieces


def _with_notes(tokens: Tokens, size: int) -> Iterator[Any]:
    """`_pieces`. An exception of the user's own source stays what it is, so that it shows the source's lines and is
    caught where the user catches it; a note says at which batch it was raised.
    """
    number = 0
    try:
        for piece in _pieces(tokens, size):
            yield piece
            number += 1
    except InputError:
        raise
    except Exception as error:
        # Where tokens are seen through several iterables, the innermost counts the user's own batches.
        if not any(note.startswith(NOTE) for note in getattr(error, "__notes__", [])):
            error.add_note(
                f"{NOTE} where batch {number:,} of a pass was asked for; every file that was written before is "
                "whole: mend the source and run the same again"
            )
        raise


def _check_dense(tensor: Tensor, where: str) -> None:
    masked = isinstance(tensor, torch.masked.MaskedTensor)
    if masked or tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested:
        kind = "a nested" if tensor.is_nested else "a meta" if tensor.is_meta else f"a {tensor.layout}"
        if masked:
            raise InputError(f"{where}expected a dense matrix, got a masked tensor; pass the rows that are tokens")
        raise InputError(f"{where}expected a dense matrix with values, got {kind} tensor; pass to_dense() of it")


def _slices(matrix: Tensor | NDArray[Any], size: int) -> Iterator[Tensor | NDArray[Any]]:
    if isinstance(matrix, Tensor):
        _check_dense(matrix, "")
    if matrix.ndim != 2:
        raise InputError(
            f"expected a matrix [tokens, d_in], got shape {tuple(matrix.shape)}; "
            "reshape sequences to [tokens, d_in] first"
        )
    return (matrix[i : i + size] for i in range(0, len(matrix), size))


def _matrix(batch: Any, number: int) -> Tensor:
    """One batch as a dense torch matrix of real floating-point numbers. Raises InputError."""
    if isinstance(batch, (list, tuple)) and len(batch) == 1:
        [batch] = batch  # what a DataLoader over a TensorDataset yields
    if isinstance(batch, np.ndarray):
        batch = _from_numpy(batch, number)
    if not isinstance(batch, Tensor):
        raise InputError(
            f"batch {number}: expected a torch or NumPy matrix [tokens, d_in], got {type(batch).__name__}"
        )
    _check_dense(batch, f"batch {number}: ")
    if batch.ndim != 2 or not batch.is_floating_point():
        raise InputError(
            f"batch {number}: expected a floating-point matrix [tokens, d_in], got shape "
            f"{tuple(batch.shape)} of {batch.dtype}; reshape sequences to [tokens, d_in] first"
        )
    return batch.detach()


def _from_numpy(batch: NDArray[Any], number: int) -> Tensor:
    """A NumPy array in torch's types: in this machine's byte order, without the rows that are masked."""
    if isinstance(batch, np.ma.MaskedArray):
        batch = _whole_rows(batch, number)
    if batch.dtype.type not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"batch {number}: expected a floating-point matrix (float16, float32 or float64), got {batch.dtype}; "
            "convert it with astype(np.float32)"
        )
    # A copy also of what needs no other byte order: torch warns about read-only memory maps, and reads them page by
    # page.
    return torch.from_numpy(np.array(batch, dtype=batch.dtype.newbyteorder("="), subok=False))


def _whole_rows(batch: Any, number: int) -> NDArray[Any]:
    """The rows of a masked array of which nothing is masked. Raises InputError for rows that are masked in part."""
    masked = np.ma.getmaskarray(batch)
    if masked.ndim != 2:
        return np.asarray(batch.data)
    whole, some = masked.all(axis=1), masked.any(axis=1)
    if (whole != some).any():
        first = int(np.flatnonzero(whole != some)[0])
        raise InputError(
            f"batch {number}: expected a mask that leaves out whole tokens, got {int((whole != some).sum()):,} "
            f"rows of which some dimensions are masked (the first is row {first}); fill them, or mask the whole row"
        )
    return np.asarray(batch.data)[~whole]


def _join(held: list[Tensor], start: int, tokens: Tokens) -> Tensor:
    chunk = held[0] if len(held) == 1 else torch.cat(held)
    # A sum is finite unless a value is not, or it overflows: one read, no mask.
    if not torch.isfinite(chunk.sum()):
        bad = ~torch.isfinite(chunk).all(dim=1)
        if bad.any():
            raise InputError(_not_finite(start + int(bad.nonzero()[0]), tokens, chunk.dtype))
    return chunk


def _not_finite(first: int, tokens: Tokens, dtype: torch.dtype) -> str:
    total = bad = beyond = 0
    for batch in batches(tokens):
        x = batch.double()  # float8 has no isfinite
        finite = x.isfinite()
        total, bad = total + len(x), bad + int((~finite.all(dim=1)).sum())
        beyond += int((finite & ~x.to(dtype).isfinite()).any(dim=1).sum())
    if not bad:
        return (
            f"expected activations that {dtype} can hold, got larger values in {beyond:,} of {total:,} tokens, the "
            f"first at token {first:,} of those read; divide all tokens by one number"
        )
    return (
        f"expected finite activations, got NaN or infinite values in {bad:,} of {total:,} tokens, the first at "
        f"token {first:,} of those read; drop those tokens, or harvest in float32 if the model overflows in float16"
    )
