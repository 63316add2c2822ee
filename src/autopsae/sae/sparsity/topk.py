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
from autopsae.kernels.ranks import Ranks, largest_of_each
from autopsae.sae.product import MANY, Chosen, Product, WholeProduct
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
        seen = pre.new_zeros(1, pre.shape[1], dtype=torch.bool)
        values, latents = largest(pre[None], None, self.k + 1, seen)
        following, last = _bars(values[0])
        margins: Tensor = pre - last
        margins.scatter_(1, latents[0], values[0] - torch.where(values[0] >= last, following, last))
        return margins

    def margins_of_first(
        self,
        product: WholeProduct,
        pre: Float[Tensor, "first tokens"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "first tokens"], Bool[Tensor, "d_sae"]]:
        """See `Sparsity.margins_of_first`. Only the k + 1 largest of each token are chosen, not all sorted out."""
        _, tokens, d_sae = product.shape
        if self.k + 1 > MANY * d_sae:
            return super().margins_of_first(product, pre, threshold)
        values, latents = (of_member[0] for of_member in product.largest(self.k + 1))
        following, last = _bars(values)
        of_largest = values - torch.where(values >= last, following, last)
        fired = torch.zeros_like(product.positive[0])
        fired[latents[of_largest > 0]] = True
        # Rounding may lift others over `last`, but they are not among the k largest.
        margins = (pre - last.T).clamp_max_(0)
        is_first = latents < len(pre)
        token = torch.arange(tokens, device=latents.device)[:, None].expand_as(latents)
        margins[latents[is_first], token[is_first]] = of_largest[is_first]
        return margins, fired

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """(the pre-activations of the k largest latents of each token, the pairs); see `Sparsity.select`."""
        values, latents = product.largest(self.k)
        return values.flatten(), Pairs.of_matrix(latents, product.shape[2])

    goes_on_ranks: ClassVar[bool] = True

    def select_on_ranks(self, pre: Float[Tensor, "pairs"], pairs: Pairs, ranks: Ranks) -> Chosen:
        """The k largest of each token over all ranks. pairs: equally many of each token."""
        if ranks.is_alone:
            return pre, pairs
        best = largest_of_each(pre.view(pairs.n_tokens, -1), self.k, ranks)
        return pairs.keep(pre, best.flatten())

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


def _bars(largest: Float[Tensor, "tokens some"]) -> tuple[Float[Tensor, "tokens 1"], Float[Tensor, "tokens 1"]]:
    """(following, last): the (k+1)-th and the k-th largest of all latents, at least 0. For one of the k largest,
    the k-th largest of the others is `following`. For any other latent it is `last`.
    """
    following, last = torch.topk(largest, 2, dim=1, largest=False).values.clamp_min(0).split(1, dim=1)
    return following, last


def topk_unless(sparsity: Sparsity | None, k: int | None) -> Sparsity:
    """`sparsity` if it is given; else TopK(k=k); TopK(k=64) if neither is given.

    Raises InputError if both are given.
    """
    if sparsity is None:
        return TopK(k=K if k is None else k)
    if k is not None:
        raise InputError(f"expected k (short for TopK) or a sparsity, got k = {k} and {sparsity}; give one of them")
    return sparsity
