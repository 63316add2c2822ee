"""Between the weights and a sparsity: the pre-activations it chooses from, and what was chosen."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.sae.sparse_ops import Pairs

BLOCK_TOKENS = 512
"""Tokens whose pre-activations are held at a time, without a workspace."""


class Workspace:
    """Memory for the pre-activations of a batch, kept from step to step: one large product is a little faster than
    several small ones, and memory that is fresh each time is slow.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def matrix(self, tokens: int, like: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "tokens d_sae"]:
        """A matrix with any content, of the type and on the device of the weights; the one before it is gone."""
        size = tokens * len(like)
        if len(self._memory) < size or self._memory.dtype != like.dtype or self._memory.device != like.device:
            self._memory = like.new_empty(size)
        return self._memory[:size].view(tokens, len(like))


class Product:
    """W_enc y_centered, a block of tokens at a time, and b_enc, which the kernels add; iterate as often as needed.

    The blocks share one buffer; with a workspace, all tokens are one block. `positive` tells, after a selection,
    which latents were positive on any token.
    """

    def __init__(
        self,
        centered: Float[Tensor, "tokens d_in"],
        W_enc: Float[Tensor, "d_sae d_in"],
        b_enc: Float[Tensor, "d_sae"] | None,
        workspace: Workspace | None = None,
    ) -> None:
        self.centered, self.W_enc, self.b_enc, self.workspace = centered, W_enc, b_enc, workspace
        self.positive: Bool[Tensor, d_sae] = torch.zeros(len(W_enc), dtype=torch.bool, device=W_enc.device)

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, d_sae)"""
        return len(self.centered), len(self.W_enc)

    def __iter__(self) -> Iterator[Float[Tensor, "block d_sae"]]:
        workspace = self.workspace or Workspace()
        block_tokens = len(self.centered) if self.workspace else BLOCK_TOKENS
        for tokens in self.centered.split(block_tokens):
            yield torch.mm(tokens, self.W_enc.T, out=workspace.matrix(len(tokens), self.W_enc))

    def sample(self, n: int) -> Float[Tensor, "sample d_sae"]:
        """The pre-activations of about n evenly spaced tokens."""
        some = self.centered[:: max(1, len(self.centered) // n)] @ self.W_enc.T
        return some if self.b_enc is None else some + self.b_enc


Chosen = tuple[Float[Tensor, "pairs"], Pairs]
"""Pre-activations of the selected pairs, and the pairs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What an SAE selected on a batch of tokens.

    values: of the selected pairs, zero where they do not fire, with gradients for the weights; positive: which
    latents had a positive pre-activation on any token; gates: JumpReLU alone: 1 where a pair fires, with a gradient
    for the thresholds.
    """

    values: Float[Tensor, "pairs"]
    pairs: Pairs
    positive: Bool[Tensor, "d_sae"]
    gates: Float[Tensor, "pairs"] | None = None

    @property
    def tokens(self) -> int:
        return self.pairs.n_tokens
