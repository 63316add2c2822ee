"""GroupMax: the largest of each group of latents."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.kernels.pairs import Pairs
from autopsae.sae.product import Chosen, Product, WholeProduct
from autopsae.sae.sparsity.base import Sparsity


@dataclass(frozen=True, kw_only=True)
class GroupMax(Sparsity):
    """The largest of each of k groups of d_sae / k neighbouring latents; those of them that are positive fire (as
    sparsify's `groupmax`).
    """

    name: ClassVar[str] = "groupmax"
    k: int
    """Groups, of each of which one latent is selected."""

    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        """Over the largest of the *other* latents of its group, or over zero where that is negative."""
        groups = pre.unflatten(1, (self.k, -1))
        if groups.shape[2] == 1:
            return pre
        largest = groups.topk(2, dim=2).values
        first, second = largest[..., :1].clamp_min(0), largest[..., 1:].clamp_min(0)
        over: Tensor = groups - torch.where(groups >= largest[..., :1], second, first)
        return over.flatten(1)

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """The largest latent of each group."""
        values, latents = product.largest_of_groups(self.k)
        return values.flatten(), Pairs.of_matrix(latents, product.shape[2])

    def which_fire(
        self,
        product: WholeProduct,
        asked: Bool[Tensor, "d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "d_sae"]:
        """A mask of the latents in `asked` that are positive and the largest of their group on any token."""
        return product.which_lead(self.k, asked)

    def margins_of_first(
        self,
        product: WholeProduct,
        pre: Float[Tensor, "first tokens"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "first tokens"], Bool[Tensor, "d_sae"]]:
        """See `Sparsity.margins_of_first`."""
        size = product.shape[2] // self.k
        if len(pre) % size:
            return super().margins_of_first(product, pre, threshold)
        margins = GroupMax(k=len(pre) // size).margins(pre.T).T
        return margins, self.which_fire(product, torch.ones_like(product.positive[0]))

    def admits(
        self,
        own: Float[Tensor, "tokens d_sae"],
        beside: Float[Tensor, "tokens d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "tokens d_sae"]:
        """Where `own` reaches the largest of its group."""
        groups = beside.unflatten(1, (self.k, -1))
        largest: Tensor = groups.amax(dim=2, keepdim=True).expand_as(groups)
        return (own >= largest.flatten(1)) & (own > 0)

    def block_size(self, d_sae: int) -> int:
        """The latents of a group."""
        return d_sae // self.k

    @property
    def l0(self) -> int:
        """The k groups of each token, one latent each."""
        return self.k

    def check(self, d_sae: int) -> None:
        """InputError unless 1 <= k <= d_sae and the groups are of one size."""
        check_k(self.k, d_sae)
        if d_sae % self.k:
            raise InputError(
                f"GroupMax: expected d_sae that is a multiple of k, got {d_sae:,} latents, k = {self.k}"
            )
