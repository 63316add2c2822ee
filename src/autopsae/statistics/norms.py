"""Token norms of a stream as a histogram on a logarithmic scale: bounded memory, exactly mergeable."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.tables import Result

_BINS_PER_OCTAVE = 128  # a bin is 0.54 % wide, so a quantile is right to 0.3 %
_LOWEST, _HIGHEST = -480, 480  # powers of two: the sums of squares of 2^60 tokens fit float64
BINS = (_HIGHEST - _LOWEST) * _BINS_PER_OCTAVE
"""Bins of a histogram."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NormHistogram(Result):
    """How the tokens' L2 norms are distributed.

    Norms under 2^-480 count as zero, in the first bin; larger ones than 2^480 are refused.
    """

    counts: Int[Tensor, "bins"]
    """Tokens per bin."""
    squares: Float[Tensor, "bins"]
    """Sum of the squared norms per bin."""
    largest: float
    """The largest norm, exact."""

    @staticmethod
    def of(x: Float[Tensor, "tokens d_in"]) -> "NormHistogram":
        """Histogram of the norms of one matrix. Raises InputError for a norm over 2^480, whose square would
        overflow in a sum.
        """
        norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).cpu()
        largest = float(norms.max())
        if largest > 2.0**_HIGHEST:
            raise InputError(
                f"expected activations with norms of at most {2.0**_HIGHEST:.1e}, got values up to "
                f"{float(x.abs().max()):.1e}, whose squares overflow; divide all tokens by a constant first"
            )
        bins = _bins(norms)
        return NormHistogram(
            counts=torch.bincount(bins, minlength=BINS),
            squares=torch.bincount(bins, weights=norms.square(), minlength=BINS),
            # The squares of very small numbers are zero; the numbers are not.
            largest=largest if largest >= 2.0**_LOWEST else float(x.abs().max()),
        )

    def merge(self, other: "NormHistogram") -> "NormHistogram":
        """Histogram of both token sets together."""
        return NormHistogram(
            counts=self.counts + other.counts,
            squares=self.squares + other.squares,
            largest=max(self.largest, other.largest),
        )

    @property
    def typical(self) -> float:
        """The median norm of the tokens that are not zero, right to 0.3 %; 0 where all are."""
        zero = int(self.counts[0])
        return self._at(zero + max(1, round(0.5 * (int(self.counts.sum()) - zero))))

    @property
    def vanishing(self) -> bool:
        """All tokens would count as zero, though not all are."""
        return 0 < self.largest < 2.0**_LOWEST

    def quantile(self, q: float) -> float:
        """The norm that a fraction `q` in [0, 1] of the tokens does not exceed, right to 0.3 %."""
        return self._at(max(1, round(q * int(self.counts.sum()))))

    def above(self, norm: float) -> tuple[float, float]:
        """(share of the tokens, share of the summed squared norm) of tokens whose norm exceeds `norm`."""
        first_bin = int(_bins(torch.tensor([norm], dtype=torch.float64, device="cpu"))) + 1
        tokens = int(self.counts[first_bin:].sum()) / int(self.counts.sum())
        square, total = float(self.squares[first_bin:].sum()), float(self.squares.sum())
        return tokens, square / total if total > 0 else 0.0

    def _at(self, rank: int) -> float:
        """The rank-th smallest norm, as the middle of its bin."""
        place = int(torch.searchsorted(self.counts.cumsum(0), rank))
        if place in (0, BINS):  # zero, or past the last token
            return 0.0
        return min(math.pow(2.0, (place + 0.5) / _BINS_PER_OCTAVE + _LOWEST), self.largest)

    def __str__(self) -> str:
        return f"norms of {int(self.counts.sum()):,} tokens, the largest {self.largest:.4g}"


def _bins(norms: Float[Tensor, "tokens"]) -> Int[Tensor, "tokens"]:
    """The bin of each norm. Exponent and mantissa apart, so that powers of two shift it exactly."""
    mantissa, exponent = torch.frexp(norms)  # mantissa in [0.5, 1)
    within = ((mantissa.log2() + 1) * _BINS_PER_OCTAVE).floor().clamp(0, _BINS_PER_OCTAVE - 1)
    bins = (exponent.long() - 1 - _LOWEST) * _BINS_PER_OCTAVE + within.nan_to_num(0).long()
    return torch.where(norms > 0, bins, 0).clamp(0, BINS - 1)
