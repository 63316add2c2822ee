"""Do several passes over a source see the same tokens? A cheap digest of each pass is compared with the first.

The digest of tokens x_j is their number, sum_j p_j and sum_j p_j^2, where p_j = x_j . v for one fixed random
direction v. It does not depend on how the tokens are cut into batches, nor on their order (a shuffling DataLoader
is one set of tokens). Where one of n tokens is another one, it changes by about 1 / n of its size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, sqrt
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import CHUNK_TOKENS, InputError, Tokens, batches, from_files
from autopsae.seeds import stream

T = TypeVar("T")

SAME = 1e-6
"""Digests may differ by this share of their size: sums in another order, or a network that is not deterministic to
the last bit, are no other tokens."""


@dataclass(frozen=True)
class Digest:
    """What tells a set of tokens from another; parts are added with `+`."""

    tokens: int = 0
    total: float = 0.0
    """sum_j p_j"""
    square: float = 0.0
    """sum_j p_j^2"""

    @staticmethod
    def of(x: Float[Tensor, "tokens d_in"]) -> "Digest":
        """The digest of one matrix, in float64."""
        direction = _direction(x.shape[1]).to(x.device)
        # In pieces: a whole batch in float64 may be large.
        p = torch.cat([piece.double() @ direction for piece in x.split(CHUNK_TOKENS)])
        return Digest(len(x), float(p.sum()), float(p @ p))

    def __add__(self, other: "Digest") -> "Digest":
        return Digest(self.tokens + other.tokens, self.total + other.total, self.square + other.square)

    def same(self, other: "Digest") -> bool:
        """Whether both are of the same tokens, up to SAME. Values that are not finite are for the reader to tell,
        who says which token they are in.
        """
        if self.tokens != other.tokens:
            return False
        if not all(map(isfinite, (self.total, self.square, other.total, other.square))):
            return True
        square = max(self.square, other.square)
        size = sqrt(self.tokens * square)  # sum_j |p_j| is no larger
        return abs(self.total - other.total) <= SAME * size and abs(self.square - other.square) <= SAME * square


class SamePasses:
    """Tokens of which every whole pass is compared with the first one; a pass that is broken off is not.

    source: the tokens themselves; first: the digest of the first whole pass, None before it.
    """

    def __init__(self, source: Tokens) -> None:
        self.source = source
        self.from_files = from_files(source)
        self.first: Digest | None = None

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_in"]]:
        digest = Digest()
        for batch in batches(self.source, CHUNK_TOKENS):
            digest += Digest.of(batch)
            yield batch
        if self.first is not None:
            check_pass(self.first, digest)
        self.first = digest


def same_passes(tokens: Tokens) -> Tokens:
    """The tokens, compared over passes. A matrix is its own proof, and what is compared already stays as it is."""
    return tokens if isinstance(tokens, (Tensor, np.ndarray, SamePasses)) else SamePasses(tokens)


def known_digest(tokens: Tokens) -> Digest | None:
    """The digest of a matrix, or of tokens that have been read to their end; None where only a pass would tell."""
    if isinstance(tokens, SamePasses):
        return tokens.first
    return digest_of(tokens) if isinstance(tokens, (Tensor, np.ndarray)) else None


def source_documents(tokens: Tokens) -> Any:
    """The number of each token's document where the source tells (`Activations.documents`), else None."""
    return _value_of(tokens, "documents", object)


def known_tokens(tokens: Tokens) -> int | None:
    """How many tokens a matrix, a list of matrices, a file, or anything with a number `tokens` holds; None where
    only a pass would tell.
    """
    if isinstance(tokens, SamePasses):
        return tokens.first.tokens if tokens.first else known_tokens(tokens.source)
    if _is_whole(tokens):
        return len(tokens)
    if isinstance(tokens, list) and all(map(_is_whole, tokens)):
        return sum(map(len, tokens))
    return _value_of(tokens, "tokens", int)


def width_of(tokens: Tokens) -> int | None:
    """d_in of a matrix, a list of matrices, a file, or anything with a number `d_in`; None where only a pass would
    tell.
    """
    if isinstance(tokens, SamePasses):
        return width_of(tokens.source)
    first = tokens[0] if isinstance(tokens, list) and tokens else tokens
    if _is_whole(first):
        return int(first.shape[-1]) if first.ndim == 2 else None
    return _value_of(tokens, "d_in", int)


def spread_over(tokens: Tokens) -> int | None:
    """How many tokens those of a source are spread over (`Activations.spread_over`); None if it does not tell."""
    return _value_of(tokens, "spread_over", int)


def disk_type(tokens: Tokens) -> torch.dtype:
    """The type in which a source holds its tokens; float32 where it does not tell."""
    return _value_of(tokens, "dtype", torch.dtype) or torch.float32


def _value_of(tokens: Tokens, name: str, kind: type[T]) -> T | None:
    """What a source says of itself under a name; None where it says nothing of this kind."""
    value = getattr(tokens.source if isinstance(tokens, SamePasses) else tokens, name, None)
    return value if isinstance(value, kind) else None


def _is_whole(tokens: Any) -> TypeGuard[Tensor | NDArray[Any]]:
    """A matrix of which every row is a token: masked rows are none."""
    return isinstance(tokens, Tensor | np.ndarray) and not isinstance(tokens, np.ma.MaskedArray)


def digest_of(tokens: Tokens) -> Digest:
    """The digest of all tokens, in one pass. Raises InputError as `batches`."""
    digest = Digest()
    for batch in batches(tokens, CHUNK_TOKENS):
        digest += Digest.of(batch)
    return digest


def check_same(first: Digest, now: Digest, *, expected: str, advice: str) -> None:
    """InputError where two digests are not of the same tokens: what was expected, what came, what to try."""
    if now.same(first):
        return
    got = f"{now.tokens:,} tokens instead of {first.tokens:,}"
    if now.tokens == first.tokens:
        got = f"other values in {now.tokens:,} tokens"
    raise InputError(f"expected {expected}, got {got}; {advice}")


def check_pass(first: Digest, now: Digest) -> None:
    """InputError where two passes over a source differ."""
    advice = "save the tokens to a file, or pass an object whose __iter__ starts afresh each time"
    check_same(first, now, expected="a source that yields the same tokens in every pass", advice=advice)


@lru_cache(maxsize=8)  # asked for every batch of every pass
def _direction(d_in: int) -> Float[Tensor, "d_in"]:
    return torch.randn(d_in, generator=stream(0, "direction of a digest"), dtype=torch.float64, device="cpu")
