"""Mean, covariance and higher moments of a token stream: one pass, mergeable, float64.

Moments are kept about the mean, never as raw power sums: with gamma = 1000, x^2 would lose six digits before the
subtraction. Two parts merge exactly (Chan, Golub and LeVeque 1979; Pébay 2008 for the third and fourth).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.tables import Result

_STRIP = 128  # columns per product in `_gram`


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
        x = x.double()
        mean = x.mean(dim=0)
        centered = x - mean
        squares = centered.square()
        return Moments(
            tokens=len(x),
            mean=mean,
            scatter=_gram(centered),
            third=(squares * centered).sum(dim=0),
            fourth=squares.square().sum(dim=0),
        )

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both token sets together."""
        n_a, n_b = self.tokens, other.tokens
        n = n_a + n_b
        delta = other.mean - self.mean
        m2_a, m2_b = self.scatter.diagonal(), other.scatter.diagonal()
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
        return Moments(
            tokens=n,
            mean=self.mean + delta * (n_b / n),
            scatter=torch.addr(self.scatter + other.scatter, delta, delta, alpha=n_a * n_b / n),
            third=third,
            fourth=fourth,
        )

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


def layer_norm(x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
    """Each token minus its own mean over dimensions, divided by its standard deviation; no affine (paper Sec. 4).

    A token whose dimensions are all equal becomes zero. There is no epsilon, so the result does not depend on
    the scale of the activations.
    """
    centered = x - x.mean(dim=1, keepdim=True)
    rms = centered.square().mean(dim=1, keepdim=True).sqrt()
    # A constant token leaves rounding errors of its mean; they must not be blown up to unit size.
    noise = torch.finfo(x.dtype).eps * x.abs().amax(dim=1, keepdim=True)
    return torch.where(rms > noise, centered / rms, torch.zeros_like(centered))


def _gram(x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "d_in d_in"]:
    """x^T x. Only strips of the upper half are multiplied, as the product is symmetric."""
    d_in = x.shape[1]
    upper = x.new_zeros(d_in, d_in)
    for i in range(0, d_in, _STRIP):
        torch.mm(x[:, i : i + _STRIP].T, x[:, i:], out=upper[i : i + _STRIP, i:])
    return upper.triu_() + upper.triu(1).T
