"""Which latents of a token are selected, given its pre-activations.

A sparsity is a setting; what an SAE learns of it (a threshold) is the SAE's. Each finds its pairs in a `Product`,
whose blocks it looks at while they are in cache.
"""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.diagnosis.closed_form import check_k
from autopsae.sae import kernels
from autopsae.sae.selection import Chosen, Product
from autopsae.sae.sparse_ops import Pairs


@dataclass(frozen=True, kw_only=True)
class TopK:
    """The k largest of each token; those of them that are positive fire (Gao et al. 2024)."""

    name: ClassVar[str] = "topk"
    k: int

    def select(self, product: Product, threshold: Tensor | None) -> Chosen:
        """The k largest latents of each token. threshold: none, as a token's own k-th value is it."""
        found = [kernels.largest(rows, product.b_enc, self.k, product.positive) for rows in product]
        latents = torch.cat([latents for _, latents in found])
        return torch.cat([values for values, _ in found]).flatten(), Pairs.of_matrix(latents, product.shape[1])

    def check(self, d_sae: int) -> None:
        """InputError unless 1 <= k <= d_sae."""
        check_k(self.k, d_sae)


@dataclass(frozen=True, kw_only=True)
class BatchTopK:
    """The k * tokens largest of a whole batch, so k per token on average (Bussmann et al. 2024).

    As with batch normalisation, training mode judges a batch as a whole and learns a threshold (the running mean of
    the smallest value that fired), with which evaluation mode judges each token alone.
    """

    name: ClassVar[str] = "batch_topk"
    k: int

    def select(self, product: Product, threshold: Tensor | None) -> Chosen:
        """The positive ones of the k * tokens largest of the batch; with a threshold, all over it."""
        if threshold is not None:
            return _above(product, threshold.expand(product.shape[1]))
        n_tokens, d_sae = product.shape
        wanted = self.k * n_tokens
        if not wanted:
            return _above(product, product.W_enc.new_zeros(d_sae))
        # A few tokens tell a threshold that lets through about half as many again; of those the best are taken.
        some = product.sample(64)
        guess = torch.topk(some.flatten(), min(some.numel(), self.k * len(some) * 3 // 2)).values[-1].relu()
        for lowered in (guess, guess / 2, torch.zeros_like(guess)):
            values, pairs = _above(product, lowered.expand(d_sae))
            if len(values) >= wanted or not lowered:
                break
        if len(values) <= wanted:
            return values, pairs
        best = torch.topk(values, wanted, sorted=False).indices.sort().values
        per_token = torch.bincount(pairs.tokens[best], minlength=n_tokens)
        return values[best], Pairs.of(pairs.latents[best], per_token, d_sae=d_sae)

    def check(self, d_sae: int) -> None:
        """InputError unless 1 <= k <= d_sae."""
        check_k(self.k, d_sae)


@dataclass(frozen=True, kw_only=True)
class ReLU:
    """All positive latents fire; how many is up to an L1 penalty (Bricken et al. 2023)."""

    name: ClassVar[str] = "relu"

    def select(self, product: Product, threshold: Tensor | None) -> Chosen:
        """All positive latents."""
        return _above(product, product.W_enc.new_zeros(()).expand(product.shape[1]))

    def check(self, d_sae: int) -> None:
        """InputError unless there is a latent."""
        check_k(1, d_sae)


@dataclass(frozen=True, kw_only=True)
class JumpReLU:
    """Latents over their own learned threshold fire, with their full value (Rajamanoharan et al. 2024).

    Thresholds get their gradient from the positive pre-activations within bandwidth / 2 of them (straight-through,
    with a rectangular kernel). In units of the pre-activations: about 1 where the layer is scaled.
    """

    name: ClassVar[str] = "jumprelu"
    bandwidth: float = 0.3

    def select(self, product: Product, threshold: Tensor | None) -> Chosen:
        """All that fire, and the positive ones near enough to their threshold to move it."""
        assert threshold is not None
        return _above(product, (threshold - self.bandwidth / 2).relu())

    def check(self, d_sae: int) -> None:
        """InputError unless there is a latent and the bandwidth is positive."""
        check_k(1, d_sae)
        if not (isfinite(self.bandwidth) and self.bandwidth > 0):
            raise InputError(f"JumpReLU: expected bandwidth > 0, got {self.bandwidth}; pass about 0.3")


def _above(product: Product, threshold: Float[Tensor, "d_sae"]) -> Chosen:
    """All over their latent's threshold, which is never negative."""
    threshold = threshold.contiguous()
    found = [kernels.above(rows, product.b_enc, threshold, product.positive) for rows in product]
    values, latents, counts = (torch.cat([block[i] for block in found]) for i in range(3))
    return values, Pairs.of(latents, counts, d_sae=product.shape[1])


Sparsity = TopK | BatchTopK | ReLU | JumpReLU
SPARSITIES: dict[str, type[Sparsity]] = {kind.name: kind for kind in (TopK, BatchTopK, ReLU, JumpReLU)}
