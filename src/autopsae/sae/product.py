"""Between the weights and a sparsity: the pre-activations that it chooses from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.kernels import choose
from autopsae.kernels import screen_choices as screened
from autopsae.kernels.pairs import Pairs
from autopsae.kernels.screen import Products, Screen, choose_screen
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
Parts = TypeVar("Parts", bound=tuple[Tensor, ...])


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
        *,
        positive: Bool[Tensor, "members d_sae"] | None = None,
    ) -> None:
        """positive: where to mark, in place of a mask of its own."""
        self.centered, self.W_enc, self.b_enc, self.workspace = centered, W_enc, b_enc, workspace
        if positive is None:
            positive = torch.zeros(W_enc.shape[:2], dtype=torch.bool, device=W_enc.device)
        self.positive: Bool[Tensor, "members d_sae"] = positive

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
        some = matmul(self.centered[:, :: max(1, self.shape[1] // n)], self.W_enc.mT)
        return some if self.b_enc is None else some + self.b_enc[:, None]

    def largest(self, k: int) -> Largest:
        """The k largest of each token. Where fewer are positive, some that are not fill the rest."""
        members, n_tokens, _ = self.shape
        # For small k on a CPU, a kernel that goes latent by latent is faster than one that goes token by token.
        if choose.has_largest_by_latent(self.W_enc, k):
            values = self.centered.new_empty(members, n_tokens, k)
            latents = torch.empty(members, n_tokens, k, dtype=torch.int64, device="cpu")
            for some, block in self._by_latent():
                choose.largest_by_latent(block, self.b_enc, self.positive, values[:, some], latents[:, some])
            return values, latents
        blocks = [
            choose.largest(block.rows, self.biases(block.members), k, self.positive[block.members])
            for block in self
        ]
        values, latents = (torch.cat([block[i].flatten(0, 1) for block in blocks]) for i in range(2))
        return values.view(members, n_tokens, k), latents.view(members, n_tokens, k)

    def which_reach(self, k: int, asked: Bool[Tensor, "d_sae"]) -> Bool[Tensor, "d_sae"]:
        """Which of the latents `asked` for are positive and among the k largest of any token of the one member."""
        return _who_fires(*self.largest(k), asked)

    def which_lead(self, k: int, asked: Bool[Tensor, "d_sae"]) -> Bool[Tensor, "d_sae"]:
        """Which of the latents `asked` for are positive and the largest of their group on any token of the one
        member.
        """
        return _who_fires(*self.largest_of_groups(k), asked)

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
        return _join(parts)

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

    def _by_latent(self) -> Iterator[tuple[slice, Float[Tensor, "members d_sae block"]]]:
        """The same the other way round, of all members, some tokens at a time: long rows would leave the cache."""
        members, n_tokens, d_sae = self.shape
        workspace = self.workspace or Workspace()
        for start in range(0, n_tokens, BLOCK_TOKENS):
            x = self.centered[:, start : start + BLOCK_TOKENS]
            out = workspace.take("pre", (members, d_sae, x.shape[1]), self.W_enc)
            yield slice(start, start + BLOCK_TOKENS), torch.bmm(self.W_enc, x.mT, out=out)


class ScreenedProduct(WholeProduct):
    """The pre-activations of one member behind a screen (`kernels.screen`): those that are not chosen are never
    computed, and the values of the others are the same for every screen. Chosen latents come in their order, and of
    equal ones the first is chosen. Who iterates gets whole rows.
    """

    def __init__(
        self,
        screen: Screen,
        centered: Float[Tensor, "1 tokens d_in"],
        positive: Bool[Tensor, "1 d_sae"] | None = None,
    ) -> None:
        super().__init__(centered, screen.W_enc[None], screen.b_enc[None], positive=positive)
        self._screen = screen
        self._parts = screen, self.centered[0], self.positive[0]

    def largest(self, k: int) -> Largest:
        """As of the whole product."""
        return _stack(*screened.largest(*self._parts, k))

    def which_reach(self, k: int, asked: Bool[Tensor, "d_sae"]) -> Bool[Tensor, "d_sae"]:
        """As of the whole product."""
        return screened.which_reach(*self._parts, k, asked)

    def largest_of_groups(self, k: int) -> Largest:
        """As of the whole product."""
        return _stack(*screened.largest_of_groups(*self._parts, k))

    def above(self, thresholds: Float[Tensor, "1 d_sae"]) -> Above:
        """As of the whole product."""
        return screened.above(*self._parts, thresholds[0])

    def any_above(self, thresholds: Float[Tensor, "1 d_sae"]) -> Bool[Tensor, "1 d_sae"]:
        """As of the whole product, but for the rounding of b_enc - threshold."""
        moved = self._screen.with_bias(self._screen.b_enc - thresholds[0])
        if moved is None:
            return super().any_above(thresholds)
        over = torch.zeros_like(self.positive)
        screened.mark_positive(moved, self.centered[0], over[0])
        self.positive |= over
        if bool(thresholds.any()):  # else this is who is positive
            screened.mark_positive(*self._parts)
        return over


class Product(WholeProduct):
    """The pre-activations of every member, for a sparsity to choose from with `largest`, `pairs_above` or
    `largest_of_groups`; one that chooses otherwise iterates over all of them.

    Each member is behind a screen where there is one and its weights have bounds. products: which screen; None for
    none.
    """

    def __init__(
        self,
        centered: Float[Tensor, "members tokens d_in"],
        W_enc: Float[Tensor, "members d_sae d_in"],
        b_enc: Float[Tensor, "members d_sae"] | None,
        workspace: Workspace | None = None,
        products: Products | None = "auto",
    ) -> None:
        super().__init__(centered, W_enc, b_enc, workspace)
        self._kind = choose_screen(products, W_enc)

    def largest(self, k: int) -> Largest:
        """As of the whole product."""
        if self._kind is None or k > MANY * self.shape[2]:
            return super().largest(k)
        return _join([member.largest(k) for member in self._by_member(self._kind)])

    def largest_of_groups(self, k: int) -> Largest:
        """As of the whole product."""
        if self._kind is None:
            return super().largest_of_groups(k)
        return _join([member.largest_of_groups(k) for member in self._by_member(self._kind)])

    def above(self, thresholds: Float[Tensor, "members d_sae"], *, many: bool = False) -> Above:
        """As of the whole product. many: whether a good part of all pairs is likely to be over its threshold; to
        multiply everything is then best.
        """
        if self._kind is None or many:
            return super().above(thresholds)
        members = zip(self._by_member(self._kind), thresholds.split(1), strict=True)
        return _join([member.above(own) for member, own in members])

    def pairs_above(self, thresholds: Float[Tensor, "members d_sae"], *, many: bool = False) -> Chosen:
        """The pairs whose pre-activation is over their latent's threshold, as `above` gives them."""
        values, latents, counts = self.above(thresholds, many=many)
        members, _, d_sae = self.shape
        pairs = Pairs(latents=latents, per_token_counts=counts, d_sae=d_sae, members=members)
        if members == 1:
            return values, pairs
        firsts = d_sae * torch.arange(members, device=latents.device)
        return values, replace(pairs, latents=latents + pairs.spread(firsts))

    def _by_member(self, kind: Products) -> Iterator[WholeProduct]:
        """The product of each member alone. A member's screen holds until the next member is asked for."""
        workspace = self.workspace or Workspace()
        for m, (x, W) in enumerate(zip(self.centered, self.W_enc, strict=True)):
            one = slice(m, m + 1)
            screen = Screen.of(kind, W, None if self.b_enc is None else self.b_enc[m], workspace)
            if screen:
                yield ScreenedProduct(screen, x[None], self.positive[one])
            else:
                biases, positive = self.biases(one), self.positive[one]
                yield WholeProduct(x[None], W[None], biases, self.workspace, positive=positive)


def _who_fires(values: Tensor, latents: Int[Tensor, "..."], asked: Bool[Tensor, "d_sae"]) -> Bool[Tensor, "d_sae"]:
    """Which of the latents `asked` for have a value over zero: where too few do, others fill their places."""
    fired = torch.zeros_like(asked)
    fired[latents[values > 0]] = True
    return fired & asked


def _stack(values: Float[Tensor, "tokens k"], latents: Int[Tensor, "tokens k"]) -> Largest:
    """As a stack of one member."""
    return values[None], latents[None]


def _join(parts: Sequence[Parts]) -> Parts:
    """The tensors of all parts, each after the one of the part before it."""
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]
