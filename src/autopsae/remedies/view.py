"""`View`: what an SAE sees of raw tokens under a remedy. Drawing, counting, forecasting and training all use it."""

from dataclasses import dataclass, replace
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.remedies.affine import Affine
from autopsae.statistics.strays import shorten, typical_norm
from autopsae.tables import Result

# In units of the typical norm. Longer tokens are shortened to it: the fourth power of 2^32 overflows float32.
_FAR = 2.0**30


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class View(Result):
    """How tokens enter an SAE under a remedy, and the rows of the SAE at birth.

    The pre-activation of a latent at birth is row . (affine(x) - b_dec). `affine` is the map that the SAE stores,
    and `b_dec` is the start of its bias. A remedy that only centers changes `b_dec` and not the map. In both cases
    affine(x) - b_dec = scale * through(x).
    """

    through: Affine
    """The map of the remedy, with scale 1."""
    subspace: Float[Tensor, "rank d_in"] | None
    """Orthonormal rows that span the subspace in which encoder rows are drawn. None for the whole space."""
    scale: float
    """The factor that brings the median norm of tokens in the SAE's space to sqrt(d_in). So learning rates and
    thresholds mean the same on every layer."""
    sample: Float[Tensor, "sample d_in"] | None = None
    """The raw tokens from which the scale was computed. None if there were none; the scale is then 1."""

    @staticmethod
    def of(
        through: Affine,
        subspace: Float[Tensor, "rank d_in"] | None,
        sample: Float[Tensor, "sample d_in"] | None,
    ) -> "View":
        """The view of a remedy. sample: raw tokens, from which the scale is computed (all-zero tokens are ignored);
        without a sample the scale is 1.
        """
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
        """The map from raw tokens to the SAE's space, which the SAE stores."""
        kept = Affine.identity(len(self.through.center)) if self.only_centers else self.through
        return replace(kept, scale=self.scale)

    @property
    def b_dec(self) -> Float[Tensor, "d_in"]:
        """The start of the bias, in the SAE's space."""
        center = self.through.center
        return self.affine(center[None])[0] if self.only_centers else torch.zeros_like(center)

    def rows(self, drawn: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "d_sae d_in"]:
        """The rows at birth: `drawn` projected onto the subspace and normalised, or `drawn` if there is none."""
        return within(self.subspace, drawn)

    def tokens(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """affine(x) - b_dec in float32: what the rows are multiplied with.

        It is computed in float64, because subtracting a large mean in float32 loses digits. A token of over 2^30
        times the median norm is shortened to that norm; which latents fire on it depends on its direction only.
        """
        y = self.through(x.double())
        return shorten(y * self.scale, _FAR * sqrt(x.shape[1])).float()

    @property
    def seen(self) -> Float[Tensor, "sample d_in"]:
        """The sample as the rows see it: `tokens(sample)`."""
        assert self.sample is not None
        return self.tokens(self.sample)

    def encoder(
        self, drawn: Float[Tensor, "d_sae d_in"]
    ) -> tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, "d_in"]]:
        """(W, c) such that scale * W (x - c) are the pre-activations of a raw token x. The map is multiplied into
        the rows; if the remedy only centers, W is the rows themselves.
        """
        W = self.rows(drawn)
        return W if self.only_centers else matmul(W, self.through.linear.to(W)), self.through.center  # type: ignore[union-attr]

    def __str__(self) -> str:
        rows = "rows in the whole space" if self.subspace is None else f"rows in {len(self.subspace):,} directions"
        return f"tokens as {self.scale:.4g} * affine(x), {rows}"


def within(
    subspace: Float[Tensor, "rank d_in"] | None, W: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "d_sae d_in"]:
    """The rows of W projected onto a subspace and normalised; W itself if subspace is None. subspace: orthonormal
    rows.
    """
    if subspace is None:
        return W
    basis = subspace.to(W)
    return torch.nn.functional.normalize(matmul(matmul(W, basis.T), basis), dim=1)
