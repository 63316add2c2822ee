"""Token norms of a stream as a histogram on a logarithmic scale: bounded memory, exactly mergeable."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BINS_PER_OCTAVE = 128  # a bin is 0.54 % wide, so a quantile is right to 0.3 %
_LOWEST, _HIGHEST = -160, 160  # powers of two; float32 norms lie between 2^-149 and 2^140
_BINS = (_HIGHEST - _LOWEST) * _BINS_PER_OCTAVE


@dataclass(frozen=True, kw_only=True, eq=False)
class NormHistogram:
    """How the tokens' L2 norms are distributed.

    counts: tokens per bin; squares: sum of the squared norms per bin; largest: the largest norm, exact.
    Norms under 2^-160 (zero tokens) count in the first bin.
    """

    counts: Int[Tensor, "bins"]
    squares: Float[Tensor, "bins"]
    largest: float

    @staticmethod
    def of(x: Float[Tensor, "tokens d_in"]) -> "NormHistogram":
        """Histogram of the norms of one matrix."""
        norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).cpu()
        bins = ((norms.log2() - _LOWEST) * _BINS_PER_OCTAVE).clamp(0, _BINS - 1).long()
        return NormHistogram(
            counts=torch.bincount(bins, minlength=_BINS),
            squares=torch.bincount(bins, weights=norms.square(), minlength=_BINS),
            largest=float(norms.max()),
        )

    def merge(self, other: "NormHistogram") -> "NormHistogram":
        """Histogram of both token sets together."""
        return NormHistogram(
            counts=self.counts + other.counts,
            squares=self.squares + other.squares,
            largest=max(self.largest, other.largest),
        )

    def quantile(self, q: float) -> float:
        """The norm that a fraction `q` in [0, 1] of the tokens does not exceed, right to 0.3 %."""
        cumulative = self.counts.cumsum(0)
        rank = max(1, round(q * int(cumulative[-1])))
        middle = (int(torch.searchsorted(cumulative, rank)) + 0.5) / _BINS_PER_OCTAVE + _LOWEST
        return min(math.pow(2.0, middle), self.largest)

    def above(self, norm: float) -> tuple[float, float]:
        """(share of the tokens, share of the summed squared norm) of tokens whose norm exceeds `norm`."""
        first_bin = int((math.log2(norm) - _LOWEST) * _BINS_PER_OCTAVE) + 1 if norm > 0 else 1
        tokens = float(self.counts[first_bin:].sum() / self.counts.sum())
        square = float(self.squares[first_bin:].sum() / self.squares.sum())
        return tokens, square
