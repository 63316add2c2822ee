"""Which latents of a token are selected, given its pre-activations.

A sparsity is a setting; what an SAE learns of it (a threshold) is the SAE's. Each finds its pairs in a `Product`,
whose blocks it looks at while they are in cache.
"""

from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError
from autopsae.sae import kernels
from autopsae.sae.pairs import Pairs
from autopsae.sae.selection import Chosen, Product
from autopsae.survival.closed_form import check_k


@dataclass(frozen=True, kw_only=True)
class TopK:
    """The k largest of each token; those of them that are positive fire (Gao et al. 2024)."""

    name: ClassVar[str] = "topk"
    k: int

    def __post_init__(self) -> None:
        whole_fields(self, "k")

    def select(self, product: Product, threshold: Tensor | None) -> Chosen:
        """The k largest latents of each token. threshold: none, as a token's own k-th value is it."""
        members, _, d_sae = product.shape
        if kernels.has_largest_by_latent(product.W_enc, self.k):
            blocks = [
                kernels.largest_by_latent(block, product.b_enc, self.k, product.positive)
                for block in product.by_latent()
            ]
            values, latents = (_joined([block[i] for block in blocks]) for i in range(2))
            return values.flatten(), Pairs.of_matrix(latents, d_sae)
        found = [
            kernels.largest(block.rows, product.biases(block.members), self.k, product.positive[block.members])
            for block in product
        ]
        values, latents = (torch.cat([parts[i].flatten(0, 1) for parts in found]) for i in range(2))
        return values.flatten(), Pairs.of_matrix(latents.view(members, -1, self.k), d_sae)

    def check(self, d_sae: int) -> None:
        """InputError unless 1 <= k <= d_sae."""
        check_k(self.k, d_sae)


@dataclass(frozen=True, kw_only=True)
class GroupMax:
    """The largest of each of k groups of d_sae / k neighbouring latents; those of them that are positive fire (as
    sparsify's `groupmax`).
    """

    name: ClassVar[str] = "groupmax"
    k: int

    def __post_init__(self) -> None:
        whole_fields(self, "k")

    def select(self, product: Product, threshold: Tensor | None) -> Chosen:
        """The largest latent of each group. threshold: none."""
        members, _, d_sae = product.shape
        values, latents = [], []
        for block in product:
            b_enc = product.biases(block.members)
            pre = block.rows if b_enc is None else block.rows + b_enc[:, None]
            product.positive[block.members] |= (pre > 0).any(dim=1)
            largest = pre.unflatten(-1, (self.k, -1)).max(dim=-1)
            first = torch.arange(0, d_sae, d_sae // self.k, device=pre.device)
            values.append(largest.values.flatten(0, 1))
            latents.append((first + largest.indices).flatten(0, 1))
        return torch.cat(values).flatten(), Pairs.of_matrix(torch.cat(latents).view(members, -1, self.k), d_sae)

    def check(self, d_sae: int) -> None:
        """InputError unless 1 <= k <= d_sae and the groups are of one size."""
        check_k(self.k, d_sae)
        if d_sae % self.k:
            raise InputError(
                f"GroupMax: expected d_sae that is a multiple of k, got {d_sae:,} latents, k = {self.k}"
            )


@dataclass(frozen=True, kw_only=True)
class BatchTopK:
    """The k * tokens largest of a whole batch, so k per token on average (Bussmann et al. 2024).

    As with batch normalisation, training mode judges a batch as a whole and learns a threshold (the running mean of
    the smallest value that fired), with which evaluation mode judges each token alone.
    """

    name: ClassVar[str] = "batch_topk"
    k: int

    def __post_init__(self) -> None:
        whole_fields(self, "k")

    def select(self, product: Product, threshold: Tensor | None) -> Chosen:
        """The positive ones of the k * tokens largest of the batch; with a threshold, all over it."""
        members, n_tokens, d_sae = product.shape
        if threshold is not None:
            return _above(product, threshold.expand(members, d_sae))
        wanted = self.k * n_tokens
        # A few tokens tell a threshold that lets through about half as many again; of those the best are taken.
        some = product.sample(64)
        among = min(some[0].numel(), self.k * some.shape[1] * 3 // 2)
        guess = some.flatten(1).topk(among, dim=1).values[:, -1:].relu() if among else some.new_zeros(members, 1)
        for lowered in (guess, guess / 2, torch.zeros_like(guess)):
            values, pairs = _above(product, lowered.expand(members, d_sae))
            found = pairs.per_member_counts
            if bool(((found >= wanted) | (lowered[:, 0] == 0)).all()):
                break
        best = _best(values, found, wanted)
        if len(best) == len(values):
            return values, pairs
        per_token = torch.bincount(pairs.tokens[best], minlength=members * n_tokens)
        return values[best], replace(pairs, latents=pairs.latents[best], per_token_counts=per_token)

    def check(self, d_sae: int) -> None:
        """InputError unless 1 <= k <= d_sae."""
        check_k(self.k, d_sae)


@dataclass(frozen=True, kw_only=True)
class ReLU:
    """All positive latents fire; how many is up to an L1 penalty (Bricken et al. 2023)."""

    name: ClassVar[str] = "relu"

    def select(self, product: Product, threshold: Tensor | None) -> Chosen:
        """All positive latents."""
        members, _, d_sae = product.shape
        return _above(product, product.W_enc.new_zeros(()).expand(members, d_sae))

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


def _joined(blocks: list[Tensor]) -> Float[Tensor, "members tokens k"] | Int[Tensor, "members tokens k"]:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _above(product: Product, threshold: Float[Tensor, "members d_sae"]) -> Chosen:
    """All over their latent's threshold, which is never negative."""
    threshold, (members, _, d_sae) = threshold.contiguous(), product.shape
    parts = []
    for block in product:
        m = block.members
        parts.append(kernels.above(block.rows, product.biases(m), threshold[m], product.positive[m]))
    values, latents, counts = (torch.cat([part[i] for part in parts]) for i in range(3))
    pairs = Pairs(latents=latents, per_token_counts=counts, d_sae=d_sae, members=members)
    if members == 1:
        return values, pairs
    firsts = d_sae * torch.arange(members, device=latents.device)
    return values, replace(pairs, latents=latents + pairs.spread(firsts))


def _best(values: Float[Tensor, "pairs"], found: Int[Tensor, "members"], wanted: int) -> Int[Tensor, "best"]:
    """The places of the `wanted` largest of each member, whose values follow each other, in their order."""
    places, start = [], 0
    for part in values.split(found.tolist()):
        if len(part) <= wanted:
            best = torch.arange(len(part), device=values.device)
        else:
            best = torch.topk(part, wanted, sorted=False).indices.sort().values
        places.append(start + best)
        start += len(part)
    return torch.cat(places)


Sparsity = TopK | GroupMax | BatchTopK | ReLU | JumpReLU
SPARSITIES: dict[str, type[Sparsity]] = {kind.name: kind for kind in (TopK, GroupMax, BatchTopK, ReLU, JumpReLU)}
