"""Mean, covariance and higher moments of a token stream: one pass, mergeable, sums in float64.

Moments are kept about the mean, never as raw power sums: with gamma = 1000, x^2 would lose six digits before the
subtraction. Two parts merge exactly (Chan, Golub and LeVeque 1979; Pébay 2008 for the third and fourth).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.kernels.dispatch import row_loops, threads_for
from autopsae.kernels.workspace import Workspace
from autopsae.tables import Result

ROWS = 512
"""Tokens that are handled at once where several operators read them: their results stay in cache, and in memory
that the process has already."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Marginals:
    """Moments of each dimension by itself; a wide layer keeps no more than these of all its tokens."""

    tokens: int
    """Number of tokens."""
    mean: Float[Tensor, "d_in"]
    """Their arithmetic mean."""
    second: Float[Tensor, "d_in"]
    """Sum of (x - mean)^2 per dimension."""
    third: Float[Tensor, "d_in"]
    """Sum of (x - mean)^3 per dimension."""
    fourth: Float[Tensor, "d_in"]
    """Sum of (x - mean)^4 per dimension."""

    def merge(self, other: "Marginals") -> "Marginals":
        """Those of both token sets together (Pébay 2008)."""
        n_a, n_b = self.tokens, other.tokens
        n = n_a + n_b
        delta = other.mean - self.mean
        m2_a, m2_b = self.second, other.second
        third = (
            self.third
            + other.third
            + delta**3 * (n_a * n_b * (n_a - n_b) / n**2)
            + 3 * delta * (n_a * m2_b - n_b * m2_a) / n
        )
        fourth = (
            self.fourth
            + other.fourth
            + delta**4 * (n_a * n_b * (n_a**2 - n_a * n_b + n_b**2) / n**3)
            + 6 * delta**2 * (n_a**2 * m2_b + n_b**2 * m2_a) / n**2
            + 4 * delta * (n_a * other.third - n_b * self.third) / n
        )
        return Marginals(
            tokens=n,
            mean=self.mean + delta * (n_b / n),
            second=m2_a + delta.square() * (n_a * n_b / n) + m2_b,
            third=third,
            fourth=fourth,
        )

    @property
    def marginals(self) -> "Marginals":
        """These themselves, as `Moments` have them."""
        return self

    def with_scatter(self, scatter: Float[Tensor, "d_in d_in"]) -> "Moments":
        """The moments with how dimensions vary together. scatter: its diagonal becomes `second`."""
        scatter.diagonal().copy_(self.second)
        return Moments(tokens=self.tokens, mean=self.mean, scatter=scatter, third=self.third, fourth=self.fourth)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Moments(Result):
    """Sufficient statistics of tokens up to the fourth moment per dimension and the second across dimensions.

    float64 cannot hold `third` and `fourth` (and excess_kurtosis is then NaN) where tokens are larger than 2^240
    or smaller than 2^-240.
    """

    tokens: int
    """Number of tokens."""
    mean: Float[Tensor, "d_in"]
    """Their arithmetic mean."""
    scatter: Float[Tensor, "d_in d_in"]
    """Sum over tokens of (x - mean)(x - mean)^T."""
    third: Float[Tensor, "d_in"]
    """Sum of (x - mean)^3 per dimension."""
    fourth: Float[Tensor, "d_in"]
    """Sum of (x - mean)^4 per dimension."""

    @staticmethod
    def of(x: Float[Tensor, "tokens d_in"]) -> "Moments":
        """Moments of one matrix."""
        return _with_products(*center_block(x.detach().double(), Workspace(), torch.float64))

    @property
    def marginals(self) -> Marginals:
        """The moments of each dimension by itself."""
        second = self.scatter.diagonal()
        return Marginals(tokens=self.tokens, mean=self.mean, second=second, third=self.third, fourth=self.fourth)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both token sets together."""
        both = self.marginals.merge(other.marginals)
        delta, weight = other.mean - self.mean, self.tokens * other.tokens / both.tokens
        scatter = torch.addr(self.scatter, delta, delta, alpha=weight).add_(other.scatter)
        return Moments(tokens=both.tokens, mean=both.mean, scatter=scatter, third=both.third, fourth=both.fourth)

    @property
    def covariance(self) -> Float[Tensor, "d_in d_in"]:
        """Population covariance, scatter / tokens."""
        return self.scatter / self.tokens

    @property
    def std(self) -> Float[Tensor, "d_in"]:
        """Population standard deviation per dimension."""
        return (self.scatter.diagonal() / self.tokens).sqrt()

    @property
    def excess_kurtosis(self) -> Float[Tensor, "d_in"]:
        """Fourth central moment / variance^2 - 3 per dimension; NaN where a dimension is constant."""
        return self.fourth * self.tokens / self.scatter.diagonal().square() - 3

    def __str__(self) -> str:
        size = f"{self.tokens:,} tokens in {len(self.mean):,} dimensions"
        return f"moments of {size}, mean of norm {float(self.mean.norm()):.4g}"


class RunningMoments:
    """Moments of a stream that comes in blocks. Each block is taken about its own mean and merged.

    memory: where deviations from the mean are written; fresh memory for each block would take longer than the
    subtraction.
    """

    def __init__(self, memory: Workspace) -> None:
        self._memory = memory
        self._moments: Moments | None = None

    def add(self, x: Float[Tensor, "tokens d_in"], *, products: torch.dtype = torch.float64) -> None:
        """Add a block in float32 or float64. products: the type to which the deviations from its mean are rounded
        before they are multiplied.
        """
        part = _with_products(*center_block(x, self._memory, products))
        self._moments = self._moments.merge(part) if self._moments else part

    def moments(self) -> Moments:
        """The moments of all blocks, at least one."""
        assert self._moments is not None
        return self._moments


def center_block(
    x: Float[Tensor, "tokens d_in"], memory: Workspace, dtype: torch.dtype
) -> tuple[Marginals, Float[Tensor, "tokens d_in"]]:
    """The moments of each dimension of a block, and its deviations from the mean rounded to `dtype`, in memory that
    the next block takes.
    """
    mean = _mean(x)
    deviations = memory.take(f"deviations in {dtype}", tuple(x.shape), x.new_empty(0, dtype=dtype))
    second, third, fourth = _center(x, mean, deviations)
    return Marginals(tokens=len(x), mean=mean, second=second, third=third, fourth=fourth), deviations


def _with_products(marginals: Marginals, deviations: Float[Tensor, "tokens d_in"]) -> Moments:
    # Float32 sums of equal squares are rounded to the same side; `second` is float64, and what `std` needs.
    return marginals.with_scatter(gram(deviations))


def _mean(x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "d_in"]:
    """The mean of the tokens in float64."""
    if not (loops := row_loops(x)):
        return x.mean(dim=0, dtype=torch.float64)
    threads = threads_for(x.numel())
    sums = x.new_zeros(threads, x.shape[1], dtype=torch.float64)
    loops.sum_columns(x.numpy(), sums.numpy(), threads)
    return sums.sum(dim=0) / len(x)


def _center(
    x: Float[Tensor, "tokens d_in"], mean: Float[Tensor, "d_in"], deviations: Float[Tensor, "tokens d_in"]
) -> Float[Tensor, "3 d_in"]:
    """Writes x - mean, and returns the sums of its second, third and fourth powers in float64."""
    if loops := row_loops(x, mean, deviations):
        threads = threads_for(x.numel())
        sums = mean.new_zeros(threads, 3, len(mean))
        loops.center(x.numpy(), mean.numpy(), deviations.numpy(), sums.numpy(), threads)
        return sums.sum(dim=0)
    sums = mean.new_zeros(3, len(mean))
    for rows, out in zip(x.split(ROWS), deviations.split(ROWS), strict=True):
        away = rows - mean
        out.copy_(away)
        powers = away.square()
        sums[0] += powers.sum(dim=0)
        sums[1] += powers.mul_(away).sum(dim=0)
        sums[2] += powers.mul_(away).sum(dim=0)
    return sums


def layer_norm(x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
    """Each token minus its own mean over dimensions, divided by its standard deviation; no affine (paper Sec. 4).

    A token whose dimensions are all equal becomes zero. There is no epsilon, so the result does not depend on
    the scale of the activations.
    """
    centered = x - x.mean(dim=1, keepdim=True)
    rms = torch.linalg.vector_norm(centered, dim=1, keepdim=True) / x.shape[1] ** 0.5
    # A constant token leaves rounding errors of its mean; they must not be blown up to unit size.
    noise = torch.finfo(x.dtype).eps * x.abs().amax(dim=1, keepdim=True)
    return centered / torch.where(rms > noise, rms, torch.inf)


def normalize(x: Float[Tensor, "tokens d_in"], out: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
    """`layer_norm` in float64 of tokens in float32 or float64, written to `out`."""
    if loops := row_loops(x, out):
        loops.normalize(x.numpy(), torch.finfo(out.dtype).eps, out.numpy(), threads_for(x.numel()))
        return out
    for rows, normed in zip(x.split(ROWS), out.split(ROWS), strict=True):
        normed.copy_(layer_norm(rows.double()))
    return out


def gram(x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "d_in d_in"]:
    """x^T x in float64, exactly symmetric. A float32 matrix is multiplied in float32, some rows at a time."""
    if x.dtype == torch.float64:
        return _product(x)
    total = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for rows in x.split(ROWS):
        total += _product(rows)
    return total


def _product(x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "d_in d_in"]:
    if x.device.type == "cpu":
        matrix = x.numpy()
        # NumPy sees that it is one matrix and multiplies one half only (BLAS syrk), which PyTorch does not.
        with np.errstate(over="ignore", invalid="ignore"):
            return torch.from_numpy(matrix.T @ matrix)
    product = x.T @ x
    return product.add_(product.T.clone()).div_(2)
