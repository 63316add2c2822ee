"""Between the weights and a sparsity: the pre-activations it chooses from, and what was chosen."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.kernels.pairs import Pairs
from autopsae.kernels.workspace import Workspace
from autopsae.tables import Result

BLOCK_TOKENS = 512
"""Tokens whose pre-activations are held at a time, without a workspace."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Pre-activations without their biases: some tokens of one member, or all of all."""

    rows: Float[Tensor, "members tokens d_sae"]
    members: slice


class Product:
    """W_enc y_centered of every member, in blocks, and b_enc, which the kernels add; iterate as often as needed.

    The blocks share one buffer; with a workspace, everything is one block. `positive` tells, after a selection,
    which latents were positive on any token.
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

    def by_latent(self) -> Iterator[Float[Tensor, "members d_sae block"]]:
        """The same the other way round, of all members, some tokens at a time: long rows would leave the cache."""
        members, _, d_sae = self.shape
        workspace = self.workspace or Workspace()
        for some in self.centered.split(BLOCK_TOKENS, dim=1):
            out = workspace.take("pre", (members, d_sae, some.shape[1]), self.W_enc)
            yield torch.bmm(self.W_enc, some.mT, out=out)

    def biases(self, members: slice) -> Float[Tensor, "some d_sae"] | None:
        """The encoder biases of a block."""
        return None if self.b_enc is None else self.b_enc[members]

    def sample(self, n: int) -> Float[Tensor, "members sample d_sae"]:
        """The pre-activations of about n evenly spaced tokens of each member."""
        some = self.centered[:, :: max(1, self.shape[1] // n)] @ self.W_enc.mT
        return some if self.b_enc is None else some + self.b_enc[:, None]


Chosen = tuple[Float[Tensor, "pairs"], Pairs]
"""Pre-activations of the selected pairs, and the pairs."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Selection(Result):
    """What SAEs selected, each on its batch of tokens; latents are numbered through all of them."""

    values: Float[Tensor, "pairs"]
    """Of the selected pairs, zero where they do not fire, with gradients for the weights."""
    pairs: Pairs
    """Which latent is selected on which token."""
    positive: Bool[Tensor, "latents"]
    """Which latents had a positive pre-activation on any token."""
    gates: Float[Tensor, "pairs"] | None = None
    """1 where a pair fires, with a gradient for the thresholds; None unless the sparsity is JumpReLU."""

    @property
    def tokens(self) -> int:
        """Of each member."""
        return self.pairs.n_tokens // self.pairs.members
