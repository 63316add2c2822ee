"""Covariances of wide layers: the variance of each dimension from all tokens, correlations from a sample.

The products of all tokens would take most of the time, and a matrix [d_in, d_in] for each of many layers most of
the memory. The sample has four tokens for each dimension, because the covariance of few tokens looks more uneven
than it is. The effective rank of white tokens comes out 12 % too low from so many. Once the bias is taken off, it
is 0.6 % below that of the covariance of all 20,000 tokens (`intervals.rank_without_bias`;
`python -m experiments.survival.wide_layers` measures it at d_in 2,304). Tokens that are
whitened by a covariance of their own look more even than others: from two tokens a dimension, a whitening that is
too weak can seem to suffice.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.kernels.workspace import Workspace
from autopsae.statistics.moments import Marginals, Moments, center_block

WIDE = 2048
"""Dimensions over which a layer is wide."""
PER_DIMENSION = 4
"""Tokens of the sample for each dimension of a wide layer."""


def is_wide(d_in: int, wide: int | None) -> bool:
    """Whether a layer has over `wide` dimensions; None: no layer counts as wide."""
    return wide is not None and d_in > wide


def reservoir_size(d_in: int, sample_tokens: int, *, wide: int | None) -> int:
    """Tokens of a layer that are kept while it is read: the sample, and as many as the correlations of a layer of
    over `wide` dimensions take.
    """
    return max(sample_tokens, PER_DIMENSION * d_in) if is_wide(d_in, wide) else sample_tokens


class RunningMarginals:
    """Moments of each dimension of a stream that comes in blocks, without products of two dimensions."""

    def __init__(self, memory: Workspace) -> None:
        self._memory = memory
        self._marginals: Marginals | None = None

    def add(self, x: Float[Tensor, "tokens d_in"]) -> None:
        """Add a block in float32 or float64."""
        part, _ = center_block(x, self._memory, torch.float64)
        self._marginals = self._marginals.merge(part) if self._marginals else part

    def moments(self) -> Marginals:
        """The moments of all blocks, at least one."""
        assert self._marginals is not None
        return self._marginals


def with_correlations(marginals: Marginals, sample: Moments) -> Moments:
    """Moments of all tokens, with the correlations of a sample.

    Every dimension keeps the mean and the variance that it has on all tokens: only how dimensions vary together is
    the sample's. A dimension that is constant in the sample is uncorrelated with the others.
    """
    second = sample.scatter.diagonal()
    # Rows and columns are scaled from the sample's deviations to those of all tokens.
    scale = torch.where(second > 0, (marginals.second / second).sqrt(), 0.0)
    return marginals.with_scatter(sample.scatter.mul_(scale).mul_(scale[:, None]))
