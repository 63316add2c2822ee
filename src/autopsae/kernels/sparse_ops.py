"""Encode and decode on the latents that fired alone: no product with a matrix that is 99 % zeros."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.kernels.gradients import Gradients, OuterSum
from autopsae.kernels.pairs import Pairs
from autopsae.kernels.ranks import ALONE, Ranks
from autopsae.kernels.workspace import Workspace


def decode(
    values: Float[Tensor, "pairs"], pairs: Pairs, W_dec: Float[Tensor, "members d_sae d_in"]
) -> Float[Tensor, "tokens d_in"]:
    """Each token's sum of value times decoder row over its latents; gradients for `values` and `W_dec`."""
    decoded: Tensor = _Decode.apply(values, pairs, W_dec)
    return decoded


def decode_between(
    values: Float[Tensor, "pairs"],
    pairs: Pairs,
    W_dec: Float[Tensor, "members d_sae d_in"],
    first: int,
    last: int,
) -> Float[Tensor, "members batch d_in"]:
    """As `decode`, of each member's latents first ... last - 1 alone."""
    places, some = pairs.between(first, last)
    decoded = decode(values.index_select(0, places), some, W_dec[:, first:last].contiguous())
    return decoded.view(pairs.members, -1, W_dec.shape[2])


def subtract_decoded(
    target: Float[Tensor, "members batch d_in"],
    values: Float[Tensor, "pairs"],
    pairs: Pairs,
    W_dec: Float[Tensor, "members d_sae d_in"],
    b_dec: Float[Tensor, "members d_in"] | None,
    workspace: Workspace | None = None,
    gradients: Gradients | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Float[Tensor, "members batch d_in"], Float[Tensor, "members"]]:
    """(what decoding leaves of `target`, each member's sum of squares of that); the sums have gradients for
    `values`, `W_dec` and, as the target is y - b_dec, `b_dec`, what is left has none. gradients: where that of
    `W_dec` is left, unwritten. ranks: those that decode the other latents.
    """
    left, error = _Unexplained.apply(target, values, pairs, W_dec, b_dec, workspace, gradients, ranks)
    return left, error


def encode(
    pre: Float[Tensor, "pairs"],
    centered: Float[Tensor, "tokens d_in"],
    pairs: Pairs,
    W_enc: Float[Tensor, "members d_sae d_in"],
    b_enc: Float[Tensor, "members d_sae"] | None,
    b_dec: Float[Tensor, "members d_in"],
    y: Float[Tensor, "tokens d_in"] | None = None,
    gradients: Gradients | None = None,
) -> Float[Tensor, "pairs"]:
    """The pre-activations `pre` that were selected from centered @ W_enc^T + b_enc, with gradients for `W_enc`,
    `b_enc` and, as centered = y - b_dec, for `b_dec` and, where it wants one, for `y`. gradients: where that of
    `W_enc` is left, unwritten.
    """
    selected: Tensor = _Encode.apply(pre, centered, pairs, W_enc, b_enc, b_dec, y, gradients)
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


class _Unexplained(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        target: Tensor,
        values: Tensor,
        pairs: Pairs,
        W_dec: Tensor,
        b_dec: Tensor | None,
        workspace: Workspace | None,
        gradients: Gradients | None,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor]:
        left, error, sums, dots = pairs.leave(target, values, W_dec, workspace, ranks)
        ctx.pairs, ctx.gradients = pairs, gradients
        ctx.save_for_backward(left, values, sums, dots)
        ctx.mark_non_differentiable(left)
        ctx.set_materialize_grads(False)
        return left, error

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_error = grads[1]
        assert grad_error is not None
        left, values, sums, dots = ctx.saved_tensors
        slope = -2 * grad_error
        grad_W_dec = grad_b_dec = None
        if ctx.needs_input_grad[3]:  # where the decoder is frozen, its gradient goes nowhere
            grad_W_dec = _sum(ctx, "W_dec", ctx.pairs.scale(values, slope), left.flatten(0, 1))
        if ctx.needs_input_grad[4]:
            grad_b_dec = sums * slope[:, None]
        return None, ctx.pairs.scale(dots, slope), None, grad_W_dec, grad_b_dec, None, None, None


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
        gradients: Gradients | None,
    ) -> Tensor:
        ctx.pairs, ctx.gradients = pairs, gradients
        ctx.save_for_backward(centered, W_enc)
        return pre.view_as(pre)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        [grad] = grads
        centered, W_enc = ctx.saved_tensors
        grad_W_enc = grad_b_enc = grad_b_dec = grad_y = None
        if ctx.needs_input_grad[3]:
            grad_W_enc = _sum(ctx, "W_enc", grad, centered)
        if ctx.needs_input_grad[4] or ctx.needs_input_grad[5]:
            grad_b_enc = ctx.pairs.sum_per_latent(grad)
        if ctx.needs_input_grad[5] and grad_b_enc is not None:
            grad_b_dec = -(grad_b_enc[:, None] @ W_enc)[:, 0]
        if ctx.needs_input_grad[6]:
            grad_y = ctx.pairs.per_token(grad, W_enc)
        grad_b_enc = grad_b_enc if ctx.needs_input_grad[4] else None
        return None, None, None, grad_W_enc, grad_b_enc, grad_b_dec, grad_y, None


def _sum(ctx: Any, name: str, values: Tensor, rows: Tensor) -> Tensor | None:
    """The gradient of a matrix, or None where it is left unwritten."""
    one = OuterSum(pairs=ctx.pairs, values=values, rows=rows)
    if ctx.gradients is None or ctx.pairs.is_dense or ctx.pairs.is_small_sum(values, rows):
        return one.write()
    ctx.gradients.add(name, one)
    return None
