"""Between the weights and a sparsity: the pre-activations that it chooses from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.kernels import choose
from autopsae.kernels import screen_choices as screened
from autopsae.kernels.pairs import Pairs
from autopsae.kernels.screen import Products, Scored, Screen, choose_screen
from autopsae.kernels.workspace import Workspace

BLOCK_TOKENS = 512
"""Tokens whose pre-activations are held at a time, without a workspace."""
MANY = 1 / 8
"""Where more than this share of the latents is chosen, to multiply everything is best."""

Chosen = tuple[Float[Tensor, "pairs"], Pairs]
"""Pre-activations of the selected pairs, and the pairs."""
Largest = tuple[Float[Tensor, "members tokens k"], Int[Tensor, "members tokens k"]]
"""(values, latents) of as many latents for every token."""
Above = tuple[Float[Tensor, "above"], Int[Tensor, "above"], Int[Tensor, "all_tokens"]]
"""(values, latents within their member, how many per token)."""
Parts = TypeVar("Parts")
OneMember = tuple[Screen | Scored, Float[Tensor, "tokens d_in"], Bool[Tensor, "d_sae"]]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Pre-activations without their biases: some tokens of one member, or all of all."""

    rows: Float[Tensor, "members tokens d_sae"]
    members: slice


class WholeProduct:
    """All pre-activations of every member, W_enc (y - b_dec) + b_enc, in blocks that share one buffer.

    Iterate as often as needed; the rows are without b_enc. With a workspace, everything is one block. `positive`
    tells, after a selection, which latents were positive on any token.
    """

    def __init__(
        self,
        centered: Float[Tensor, "members tokens d_in"],
        W_enc: Float[Tensor, "members d_sae d_in"],
        b_enc: Float[Tensor, "members d_sae"] | None,
        workspace: Workspace | None = None,
    ) -> None:
        self.centered, self.W_enc, self.b_enc, self.workspace = centered, W_enc, b_enc, workspace
        self.positive: Bool[Tensor, "members d_sae"] = torch.zeros(
            W_enc.shape[:2], dtype=torch.bool, device=W_enc.device
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(members, tokens of each, d_sae)."""
        return len(self.centered), self.centered.shape[1], self.W_enc.shape[1]

    def __iter__(self) -> Iterator[Block]:
        if self.workspace:
            out = self.workspace.take("pre", self.shape, self.W_enc)
            yield Block(rows=torch.bmm(self.centered, self.W_enc.mT, out=out), members=slice(None))
            return
        workspace = Workspace()
        for m, (tokens, W) in enumerate(zip(self.centered, self.W_enc, strict=True)):
            for some in tokens.split(BLOCK_TOKENS):
                out = workspace.take("pre", (len(some), len(W)), W)
                yield Block(rows=torch.mm(some, W.T, out=out)[None], members=slice(m, m + 1))

    def biases(self, members: slice) -> Float[Tensor, "some d_sae"] | None:
        """The encoder biases of a block."""
        return None if self.b_enc is None else self.b_enc[members]

    def sample(self, n: int) -> Float[Tensor, "members sample d_sae"]:
        """The pre-activations of about n evenly spaced tokens of each member."""
        some = self.centered[:, :: max(1, self.shape[1] // n)] @ self.W_enc.mT
        return some if self.b_enc is None else some + self.b_enc[:, None]

    def largest(self, k: int) -> Largest:
        """The k largest of each token. Where fewer are positive, some that are not fill the rest."""
        members, n_tokens, _ = self.shape
        # For small k on a CPU, a kernel that goes latent by latent is faster than one that goes token by token.
        if choose.has_largest_by_latent(self.W_enc, k):
            blocks = [choose.largest_by_latent(b, self.b_enc, k, self.positive) for b in self._by_latent()]
            values, latents = (torch.cat([block[i] for block in blocks], dim=1) for i in range(2))
            return values, latents
        blocks = [
            choose.largest(block.rows, self.biases(block.members), k, self.positive[block.members])
            for block in self
        ]
        values, latents = (torch.cat([block[i].flatten(0, 1) for block in blocks]) for i in range(2))
        return values.view(members, n_tokens, k), latents.view(members, n_tokens, k)

    def which_reach(self, k: int, asked: Bool[Tensor, "d_sae"]) -> Bool[Tensor, "d_sae"]:
        """Which of the latents `asked` for are positive and among the k largest of any token of the one member."""
        values, latents = self.largest(k)
        reached = torch.zeros_like(asked)
        reached[latents[values > 0]] = True  # > 0: with fewer than k positive, others fill the places
        return reached & asked

    def largest_of_groups(self, k: int) -> Largest:
        """The largest of each of k groups of d_sae / k neighbours."""
        members, n_tokens, d_sae = self.shape
        values, latents = [], []
        first = torch.arange(0, d_sae, d_sae // k, device=self.W_enc.device)
        for block in self:
            b_enc = self.biases(block.members)
            pre = block.rows if b_enc is None else block.rows + b_enc[:, None]
            self.positive[block.members] |= (pre > 0).any(dim=1)
            best = pre.unflatten(-1, (k, -1)).max(dim=-1)
            values.append(best.values.flatten(0, 1))
            latents.append((first + best.indices).flatten(0, 1))
        shape = (members, n_tokens, k)
        return torch.cat(values).view(shape), torch.cat(latents).view(shape)

    def above(self, thresholds: Float[Tensor, "members d_sae"]) -> Above:
        """All over their latent's threshold, which must not be negative."""
        thresholds, parts = thresholds.contiguous(), []
        for block in self:
            m = block.members
            parts.append(choose.above(block.rows, self.biases(m), thresholds[m], self.positive[m]))
        values, latents, counts = (torch.cat([part[i] for part in parts]) for i in range(3))
        return values, latents, counts

    def any_above(self, thresholds: Float[Tensor, "members d_sae"]) -> Bool[Tensor, "members d_sae"]:
        """Which latents are over their threshold (>= 0) on any token."""
        over = torch.zeros_like(self.positive)
        for block in self:
            b_enc, m = self.biases(block.members), block.members
            largest = block.rows.amax(dim=1)
            largest = largest if b_enc is None else largest + b_enc
            self.positive[m] |= largest > 0
            over[m] |= largest > thresholds[m]
        return over

    def _by_latent(self) -> Iterator[Float[Tensor, "members d_sae block"]]:
        """The same the other way round, of all members, some tokens at a time: long rows would leave the cache."""
        members, _, d_sae = self.shape
        workspace = self.workspace or Workspace()
        for some in self.centered.split(BLOCK_TOKENS, dim=1):
            out = workspace.take("pre", (members, d_sae, some.shape[1]), self.W_enc)
            yield torch.bmm(self.W_enc, some.mT, out=out)


class Product(WholeProduct):
    """The pre-activations of every member, for a sparsity to choose from with `largest`, `pairs_above` or
    `largest_of_groups`; one that chooses otherwise iterates over all of them.

    Where there is a screen (`kernels.screen`), these never hold all pre-activations, and the values they give are
    the same for every screen. products: which screen; None for none.
    """

    def __init__(
        self,
        centered: Float[Tensor, "members tokens d_in"],
        W_enc: Float[Tensor, "members d_sae d_in"],
        b_enc: Float[Tensor, "members d_sae"] | None,
        workspace: Workspace | None = None,
        products: Products | None = "auto",
        scored: Scored | None = None,
    ) -> None:
        """scored: of one member, where its scores are known."""
        super().__init__(centered, W_enc, b_enc, workspace)
        self._kind, self._scored = choose_screen(products, W_enc), scored

    def largest(self, k: int) -> Largest:
        """As of the whole product; with a screen in the order of the latents, and of equal ones the first."""
        if self._kind is None or k > MANY * self.shape[2]:
            return super().largest(k)
        return _join(
            self._by_member(lambda one: _stack(*screened.largest(*one, k)), lambda whole: whole.largest(k))
        )

    def which_reach(self, k: int, asked: Bool[Tensor, "d_sae"]) -> Bool[Tensor, "d_sae"]:
        """As of the whole product."""
        if self._scored is None:
            return super().which_reach(k, asked)
        return screened.which_reach(self._scored, self.centered[0], self.positive[0], k, asked)

    def largest_of_groups(self, k: int) -> Largest:
        """As of the whole product; of equal ones the first."""
        if self._kind is None:
            return super().largest_of_groups(k)
        parts = self._by_member(
            lambda one: _stack(*screened.largest_of_groups(*one, k)), lambda whole: whole.largest_of_groups(k)
        )
        return _join(parts)

    def above(self, thresholds: Float[Tensor, "members d_sae"], *, many: bool = False) -> Above:
        """As of the whole product. many: whether a good part of all pairs is likely to be over its threshold; to
        multiply everything is then best.
        """
        if self._kind is None or many:
            return super().above(thresholds)
        of_member = iter(thresholds)
        parts = self._by_member(
            lambda one: screened.above(*one, next(of_member)),
            lambda whole: whole.above(next(of_member)[None]),
        )
        values, latents, counts = (torch.cat([part[i] for part in parts]) for i in range(3))
        return values, latents, counts

    def any_above(self, thresholds: Float[Tensor, "members d_sae"]) -> Bool[Tensor, "members d_sae"]:
        """As of the whole product."""
        if self._scored is None:
            return super().any_above(thresholds)
        screened.mark_positive(self._scored, self.centered[0], self.positive[0])
        over, moved = torch.zeros_like(self.positive), self._scored.with_bias(self._scored.b_enc - thresholds[0])
        if moved is None:
            return super().any_above(thresholds)
        screened.mark_positive(moved, self.centered[0], over[0])
        return over

    def pairs_above(self, thresholds: Float[Tensor, "members d_sae"], *, many: bool = False) -> Chosen:
        """The pairs whose pre-activation is over their latent's threshold, as `above` gives them."""
        values, latents, counts = self.above(thresholds, many=many)
        members, _, d_sae = self.shape
        pairs = Pairs(latents=latents, per_token_counts=counts, d_sae=d_sae, members=members)
        if members == 1:
            return values, pairs
        firsts = d_sae * torch.arange(members, device=latents.device)
        return values, replace(pairs, latents=latents + pairs.spread(firsts))

    def _by_member(
        self, choose_from: Callable[[OneMember], Parts], otherwise: Callable[[WholeProduct], Parts]
    ) -> list[Parts]:
        """What is chosen for each member: from its screen, or, where its weights have no bounds, from its whole
        product.
        """
        assert self._kind is not None
        workspace, parts = self.workspace or Workspace(), []
        for m, (x, W) in enumerate(zip(self.centered, self.W_enc, strict=True)):
            b_enc = None if self.b_enc is None else self.b_enc[m]
            made = self._scored or Screen.of(self._kind, W, b_enc, workspace)
            if made:
                parts.append(choose_from((made, x, self.positive[m])))
            else:
                whole = WholeProduct(x[None], W[None], self.biases(slice(m, m + 1)), self.workspace)
                parts.append(otherwise(whole))
                self.positive[m] |= whole.positive[0]
        return parts


def _stack(values: Float[Tensor, "tokens k"], latents: Int[Tensor, "tokens k"]) -> Largest:
    """As a stack of one member."""
    return values[None], latents[None]


def _join(parts: list[tuple[Float[Tensor, "1 tokens k"], Int[Tensor, "1 tokens k"]]]) -> Largest:
    values, latents = (torch.cat([part[i] for part in parts]) for i in range(2))
    return values, latents
