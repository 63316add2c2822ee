"""Between the weights and a sparsity: the pre-activations it chooses from, and what was chosen."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.sae.sparse_ops import Pairs

BLOCK_TOKENS = 512
"""Tokens whose pre-activations are held at a time."""


class Product:
    """Pre-activations W_enc y_centered + b_enc, a block of tokens at a time; iterate as often as needed.

    The blocks share one buffer. `positive` tells, after a selection, which latents were positive on any token.
    """

    def __init__(
        self,
        centered: Float[Tensor, "tokens d_in"],
        W_enc: Float[Tensor, "d_sae d_in"],
        b_enc: Float[Tensor, "d_sae"] | None,
    ) -> None:
        self.centered, self.W_enc, self.b_enc = centered, W_enc, b_enc
        self.positive: Bool[Tensor, d_sae] = torch.zeros(len(W_enc), dtype=torch.bool, device=W_enc.device)

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, d_sae)"""
        return len(self.centered), len(self.W_enc)

    def __iter__(self) -> Iterator[Float[Tensor, "block d_sae"]]:
        n_tokens, d_sae = self.shape
        buffer = self.centered.new_empty(min(BLOCK_TOKENS, n_tokens), d_sae)
        for start in range(0, n_tokens, BLOCK_TOKENS):
            yield self._of(self.centered[start : start + BLOCK_TOKENS], buffer)

    def sample(self, n: int) -> Float[Tensor, "sample d_sae"]:
        """The pre-activations of about n evenly spaced tokens."""
        some = self.centered[:: max(1, len(self.centered) // n)]
        return self._of(some, some.new_empty(len(some), len(self.W_enc)))

    def _of(self, tokens: Tensor, buffer: Tensor) -> Tensor:
        out = buffer[: len(tokens)]
        torch.mm(tokens, self.W_enc.T, out=out)
        return out if self.b_enc is None else out.add_(self.b_enc)


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
