"""One invertible affine map, the only way in which a remedy changes the tokens."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.arrays import InputError
from autopsae.tables import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Affine(Result):
    """x -> scale A (x - center), row-wise scale (x - center) @ A^T."""

    center: Float[Tensor, "d_in"]
    """The point that becomes zero."""
    linear: Float[Tensor, "d_in d_in"] | None = None
    """A; None where it is the identity."""
    inverse: Float[Tensor, "d_in d_in"] | None = None
    """A^-1; None where A is the identity."""
    scale: float = 1.0
    """A positive factor for all dimensions."""

    def __post_init__(self) -> None:
        """Raises InputError for shapes that do not fit, a matrix without its inverse, and a scale not over 0.

        Whether the inverse undoes the matrix is asked where a remedy is made or a file is read (`check_inverse`).
        """
        if self.center.ndim != 1:
            raise InputError(f"Affine: expected center as [d_in], got shape {[*self.center.shape]}")
        d_in = len(self.center)
        for name, part in (("linear", self.linear), ("inverse", self.inverse)):
            if part is not None and part.shape != (d_in, d_in):
                raise InputError(f"Affine: expected {name} as {[d_in, d_in]}, by center, got shape {[*part.shape]}")
        if (self.linear is None) != (self.inverse is None):
            given = "linear" if self.inverse is None else "inverse"
            raise InputError(f"Affine: expected both linear and inverse, or neither, got {given} alone")
        if not 0 < self.scale < inf:
            raise InputError(f"Affine: expected a finite scale over 0, got {self.scale:g}")

    @staticmethod
    def identity(d_in: int) -> "Affine":
        """The map that changes nothing."""
        return Affine(center=torch.zeros(d_in, dtype=torch.float64, device="cpu"))

    def __call__(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """Map tokens, in their own dtype."""
        centered = x - self.center.to(x)
        mapped = centered if self.linear is None else matmul(centered, self.linear.to(x).T)
        return mapped if self.scale == 1 else mapped * self.scale

    def invert(self, y: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """The tokens that were mapped to `y`: A^-1 y / scale + center."""
        x = y if self.inverse is None else matmul(y, self.inverse.to(y).T)
        x = x if self.scale == 1 else x / self.scale
        return x + self.center.to(y)

    def then(self, other: "Affine") -> "Affine":
        """The one map that does this and then `other`: t B (s A (x - a) - b) = t s B A (x - (a + A^-1 b / s))."""
        return Affine(
            center=self.invert(other.center[None])[0],
            linear=_product(other.linear, self.linear),
            inverse=_product(self.inverse, other.inverse),
            scale=self.scale * other.scale,
        )

    def __str__(self) -> str:
        linear = "" if self.linear is None else "A "
        return f"x -> {self.scale:.4g} {linear}(x - center) in {len(self.center):,} dimensions"


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left @ right


@torch.no_grad()
def check_inverse(linear: Tensor | None, inverse: Tensor | None, where: str) -> None:
    """InputError unless both maps are there and undo each other, or both are missing. where: begins the message.

    Asked of 32 vectors v of random signs, scaled by the columns of A^-1, so that a rounding error of any column
    counts the same: |A A^-1 v - v| in row i must stay under 16 sqrt(d_in) eps ||A_i||. That bound grows as the
    rounding errors do with the condition of A: the whitening of a spectrum over 12 decades passes in any type.
    """
    if linear is None or inverse is None:
        if linear is not inverse:
            there = "linear without inverse" if inverse is None else "inverse without linear"
            raise InputError(f"{where}: expected both linear and inverse, or neither, got {there}; save it again")
        return
    A, A_inverse = linear.detach().cpu().double(), inverse.detach().cpu().double()
    signs = (
        torch.randint(2, (len(A), 32), generator=torch.Generator().manual_seed(0), device="cpu").double() * 2 - 1
    )
    v = signs / A_inverse.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    error = (A @ (A_inverse @ v) - v).abs().amax(dim=1)
    # Directions that are orthonormal to 1e-16 give, in float64, maps that undo each other to about 1e-10.
    eps = max(torch.finfo(linear.dtype).eps, 1e-9)
    # `not <=` rather than `>`: what overflowed is NaN.
    if not bool((error <= 16 * len(A) ** 0.5 * eps * A.norm(dim=1)).all()):
        raise InputError(f"{where}: expected an inverse that undoes linear, got one that does not; save it again")
