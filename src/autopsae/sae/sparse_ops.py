"""Encode and decode on the latents that fired alone: no product with a matrix that is 99 % zeros.

A token selects some latents; `Pairs` is that relation, by token and, sorted, by latent. Decoding sums the decoder
rows of a token's latents; the gradients of both weight matrices are the same operation the other way round, latents
as bags of tokens. All of it is `embedding_bag`, which PyTorch has for CPU and CUDA.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.sae import kernels

DENSE = 1 / 16
"""Where more than this share of all pairs is selected (a ReLU SAE at birth), whole products are faster."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Which latents each token selected: the pairs (token, latent), by token and sorted by latent.

    latents, tokens: of each pair, token by token; per_token_counts: pairs of each token.
    """

    latents: Int[Tensor, "pairs"]
    tokens: Int[Tensor, "pairs"]
    per_token_counts: Int[Tensor, "tokens"]
    d_sae: int

    @staticmethod
    def of(latents: Int[Tensor, "pairs"], per_token_counts: Int[Tensor, "tokens"], *, d_sae: int) -> "Pairs":
        """Pairs given token by token, so many of each; a token may not select a latent twice."""
        tokens = torch.arange(len(per_token_counts), device=latents.device)
        tokens = tokens.repeat_interleave(per_token_counts, output_size=len(latents))
        return Pairs(latents=latents, tokens=tokens, per_token_counts=per_token_counts, d_sae=d_sae)

    @staticmethod
    def of_matrix(latents: Int[Tensor, "tokens k"], d_sae: int) -> "Pairs":
        """The pairs of tokens that selected k latents each."""
        n_tokens, k = latents.shape
        counts = torch.full((n_tokens,), k, device=latents.device)
        return Pairs.of(latents.flatten(), counts, d_sae=d_sae)

    @cached_property
    def counts(self) -> Int[Tensor, "d_sae"]:
        """Pairs of each latent."""
        return torch.bincount(self.latents, minlength=self.d_sae)

    @cached_property
    def starts(self) -> Int[Tensor, "tokens"]:
        """Where each token's pairs begin."""
        return self.per_token_counts.cumsum(0) - self.per_token_counts

    @cached_property
    def order(self) -> Int[Tensor, "pairs"]:
        """The pairs sorted by latent."""
        return kernels.group(self.latents, self.counts)

    @cached_property
    def tokens_by_latent(self) -> Int[Tensor, "pairs"]:
        """The pairs' tokens, sorted by latent."""
        return self.tokens[self.order]

    @cached_property
    def starts_by_latent(self) -> Int[Tensor, "d_sae"]:
        """Where each latent's pairs begin among them."""
        return self.counts.cumsum(0) - self.counts

    @property
    def n_tokens(self) -> int:
        return len(self.per_token_counts)

    @property
    def _dense(self) -> bool:
        return len(self.latents) > DENSE * self.n_tokens * self.d_sae

    def matrix(self, values: Float[Tensor, "pairs"]) -> Float[Tensor, "tokens d_sae"]:
        """The values in their places, zero elsewhere."""
        return values.new_zeros(self.n_tokens, self.d_sae).index_put((self.tokens, self.latents), values)

    def per_latent(
        self, values: Float[Tensor, "pairs"], rows: Float[Tensor, "tokens d_in"]
    ) -> Float[Tensor, "d_sae d_in"]:
        """For each latent, the sum over the tokens that selected it of value times the token's row."""
        if self._dense:
            return self.matrix(values).T @ rows
        return F.embedding_bag(
            self.tokens_by_latent,
            rows.detach(),
            self.starts_by_latent,
            per_sample_weights=values[self.order],
            mode="sum",
        )

    def per_token(
        self, values: Float[Tensor, "pairs"], rows: Float[Tensor, "d_sae d_in"]
    ) -> Float[Tensor, "tokens d_in"]:
        """For each token, the sum over its latents of value times the latent's row."""
        if self._dense:
            return self.matrix(values) @ rows
        return F.embedding_bag(self.latents, rows.detach(), self.starts, per_sample_weights=values, mode="sum")

    def dots(
        self, of_tokens: Float[Tensor, "tokens d_in"], of_latents: Float[Tensor, "d_sae d_in"]
    ) -> Float[Tensor, "pairs"]:
        """<the token's row, the latent's row> of every pair."""
        if self._dense:
            return (of_tokens @ of_latents.T)[self.tokens, self.latents]
        return kernels.dots(of_tokens, of_latents, self.tokens, self.latents, self.starts)

    def sum_per_latent(self, values: Float[Tensor, "pairs"]) -> Float[Tensor, "d_sae"]:
        """For each latent, the sum of its values."""
        return values.new_zeros(self.d_sae).index_add_(0, self.latents, values)


def decode(
    values: Float[Tensor, "pairs"], pairs: Pairs, W_dec: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "tokens d_in"]:
    """Each token's sum of value times decoder row over its latents; gradients for `values` and `W_dec`."""
    decoded: Tensor = _Decode.apply(values, pairs, W_dec)
    return decoded


def encode(
    pre: Float[Tensor, "pairs"],
    centered: Float[Tensor, "tokens d_in"],
    pairs: Pairs,
    W_enc: Float[Tensor, "d_sae d_in"],
    b_enc: Float[Tensor, "d_sae"] | None,
    b_dec: Float[Tensor, "d_in"],
    y: Float[Tensor, "tokens d_in"] | None = None,
) -> Float[Tensor, "pairs"]:
    """The pre-activations `pre` that were selected from centered @ W_enc^T + b_enc, with gradients for `W_enc`,
    `b_enc` and, as centered = y - b_dec, for `b_dec` and, where it wants one, for `y`.
    """
    selected: Tensor = _Encode.apply(pre, centered, pairs, W_enc, b_enc, b_dec, y)
    return selected


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, pairs: Pairs, W_dec: Tensor) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(values, W_dec)
        return pairs.per_token(values, W_dec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        [grad] = grads
        values, W_dec = ctx.saved_tensors
        grad_values = grad_W_dec = None
        if ctx.needs_input_grad[0]:
            grad_values = ctx.pairs.dots(grad.contiguous(), W_dec)
        if ctx.needs_input_grad[2]:
            grad_W_dec = ctx.pairs.per_latent(values, grad.contiguous())
        return grad_values, None, grad_W_dec


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pre: Tensor,
        centered: Tensor,
        pairs: Pairs,
        W_enc: Tensor,
        b_enc: Tensor | None,
        b_dec: Tensor,
        y: Tensor | None,
    ) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(centered, W_enc)
        return pre.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        [grad] = grads
        centered, W_enc = ctx.saved_tensors
        grad_W_enc = grad_b_enc = grad_b_dec = grad_y = None
        if ctx.needs_input_grad[3]:
            grad_W_enc = ctx.pairs.per_latent(grad, centered)
        if ctx.needs_input_grad[4] or ctx.needs_input_grad[5]:
            grad_b_enc = ctx.pairs.sum_per_latent(grad)
        if ctx.needs_input_grad[5] and grad_b_enc is not None:
            grad_b_dec = -grad_b_enc @ W_enc
        if ctx.needs_input_grad[6]:
            grad_y = ctx.pairs.per_token(grad, W_enc)
        return None, None, None, grad_W_enc, grad_b_enc if ctx.needs_input_grad[4] else None, grad_b_dec, grad_y
