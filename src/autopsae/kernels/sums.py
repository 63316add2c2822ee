"""Sums over pairs of a token and a latent, row by row.

As in `choose`: Numba's or PyTorch's, with the same answers (tested). Members are SAEs side by side.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.kernels import dispatch
from autopsae.kernels.dispatch import spans, sum_loops, threads_for

PIECE = 1 << 26
"""Values of the rows of pairs that are gathered at a time."""


def dots(
    of_tokens: Float[Tensor, "tokens d_in"],
    of_latents: Float[Tensor, "latents d_in"],
    latents: Int[Tensor, "pairs"],
    ends: Int[Tensor, "tokens_and_one"],
) -> Float[Tensor, "pairs"]:
    """<the token's row, the latent's row> of every pair; no [pairs, d_in] matrix is made. ends: 0, then where each
    token's pairs end.
    """
    loops = sum_loops(of_tokens, of_latents)
    if loops is None:
        tokens = torch.arange(len(of_tokens), device=ends.device).repeat_interleave(
            ends.diff(), output_size=len(latents)
        )
        if of_latents.is_cuda and of_latents.dtype == torch.bfloat16:
            return _dots_in_pieces(of_tokens, of_latents, latents, tokens)
        # What embedding_bag uses for the gradient of its weights.
        products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            of_tokens, of_latents, latents, ends[:-1], tokens, 0
        )
        return products
    products = of_tokens.new_empty(len(latents))
    arrays = (t.numpy() for t in (of_tokens, of_latents, latents, ends, products))
    loops.dots(*arrays, threads_for(len(latents) * of_tokens.shape[1]))
    return products


def _dots_in_pieces(
    of_tokens: Float[Tensor, "tokens d_in"],
    of_latents: Float[Tensor, "latents d_in"],
    latents: Int[Tensor, "pairs"],
    tokens: Int[Tensor, "pairs"],
) -> Float[Tensor, "pairs"]:
    """As `dots`, summed in float32, for what `embedding_bag` has no kernel of. tokens: of each pair."""
    products = of_tokens.new_empty(len(latents))
    pieces = (part.split(max(1, PIECE // of_tokens.shape[1])) for part in (tokens, latents, products))
    for some, their_latents, out in zip(*pieces, strict=True):
        out.copy_((of_tokens[some].float() * of_latents[their_latents].float()).sum(dim=1))
    return products


def leave(
    target: Float[Tensor, "members tokens d_in"],
    values: Float[Tensor, "pairs"],
    latents: Int[Tensor, "pairs"],
    ends: Int[Tensor, "tokens_and_one"],
    W: Float[Tensor, "latents d_in"],
    left: Float[Tensor, "members tokens d_in"],
) -> tuple[Float[Tensor, "members"], Float[Tensor, "members d_in"], Float[Tensor, "pairs"]]:
    """`left` becomes the target minus each token's sum of value times row of W; (the sums of its squares, those of
    its rows, `dots` of it and W). Only where there is a compiled loop (`dispatch.sum_loops`). ends: 0, then where
    each token's pairs end.
    """
    loops = sum_loops(target, values, W, left)
    assert loops is not None
    members, parts = len(target), spans(len(target), target.numel())
    error = torch.empty(members, parts, dtype=torch.float64, device="cpu")
    sums = torch.zeros(members, parts, target.shape[2], dtype=torch.float64, device="cpu")
    pairs = (values.numpy(), latents.numpy(), ends.numpy(), W.numpy())
    products = left.new_empty(len(latents))
    outputs = (t.numpy() for t in (left, error, sums, products))
    loops.leave(target.numpy(), *pairs, *outputs, threads_for(target.numel()))
    return error.sum(dim=1).to(target), sums.sum(dim=1).to(target), products


def scatter(
    values: Float[Tensor, "pairs"],
    latents: Int[Tensor, "pairs"],
    ends: Int[Tensor, "tokens_and_one"],
    rows: Float[Tensor, "tokens d_in"],
    *,
    members: int,
    n_latents: int,
) -> Float[Tensor, "latents d_in"]:
    """For each latent, value times its token's row, summed over its pairs, without sorting them; only where
    there is a compiled loop (`dispatch.sum_loops`). n_latents: of all members.
    """
    loops = sum_loops(values, rows)
    assert loops is not None
    sums = rows.new_empty(spans(members, rows.numel()), n_latents, rows.shape[1])
    pairs = (values.numpy(), latents.numpy(), ends.numpy(), rows.numpy())
    loops.scatter(*pairs, members, sums.numpy(), threads_for(rows.numel()))
    return sums[0] if len(sums) == 1 else sums.sum(dim=0)


def mark_fired(
    values: Float[Tensor, "pairs"], latents: Int[Tensor, "pairs"], n_latents: int
) -> Bool[Tensor, "latents"]:
    """Which latents have a value over zero."""
    loops = sum_loops(values)
    if loops is None:
        # Not latents[values > 0], whose size a GPU would be waited for. One mark more takes those that are not.
        marked = torch.zeros(n_latents + 1, dtype=torch.bool, device=values.device)
        return marked.index_fill_(0, torch.where(values > 0, latents, n_latents), True)[:-1]
    marked = torch.zeros(n_latents, dtype=torch.bool, device="cpu")
    loops.mark(values.numpy(), latents.numpy(), marked.numpy())
    return marked


def count(latents: Int[Tensor, "pairs"], n_latents: int) -> Int[Tensor, "latents"]:
    """How many pairs each latent has."""
    if latents.device.type == "cpu":
        return torch.bincount(latents, minlength=n_latents)
    # bincount would wait for a GPU, to look for the largest number.
    return latents.new_zeros(n_latents).index_add_(0, latents, torch.ones_like(latents))


def group(latents: Int[Tensor, "pairs"], counts: Int[Tensor, "latents"]) -> Int[Tensor, "pairs"]:
    """The pairs sorted by latent, and as they came within one; `counts`: how many each latent has.

    A fixed order makes the sums, and so the training, the same every time.
    """
    loops = dispatch.load_loops() if latents.device.type == "cpu" else None
    if loops is None:
        return torch.argsort(latents.int(), stable=True)
    order = torch.empty_like(latents)
    loops.sums.group(latents.numpy(), counts.numpy(), (counts.cumsum(0) - counts).numpy(), order.numpy())
    return order
