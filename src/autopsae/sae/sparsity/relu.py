"""ReLU: all positive latents."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.sae.product import Chosen, Product, WholeProduct
from autopsae.sae.sparsity.base import Sparsity


@dataclass(frozen=True, kw_only=True)
class ReLU(Sparsity):
    """All positive latents fire; how many is up to an L1 penalty (Bricken et al. 2023)."""

    name: ClassVar[str] = "relu"
    goes_on_ranks: ClassVar[bool] = True
    usual_penalty: ClassVar[Literal["l0", "l1"] | None] = "l1"

    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        """The pre-activations themselves."""
        return pre

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """All positive latents."""
        members, _, d_sae = product.shape
        return product.pairs_above(product.W_enc.new_zeros(members, d_sae), many=True)

    def which_fire(
        self,
        product: WholeProduct,
        asked: Bool[Tensor, "d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "d_sae"]:
        """A mask of the latents in `asked` that are positive on at least one token."""
        return product.any_above(torch.zeros_like(asked, dtype=product.W_enc.dtype)[None])[0] & asked

    def margins_of_first(
        self,
        product: WholeProduct,
        pre: Float[Tensor, "first tokens"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "first tokens"], Bool[Tensor, "d_sae"]]:
        """See `Sparsity.margins_of_first`."""
        return pre, self.which_fire(product, torch.ones_like(product.positive[0]))

    def pairs_per_token(self, d_sae: int, threshold: Float[Tensor, "..."] | None = None) -> int:
        """Half of the latents fire at birth."""
        return d_sae // 2

    def share_selected(self, d_sae: int) -> float:
        """1: being positive is enough."""
        return 1.0
