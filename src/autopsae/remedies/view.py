"""What an SAE sees of raw tokens under a remedy: told here, and asked by all that draw, count, forecast or train
one.
"""

from dataclasses import dataclass, replace
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.remedies.affine import Affine
from autopsae.statistics.strays import shorten, typical_norm
from autopsae.tables import Result

_FAR = 2.0**30  # in typical tokens: further ones are brought there, as fourth powers in float32 end at 2^32


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class View(Result):
    """The tokens as `scale * through(x)`, and the rows that meet them.

    A latent's pre-activation at birth is row . (affine(x) - b_dec), where `affine` is the map that the SAE
    carries and `b_dec` the start of its bias. A remedy that only centers leaves the map alone and is the start of
    `b_dec`.
    """

    through: Affine
    """The remedy's own map, of scale 1."""
    subspace: Float[Tensor, "rank d_in"] | None
    """Orthonormal rows in which the SAE's rows begin; None for the whole space."""
    scale: float
    """At which the median token, as the SAE sees it, has the norm sqrt(d_in): then learning rates and thresholds
    mean the same on every layer."""
    sample: Float[Tensor, "sample d_in"] | None = None
    """The raw tokens that told the scale; None where none did."""

    @staticmethod
    def of(
        through: Affine,
        subspace: Float[Tensor, "rank d_in"] | None,
        sample: Float[Tensor, "sample d_in"] | None,
    ) -> "View":
        """sample: raw tokens that tell the scale, tokens of zeros left out; without one it is 1."""
        view = View(through=through, subspace=subspace, scale=1.0)
        if sample is None:
            return view
        scale = sqrt(sample.shape[1]) / typical_norm(view.affine(sample.double()))
        return replace(view, scale=scale, sample=sample)

    @property
    def only_centers(self) -> bool:
        """Whether tokens are shifted alone: no matrix is applied to them."""
        return self.through.linear is None

    @property
    def affine(self) -> Affine:
        """The map that the SAE carries, from raw tokens to its space."""
        kept = Affine.identity(len(self.through.center)) if self.only_centers else self.through
        return replace(kept, scale=self.scale)

    @property
    def b_dec(self) -> Float[Tensor, "d_in"]:
        """The start of the bias, in the SAE's space."""
        center = self.through.center
        return self.affine(center[None])[0] if self.only_centers else torch.zeros(len(center))

    def rows(self, drawn: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "d_sae d_in"]:
        """The rows at birth: those of `drawn` projected onto the subspace, of unit length; without one, `drawn`."""
        return within(self.subspace, drawn)

    def tokens(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """What the rows are multiplied with, affine(x) - b_dec: computed in float64, as a large mean would eat the
        digits of float32, and given in float32. A token of over 2^30 times the median norm is brought to that:
        which latents fire on it depends on its direction alone.
        """
        y = self.through(x.double())
        return shorten(y * self.scale, _FAR * sqrt(x.shape[1])).float()

    @property
    def seen(self) -> Float[Tensor, "sample d_in"]:
        """Its sample, as by `tokens`."""
        assert self.sample is not None
        return self.tokens(self.sample)

    def encoder(
        self, drawn: Float[Tensor, "d_sae d_in"]
    ) -> tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, "d_in"]]:
        """(W, c) such that scale * W (x - c) are the pre-activations of a raw token x: the map folded into the
        rows. W is `drawn` itself where the remedy only centers.
        """
        W = self.rows(drawn)
        return W if self.only_centers else W @ self.through.linear.to(W), self.through.center  # type: ignore[union-attr]

    def __str__(self) -> str:
        rows = "rows in the whole space" if self.subspace is None else f"rows in {len(self.subspace):,} directions"
        return f"tokens as {self.scale:.4g} * affine(x), {rows}"


def within(
    subspace: Float[Tensor, "rank d_in"] | None, W: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "d_sae d_in"]:
    """Unit rows in a subspace (orthonormal rows): those of W projected onto it. W itself without one."""
    if subspace is None:
        return W
    basis = subspace.to(W)
    return torch.nn.functional.normalize((W @ basis.T) @ basis, dim=1)
