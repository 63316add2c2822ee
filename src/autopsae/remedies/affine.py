"""One invertible affine map, the only way in which a remedy changes the tokens."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """x -> scale A (x - center), row-wise scale (x - center) @ A^T.

    center: what becomes zero; linear, inverse: A and A^-1, or both None where A is the identity.
    """

    center: Float[Tensor, "d_in"]
    linear: Float[Tensor, "d_in d_in"] | None = None
    inverse: Float[Tensor, "d_in d_in"] | None = None
    scale: float = 1.0

    @staticmethod
    def identity(d_in: int) -> "Affine":
        """The map that changes nothing."""
        return Affine(center=torch.zeros(d_in, dtype=torch.float64))

    def __call__(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """Map tokens, in their own dtype."""
        centered = x - self.center.to(x)
        mapped = centered if self.linear is None else centered @ self.linear.to(x).T
        return mapped if self.scale == 1 else mapped * self.scale

    def invert(self, y: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """The tokens that were mapped to `y`: A^-1 y / scale + center."""
        x = y if self.inverse is None else y @ self.inverse.to(y).T
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


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left @ right
