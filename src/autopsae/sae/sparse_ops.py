"""Encode and decode on the latents that fired alone: no product with a matrix that is 99 % zeros.

A token selects some latents; `Pairs` is that relation, by token and, sorted, by latent. Decoding sums the decoder
rows of a token's latents; the gradients of both weight matrices are the same operation the other way round, latents
as bags of tokens. All of it is `embedding_bag`, which PyTorch has for CPU and CUDA. No gradient with respect to the
tokens is ever needed.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Which latents each token selected: the pairs (token, latent), by token and sorted by latent.

    latents, tokens: of each pair, token by token; starts: where each token's pairs begin; order: the pairs sorted
    by latent; counts: pairs of each latent; latent_starts: where each latent's pairs begin in that order.
    """

    latents: Int[Tensor, "pairs"]
    tokens: Int[Tensor, "pairs"]
    starts: Int[Tensor, "tokens"]
    order: Int[Tensor, "pairs"]
    counts: Int[Tensor, "d_sae"]
    latent_starts: Int[Tensor, "d_sae"]

    @staticmethod
    def of(latents: Int[Tensor, "pairs"], tokens: Int[Tensor, "pairs"], *, n_tokens: int, d_sae: int) -> "Pairs":
        """Pairs given token by token (`tokens` ascending); a token may not select a latent twice."""
        # int32 sorts faster; a stable order makes the sums, and so the training, the same every time.
        order = torch.argsort(latents.int(), stable=True)
        counts = torch.bincount(latents, minlength=d_sae)
        per_token = torch.bincount(tokens, minlength=n_tokens)
        return Pairs(
            latents=latents,
            tokens=tokens,
            starts=per_token.cumsum(0) - per_token,
            order=order,
            counts=counts,
            latent_starts=counts.cumsum(0) - counts,
        )

    @staticmethod
    def of_matrix(latents: Int[Tensor, "tokens k"], d_sae: int) -> "Pairs":
        """The pairs of tokens that selected k latents each."""
        n_tokens, k = latents.shape
        tokens = torch.arange(n_tokens, device=latents.device).repeat_interleave(k)
        return Pairs.of(latents.flatten(), tokens, n_tokens=n_tokens, d_sae=d_sae)

    def per_latent(
        self, values: Float[Tensor, "pairs"], rows: Float[Tensor, "tokens d_in"]
    ) -> Float[Tensor, "d_sae d_in"]:
        """For each latent, the sum over the tokens that selected it of value times the token's row."""
        return F.embedding_bag(
            self.tokens[self.order],
            rows,
            self.latent_starts,
            per_sample_weights=values[self.order],
            mode="sum",
        )

    def per_token(
        self, values: Float[Tensor, "pairs"], rows: Float[Tensor, "d_sae d_in"]
    ) -> Float[Tensor, "tokens d_in"]:
        """For each token, the sum over its latents of value times the latent's row."""
        return F.embedding_bag(self.latents, rows, self.starts, per_sample_weights=values, mode="sum")

    def dots(
        self, of_tokens: Float[Tensor, "tokens d_in"], of_latents: Float[Tensor, "d_sae d_in"]
    ) -> Float[Tensor, "pairs"]:
        """<the token's row, the latent's row> of every pair. embedding_bag needs the same for the gradient of its
        weights, so its backward operator is used, which gathers no [pairs, d_in] matrix.
        """
        found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            of_tokens, of_latents, self.latents, self.starts, self.tokens, 0
        )
        return found

    def sum_per_latent(self, values: Float[Tensor, "pairs"]) -> Float[Tensor, "d_sae"]:
        """For each latent, the sum of its values."""
        return values.new_zeros(len(self.counts)).index_add_(0, self.latents, values)


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
) -> Float[Tensor, "pairs"]:
    """The pre-activations `pre` that were selected from centered @ W_enc^T + b_enc, with gradients for `W_enc`,
    `b_enc` and, as centered = x - b_dec, for `b_dec`.
    """
    selected: Tensor = _Encode.apply(pre, centered, pairs, W_enc, b_enc, b_dec)
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
    ) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(centered, W_enc)
        return pre.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        [grad] = grads
        centered, W_enc = ctx.saved_tensors
        grad_W_enc = grad_b_enc = grad_b_dec = None
        if ctx.needs_input_grad[3]:
            grad_W_enc = ctx.pairs.per_latent(grad, centered)
        if ctx.needs_input_grad[4] or ctx.needs_input_grad[5]:
            grad_b_enc = ctx.pairs.sum_per_latent(grad)
        if ctx.needs_input_grad[5] and grad_b_enc is not None:
            grad_b_dec = -grad_b_enc @ W_enc
        return None, None, None, grad_W_enc, grad_b_enc if ctx.needs_input_grad[4] else None, grad_b_dec
