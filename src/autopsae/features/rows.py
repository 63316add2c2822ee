"""Some tokens of a source alone: their codes and their activations."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from autopsae.arrays import InputError, Tokens, chunks
from autopsae.features.codes import CodeBlock, Codes
from autopsae.vectors import Vector, truth_values


def without_pairs(block: CodeBlock, keep: Bool[np.ndarray, "tokens"]) -> CodeBlock:
    """The block on the same tokens, in which those outside the mask have no pairs."""
    if keep.all():
        return block
    counts = np.diff(block.ends)
    pairs = np.repeat(keep, counts)
    ends = np.append(0, np.cumsum(np.where(keep, counts, 0)))
    return replace(block, ends=ends, latents=block.latents[pairs], values=block.values[pairs])


def select_codes(codes: Codes, keep: Vector) -> Codes:
    """The codes of the tokens in the mask alone. Raises InputError for what is no mask; a pass, or this where the
    codes know their documents, raises it for a mask of another length.
    """
    mask = truth_values("keep", keep, None if codes.documents is None else len(codes.documents))
    documents = None if codes.documents is None else codes.documents[mask]
    return Codes(blocks=_SomeBlocks(codes, mask), d_sae=codes.d_sae, documents=documents)


class SomeTokens:
    """The tokens in a mask alone; iterated as often as wanted. Raises InputError for what is no mask; a pass raises
    it for one of another length.
    """

    def __init__(self, tokens: Tokens, keep: Vector) -> None:
        self._tokens, self._keep = tokens, truth_values("keep", keep)

    def __iter__(self) -> Iterator[Float[Tensor, "some d_in"]]:
        at = 0
        for x in chunks(self._tokens):
            mask = self._keep[at : at + len(x)]
            at += len(x)
            _check_length(at, self._keep, is_end=False)
            yield x[from_numpy(mask).to(x.device)]
        _check_length(at, self._keep, is_end=True)


class _SomeBlocks:
    def __init__(self, codes: Codes, keep: NDArray[np.bool_]) -> None:
        self._codes, self._keep = codes, keep

    def __iter__(self) -> Iterator[CodeBlock]:
        at = start = 0
        for block in self._codes:
            mask = self._keep[at : at + len(block)]
            at += len(block)
            _check_length(at, self._keep, is_end=False)
            ends = without_pairs(block, mask)
            yield replace(ends, start=start, ends=ends.ends[np.append(True, mask)])
            start += int(mask.sum())
        _check_length(at, self._keep, is_end=True)


def _check_length(tokens: int, keep: NDArray[np.bool_], *, is_end: bool) -> None:
    if tokens > len(keep) or (is_end and tokens < len(keep)):
        got = f"{tokens:,}" if is_end else "more"
        raise InputError(
            f"expected a truth value per token, got {len(keep):,} for {got} tokens; are they of another source?"
        )
