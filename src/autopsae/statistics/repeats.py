"""Tokens that are the same vector: how many are, how many distinct vectors there are, and streams with one of each.

Vectors are told apart by a 64-bit hash of their numbers. Two that differ have the same hash about once in 10^13
pairs, and -0.0 is the same number as 0.0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import Tokens, chunks
from autopsae.kernels.dispatch import row_loops, threads_for
from autopsae.statistics.moments import ROWS
from autopsae.tables import Result

COUNTED = 2**18
"""Distinct vectors that are counted exactly, and counters of the share of the most frequent vector beyond that."""

_KEPT = COUNTED + 1  # one more than are counted exactly says that there are more
_SHARE_BITS = 18  # the leading bits of a hash choose its counter, of which there are COUNTED


@dataclass(frozen=True, repr=False)
class Repeats(Result):
    """How many tokens of a stream are copies of each other."""

    tokens: int
    """Tokens read."""
    distinct: int | None
    """Distinct vectors among them, exact; None where there are more than 262,144."""
    distinct_estimate: int
    """The same number, where there are more than 262,144 estimated, with a standard error of 0.2 %."""
    zero_rows: int
    """Tokens of which every number is zero, exact."""
    largest_share: float
    """Fraction of the tokens that are the most frequent vector. Exact up to 262,144 distinct vectors; beyond, too
    high by the share of those other tokens that have the same counter, 1 in 262,144 on average."""

    def __str__(self) -> str:
        about = "" if self.distinct is not None else "about "
        distinct = f"{about}{self.distinct_estimate:,} distinct vectors among {self.tokens:,} tokens"
        return f"{distinct}; the most frequent is {self.largest_share:.2%} of them"


@dataclass(frozen=True, kw_only=True, eq=False)
class RowCounts:
    """Sufficient statistics of `Repeats`: bounded memory, and the same in whatever order parts are merged.

    The vectors with the smallest hashes are counted one by one (bottom-k or KMV sketch; Bar-Yossef et al. 2002).
    A hash that is among the smallest of the whole stream has been so in every part, and so its count is exact.
    """

    tokens: int
    zero_rows: int
    hashes: NDArray[Any]
    """The smallest hashes, at most 262,145, in order."""
    counts: NDArray[Any]
    """Tokens of each of those."""
    counters: NDArray[Any]
    """Tokens by the leading 18 bits of their hash."""

    @staticmethod
    def of(hashes: NDArray[Any], *, zero_rows: int) -> "RowCounts":
        """Counts of tokens with these hashes (`row_hashes`)."""
        smallest, counts = np.unique(hashes, return_counts=True)
        counters = np.bincount((hashes >> np.uint64(64 - _SHARE_BITS)).astype(np.int64), minlength=2**_SHARE_BITS)
        return RowCounts(
            tokens=len(hashes),
            zero_rows=zero_rows,
            hashes=smallest[:_KEPT],
            counts=counts[:_KEPT],
            counters=counters,
        )

    def merge(self, other: "RowCounts") -> "RowCounts":
        """Counts of both token sets together."""
        hashes, places = np.unique(np.concatenate([self.hashes, other.hashes]), return_inverse=True)
        # Whole numbers under 2^53 in float64 (bincount's weights): the sums are exact.
        counts = np.bincount(places, weights=np.concatenate([self.counts, other.counts])).astype(np.int64)
        return RowCounts(
            tokens=self.tokens + other.tokens,
            zero_rows=self.zero_rows + other.zero_rows,
            hashes=hashes[:_KEPT],
            counts=counts[:_KEPT],
            counters=self.counters + other.counters,
        )

    def repeats(self) -> Repeats:
        """The numbers that the counts stand for."""
        exact = len(self.hashes) <= COUNTED
        # The k-th smallest of n uniform numbers in [0, 1] lies near k / n.
        kth = float(self.hashes[-1]) / 2.0**64
        estimate = len(self.hashes) if exact else round((len(self.hashes) - 1) / kth)
        most = self.counts.max() if exact else self.counters.max()
        return Repeats(
            tokens=self.tokens,
            distinct=len(self.hashes) if exact else None,
            distinct_estimate=min(estimate, self.tokens),
            zero_rows=self.zero_rows,
            largest_share=int(most) / self.tokens,
        )


class RowCounter:
    """Counts chunk by chunk; a merge for every chunk would sort the same hashes again and again."""

    def __init__(self) -> None:
        self._counts: RowCounts | None = None
        self._pending: list[NDArray[Any]] = []
        self._zero_rows = 0

    def add(self, x: Float[Tensor, "tokens d_in"]) -> None:
        """Count a matrix in float32 or float64."""
        self._pending.append(row_hashes(x))
        # A row that begins with zero is rare, and only such a row can be all zero.
        candidates = x[x[:, 0] == 0]
        self._zero_rows += int((candidates == 0).all(dim=1).sum())
        if sum(map(len, self._pending)) >= COUNTED:
            self._flush()

    def counts(self) -> RowCounts:
        """The counts of all that was added, at least one token."""
        if self._pending:
            self._flush()
        assert self._counts is not None
        return self._counts

    def _flush(self) -> None:
        new = RowCounts.of(np.concatenate(self._pending), zero_rows=self._zero_rows)
        self._counts = self._counts.merge(new) if self._counts else new
        self._pending, self._zero_rows = [], 0


def count_repeats(tokens: Tokens) -> Repeats:
    """How many tokens of a stream are copies of each other, in one pass. Raises InputError as `chunks`."""
    counter = RowCounter()
    for x in chunks(tokens, dtype=None):
        counter.add(x)
    return counter.counts().repeats()


class OneOfEach:
    """A stream without the copies: of tokens that are the same vector, only the first. The same on every pass.

    Each pass remembers the hashes of the vectors it has seen: up to 24 bytes for each distinct one, 240 MB for ten
    million.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def __iter__(self) -> Iterator[Float[Tensor, "some d_in"]]:
        seen = _Seen()
        for x in chunks(self._tokens, dtype=None):
            yield x[torch.from_numpy(seen.first(row_hashes(x))).to(x.device)]


class _Seen:
    """A set of hashes as sorted arrays, each at least twice as long as the next: adding n costs n log n in all."""

    def __init__(self) -> None:
        self._levels: list[NDArray[Any]] = []

    def first(self, hashes: NDArray[Any]) -> NDArray[Any]:
        """The places of those hashes that it is shown for the first time; they are added."""
        new, places = np.unique(hashes, return_index=True)
        for level in self._levels:
            is_old = level[np.searchsorted(level, new).clip(max=len(level) - 1)] == new
            new, places = new[~is_old], places[~is_old]
        if len(new):
            self._levels.append(new)
        while len(self._levels) > 1 and len(self._levels[-2]) < 2 * len(self._levels[-1]):
            last = self._levels.pop()
            self._levels[-1] = np.sort(np.concatenate([self._levels[-1], last]))
        return np.sort(places)


def row_hashes(x: Float[Tensor, "tokens d_in"]) -> NDArray[Any]:
    """A 64-bit hash of each row, the same in float32 and in float64: the bits of its float64 numbers, each times a
    fixed odd factor, summed modulo 2^64 (multilinear hashing; Dietzfelbinger 1996).
    """
    factors = _factors(x.shape[1]).to(x.device)
    sums = torch.empty(len(x), dtype=torch.int64, device=x.device)
    if loops := row_loops(x):
        loops.multiply_bits(x.numpy(), factors.numpy(), sums.numpy(), threads_for(x.numel()))
    else:
        for rows, out in zip(x.split(ROWS), sums.split(ROWS), strict=True):
            bits = (rows.double() + 0.0).view(torch.int64)  # -0.0 + 0.0 is 0.0
            # Numbers that were float32 or less have zeros in their lower bits, and multiples of 2^29 would collide.
            bits ^= bits >> 32
            bits *= factors
            torch.sum(bits, dim=1, out=out)
    return _mix(sums.cpu().numpy().view(np.uint64))


def _factors(d_in: int) -> Tensor:
    return torch.from_numpy((_mix(np.arange(1, d_in + 1, dtype=np.uint64)) | np.uint64(1)).view(np.int64))


def _mix(z: NDArray[Any]) -> NDArray[Any]:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): one to one, and uniform in every bit."""
    with np.errstate(over="ignore"):
        z = z * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[Any] = z ^ (z >> np.uint64(31))
    return mixed
