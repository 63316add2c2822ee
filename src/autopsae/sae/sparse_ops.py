"""Encode and decode on the latents that fired alone: no product with a matrix that is 99 % zeros.

A token selects k latents; `Pairs` is that relation, by token and, sorted, by latent. Decoding sums k decoder rows
per token; the gradients of both weight matrices are the same operation the other way round, latents as bags of
tokens. All of it is `embedding_bag`, which PyTorch has for CPU and CUDA. No gradient with respect to the tokens is
ever needed.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Which latents each token selected, k per token; the same latent may not be selected twice by a token.

    latents: [tokens, k]; tokens: the pairs' tokens sorted by latent; order: which flat pair stands there;
    counts: selections of each latent; starts: where each latent's tokens begin.
    """

    latents: Int[Tensor, "tokens k"]
    tokens: Int[Tensor, "pairs"]
    order: Int[Tensor, "pairs"]
    counts: Int[Tensor, "d_sae"]
    starts: Int[Tensor, "d_sae"]

    @staticmethod
    def of(latents: Int[Tensor, "tokens k"], d_sae: int) -> "Pairs":
        """Sort the pairs by latent, once for all gradients."""
        # int32 sorts faster; a stable order makes the sums, and so the training, the same every time.
        order = torch.argsort(latents.flatten().int(), stable=True)
        counts = torch.bincount(latents.flatten(), minlength=d_sae)
        starts = counts.cumsum(0) - counts
        return Pairs(latents, order // latents.shape[1], order, counts, starts)

    def per_latent(
        self, values: Float[Tensor, "tokens k"], rows: Float[Tensor, "tokens d_in"]
    ) -> Float[Tensor, "d_sae d_in"]:
        """For each latent, the sum over the tokens that selected it of value times the token's row."""
        weights = values.flatten()[self.order]
        return F.embedding_bag(self.tokens, rows, self.starts, per_sample_weights=weights, mode="sum")

    def sum_per_latent(self, values: Float[Tensor, "tokens k"]) -> Float[Tensor, "d_sae"]:
        """For each latent, the sum of its values."""
        return values.new_zeros(len(self.counts)).index_add_(0, self.latents.flatten(), values.flatten())


def decode(
    values: Float[Tensor, "tokens k"], pairs: Pairs, W_dec: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "tokens d_in"]:
    """Each token's sum of value times decoder row over its k latents; gradients for `values` and `W_dec`."""
    decoded: Tensor = _Decode.apply(values, pairs, W_dec)
    return decoded


def encode(
    pre: Float[Tensor, "tokens k"],
    centered: Float[Tensor, "tokens d_in"],
    pairs: Pairs,
    W_enc: Float[Tensor, "d_sae d_in"],
    b_enc: Float[Tensor, "d_sae"] | None,
    b_dec: Float[Tensor, "d_in"],
) -> Float[Tensor, "tokens k"]:
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
        return F.embedding_bag(pairs.latents, W_dec, per_sample_weights=values, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        [grad] = grads
        values, W_dec = ctx.saved_tensors
        latents = ctx.pairs.latents
        grad_values = grad_W_dec = None
        if ctx.needs_input_grad[0]:
            grad_values = _dot_with_rows(grad.contiguous(), W_dec, latents)
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


def _dot_with_rows(
    grad: Float[Tensor, "tokens d_in"], W: Float[Tensor, "d_sae d_in"], latents: Int[Tensor, "tokens k"]
) -> Float[Tensor, "tokens k"]:
    """<grad of the token, row of the latent> for every pair. embedding_bag needs the same for the gradient of its
    weights, so its backward operator is used, which gathers no [pairs, d_in] matrix.
    """
    tokens, k = latents.shape
    starts = torch.arange(0, tokens * k, k, device=latents.device)
    bag = torch.arange(tokens, device=latents.device).repeat_interleave(k)
    dots: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, W, latents.flatten(), starts, bag, 0
    )
    return dots.view(tokens, k)
