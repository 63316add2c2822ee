"""Which latents each token selected, as a ragged relation, and the sums over it.

Decoding sums the decoder rows of a token's latents; the gradients of both weight matrices are the same operation
the other way round, latents as bags of tokens. All of it is `embedding_bag`, which PyTorch has for CPU and CUDA; on
CPU, compiled loops where there are some (`sums`).

Members are SAEs of one shape side by side, each with its own tokens. Their tokens are numbered through, and so are
their latents; weights are [members, d_sae, d_in].
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.kernels import sums
from autopsae.kernels.dispatch import spans, sum_loops
from autopsae.kernels.ranks import ALONE, Ranks
from autopsae.kernels.workspace import Workspace

DENSE = 1 / 16
"""Where more than this share of all pairs is selected (a ReLU SAE at birth), whole products are faster."""
SMALL_SUM = 1 << 18
"""Values of a gradient that fits in a thread's cache, so that pairs need not be sorted to be summed."""


class Left(NamedTuple):
    """What decoding leaves of tokens, each member's sums of its squares and of its rows, and `dots` of it."""

    rows: Float[Tensor, "members batch d_in"]
    squares: Float[Tensor, "members"]
    sums: Float[Tensor, "members d_in"]
    dots: Float[Tensor, "pairs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Which latents each token selected: the pairs (token, latent), by token and sorted by latent.

    latents: of each pair, token by token, numbered through all members; per_token_counts: pairs of each token;
    d_sae: latents of one member.
    """

    latents: Int[Tensor, "pairs"]
    per_token_counts: Int[Tensor, "tokens"]
    d_sae: int
    members: int = 1
    uniform: bool = False
    """Every token has as many pairs."""

    @staticmethod
    def of_matrix(latents: Int[Tensor, "members tokens k"], d_sae: int) -> "Pairs":
        """The pairs of tokens that selected k latents each, numbered within their member; overwritten."""
        members, n_tokens, k = latents.shape
        if members > 1:
            latents += d_sae * torch.arange(members, device=latents.device)[:, None, None]
        counts = torch.full((members * n_tokens,), k, dtype=torch.int64, device=latents.device)
        return Pairs(latents=latents.flatten(), per_token_counts=counts, d_sae=d_sae, members=members, uniform=True)

    @property
    def n_latents(self) -> int:
        """Of all members."""
        return self.members * self.d_sae

    @property
    def n_tokens(self) -> int:
        """Of all members."""
        return len(self.per_token_counts)

    @cached_property
    def tokens(self) -> Int[Tensor, "pairs"]:
        """Of each pair."""
        each = torch.arange(self.n_tokens, device=self.latents.device)
        return each.repeat_interleave(self.per_token_counts, output_size=len(self.latents))

    @cached_property
    def counts(self) -> Int[Tensor, "latents"]:
        """Pairs of each latent."""
        return sums.count(self.latents, self.n_latents)

    @cached_property
    def per_member_counts(self) -> Int[Tensor, "members"]:
        """Pairs of each member."""
        return self.per_token_counts.view(self.members, -1).sum(dim=1)

    @cached_property
    def ends(self) -> Int[Tensor, "tokens_and_one"]:
        """0, then where each token's pairs end."""
        if self.uniform and self.n_tokens:
            each = len(self.latents) // self.n_tokens
            return torch.arange(0, len(self.latents) + 1, each, device=self.latents.device)
        return torch.cat([self.per_token_counts.new_zeros(1), self.per_token_counts.cumsum(0)])

    @property
    def starts(self) -> Int[Tensor, "tokens"]:
        """Where each token's pairs begin."""
        return self.ends[:-1]

    @cached_property
    def order(self) -> Int[Tensor, "pairs"]:
        """The pairs sorted by latent."""
        return sums.group(self.latents, self.counts)

    @cached_property
    def tokens_by_latent(self) -> Int[Tensor, "pairs"]:
        """The pairs' tokens, sorted by latent."""
        return self.tokens[self.order]

    @cached_property
    def ends_by_latent(self) -> Int[Tensor, "latents_and_one"]:
        """0, then where each latent's pairs end among them."""
        return torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)])

    def between(self, first: int, last: int) -> tuple[Int[Tensor, "some"], "Pairs"]:
        """(the places of the pairs of each member's latents first ... last - 1, and these pairs alone), the latents
        numbered as in SAEs that have no others.
        """
        member, latents = self.latents // self.d_sae, self.latents % self.d_sae
        places = ((latents >= first) & (latents < last)).nonzero()[:, 0]
        counts = torch.bincount(self.tokens[places], minlength=self.n_tokens)
        size = last - first
        chosen = (latents - first + member * size)[places]
        return places, Pairs(latents=chosen, per_token_counts=counts, d_sae=size, members=self.members)

    def keep(
        self, values: Float[Tensor, "pairs"], kept: Int[Tensor, "kept"] | Bool[Tensor, "pairs"]
    ) -> tuple[Float[Tensor, "kept"], "Pairs"]:
        """(the values of some pairs, these pairs alone). kept: their places, in order, or a mask of all pairs."""
        per_token = torch.bincount(self.tokens[kept], minlength=self.n_tokens)
        some = replace(self, latents=self.latents[kept], per_token_counts=per_token, uniform=False)
        return values[kept], some

    @property
    def is_dense(self) -> bool:
        """Whether so many pairs are selected that whole products are faster."""
        return len(self.latents) > DENSE * self.n_tokens * self.d_sae

    def matrix(self, values: Float[Tensor, "pairs"]) -> Float[Tensor, "tokens d_sae"]:
        """The values in their places, zero elsewhere."""
        columns = self.latents if self.members == 1 else self.latents % self.d_sae
        return values.new_zeros(self.n_tokens, self.d_sae).index_put((self.tokens, columns), values)

    def per_latent(
        self, values: Float[Tensor, "pairs"], rows: Float[Tensor, "tokens d_in"]
    ) -> Float[Tensor, "members d_sae d_in"]:
        """For each latent, the sum over the tokens that selected it of value times the token's row."""
        shape = (self.members, self.d_sae, rows.shape[1])
        if self.is_dense:
            return matmul(self._by_member(self.matrix(values)).mT, self._by_member(rows))
        if self._is_best_unsorted(values, rows):
            return sums.scatter(
                values, self.latents, self.ends, rows, members=self.members, n_latents=self.n_latents
            ).view(shape)
        return F.embedding_bag(
            self.tokens_by_latent,
            rows.detach(),
            self.ends_by_latent[:-1],
            per_sample_weights=values[self.order],
            mode="sum",
        ).view(shape)

    def is_small_sum(self, values: Float[Tensor, "pairs"], rows: Float[Tensor, "tokens d_in"]) -> bool:
        """Do a member's sums stay in a thread's cache, so that `per_latent` is best written, and unsorted?"""
        return self.d_sae * rows.shape[1] <= SMALL_SUM and sum_loops(values, rows) is not None

    def _is_best_unsorted(self, values: Tensor, rows: Tensor) -> bool:
        """Is it best to add pairs to their latents' sums as they come, a thread for each member?"""
        alone = spans(self.members, rows.numel()) == 1 and sum_loops(values, rows) is not None
        return not self.is_dense and (alone or self.is_small_sum(values, rows))

    def per_token(
        self, values: Float[Tensor, "pairs"], W: Float[Tensor, "members d_sae d_in"]
    ) -> Float[Tensor, "tokens d_in"]:
        """For each token, the sum over its latents of value times the latent's row."""
        if self.is_dense:
            return matmul(self._by_member(self.matrix(values)), W).flatten(0, 1)
        W = W.detach().flatten(0, 1)
        return F.embedding_bag(self.latents, W, self.starts, per_sample_weights=values, mode="sum")

    def leave(
        self,
        target: Float[Tensor, "members batch d_in"],
        values: Float[Tensor, "pairs"],
        W: Float[Tensor, "members d_sae d_in"],
        workspace: Workspace | None = None,
        ranks: Ranks = ALONE,
    ) -> "Left":
        """What `per_token` leaves of a target, and what a step needs of it. ranks: those that decode the other
        latents of the tokens; an all-reduce of [tokens, d_in].
        """
        if ranks.is_alone and not self.is_dense and sum_loops(target, values, W):
            shape = tuple(target.shape)
            left = workspace.take("left", shape, target) if workspace else torch.empty_like(target)
            return Left(left, *sums.leave(target, values, self.latents, self.ends, W.flatten(0, 1), left))
        left = target - ranks.sum(self._by_member(self.per_token(values, W)), "reconstruction")
        return Left(left, left.square().sum(dim=(1, 2)), left.sum(dim=1), self.dots(left.flatten(0, 1), W))

    def dots(
        self, of_tokens: Float[Tensor, "tokens d_in"], W: Float[Tensor, "members d_sae d_in"]
    ) -> Float[Tensor, "pairs"]:
        """<the token's row, the latent's row> of every pair."""
        if self.is_dense:
            whole = matmul(self._by_member(of_tokens), W.mT).flatten(0, 1)
            return whole[self.tokens, self.latents if self.members == 1 else self.latents % self.d_sae]
        return sums.dots(of_tokens, W.flatten(0, 1), self.latents, self.ends)

    def sum_per_latent(self, values: Float[Tensor, "pairs"]) -> Float[Tensor, "members d_sae"]:
        """For each latent, the sum of its values."""
        return values.new_zeros(self.n_latents).scatter_add_(0, self.latents, values).view(self.members, -1)

    def sum_per_member(self, values: Float[Tensor, "pairs"]) -> Float[Tensor, "members"]:
        """For each member, the sum of its values."""
        if self.members == 1 or self.uniform:
            return values.view(self.members, -1).sum(dim=1)
        return torch.segment_reduce(values, "sum", lengths=self.per_member_counts, initial=0)

    def scale(self, values: Float[Tensor, "pairs"], factors: Float[Tensor, "members"]) -> Float[Tensor, "pairs"]:
        """The values, each times its member's factor."""
        if self.uniform:
            return (values.view(self.members, -1) * factors[:, None]).flatten()
        return values * self.spread(factors)

    def spread(self, values: Num[Tensor, "members"]) -> Num[Tensor, "pairs"]:
        """Each member's value for all of its pairs."""
        if self.uniform:
            return values[:, None].expand(-1, len(self.latents) // self.members).flatten()
        return values.repeat_interleave(self.per_member_counts, output_size=len(self.latents))

    def _by_member(self, rows: Float[Tensor, "tokens columns"]) -> Float[Tensor, "members batch columns"]:
        return rows.view(self.members, -1, rows.shape[1])
