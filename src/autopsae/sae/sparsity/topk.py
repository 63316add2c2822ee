"""TopK selects the k latents with the largest pre-activations on each token."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.defaults import K
from autopsae.kernels.choose import largest
from autopsae.kernels.pairs import Pairs
from autopsae.sae.product import Chosen, Product, WholeProduct
from autopsae.sae.sparsity.base import Sparsity


@dataclass(frozen=True, kw_only=True)
class TopK(Sparsity):
    """Selects the k largest latents of each token. The positive ones among them fire (Gao et al. 2024)."""

    name: ClassVar[str] = "topk"
    k: int
    """The number of latents that are selected per token."""

    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        """The pre-activation minus the k-th largest pre-activation of the *other* latents, or minus zero if that is
        negative. A latent is among the k largest exactly if it exceeds the k-th largest of the others.

        Raises InputError for k outside 1 ... d_sae.
        """
        check_k(self.k, pre.shape[1])
        if self.k == pre.shape[1]:
            return pre  # every latent is selected: to fire, it has to exceed zero only
        values, latents = largest(pre[None], None, self.k + 1, pre.new_zeros(1, pre.shape[1], dtype=torch.bool))
        # The k-th largest of all latents, and the (k+1)-th. For one of the k largest, the k-th largest of the others
        # is `following`. For any other latent it is `last`.
        following, last = torch.topk(values[0], 2, dim=1, largest=False).values.clamp_min(0).split(1, dim=1)
        own = values[0] - torch.where(values[0] >= last, following, last)
        return (pre - last).scatter_(1, latents[0], own)

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """(the pre-activations of the k largest latents of each token, the pairs); see `Sparsity.select`."""
        values, latents = product.largest(self.k)
        return values.flatten(), Pairs.of_matrix(latents, product.shape[2])

    def which_fire(
        self,
        product: WholeProduct,
        asked: Bool[Tensor, "d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "d_sae"]:
        """A mask of the latents in `asked` that are positive and among the k largest on at least one token."""
        return product.which_reach(self.k, asked)

    def admits(
        self,
        own: Float[Tensor, "tokens d_sae"],
        beside: Float[Tensor, "tokens d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "tokens d_sae"]:
        """Where `own` is positive and at least the k-th largest pre-activation in `beside`."""
        return (own >= beside.topk(self.k, dim=1).values[:, -1:]) & (own > 0)

    @property
    def l0(self) -> int:
        """The k latents of each token."""
        return self.k

    def with_k(self, k: int) -> "TopK":
        """TopK with another k."""
        return replace(self, k=k)

    def share_selected(self, d_sae: int) -> float:
        """k / d_sae."""
        return self.k / d_sae


def topk_unless(sparsity: Sparsity | None, k: int | None) -> Sparsity:
    """`sparsity` if it is given; else TopK(k=k); TopK(k=64) if neither is given.

    Raises InputError if both are given.
    """
    if sparsity is None:
        return TopK(k=K if k is None else k)
    if k is not None:
        raise InputError(f"expected k (short for TopK) or a sparsity, got k = {k} and {sparsity}; give one of them")
    return sparsity
