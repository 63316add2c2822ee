"""Choosing from pre-activations, row by row: the k largest, and all over a threshold.

Each is Numba's where tokens are in main memory and Numba is installed (`pip install autopsae[fast]`), and otherwise
made of PyTorch's own operators, on any device. Both give the same answers (tested). Members are SAEs side by side.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.kernels import dispatch
from autopsae.kernels.dispatch import SUMMED, choose_loops, spans, threads_for

Block = Float[Tensor, "members rows d_sae"]
Bias = Float[Tensor, "members d_sae"] | None
Positive = Bool[Tensor, "members d_sae"]


def _sum(product: Block, bias: Bias) -> Block:
    """product + bias, in place."""
    return product if bias is None else product.add_(bias[:, None])


def _addends(product: Block, bias: Bias) -> tuple[Tensor, Tensor]:
    """(product, bias) as the loops take them; bfloat16 as integers, whose order is right from zero upwards, but
    which cannot be added, so that the bias is added before, in place.
    """
    members, _, n = product.shape
    if product.dtype == torch.bfloat16:
        rows = _sum(product, bias).view(torch.int16)
        return rows.view(-1, n), torch.zeros(members, n, dtype=torch.int16, device="cpu")
    return product.view(-1, n), product.new_zeros(members, n) if bias is None else bias.contiguous()


def _order_keys(t: Tensor) -> Tensor:
    return t.view(torch.int16) if t.dtype == torch.bfloat16 else t


def largest(
    product: Block, bias: Bias, k: int, positive: Positive
) -> tuple[Float[Tensor, "members rows k"], Int[Tensor, "members rows k"]]:
    """(values, latents) of the k largest of each row of product + bias, in no order; `positive` becomes true where
    a column is.

    Where fewer than k of a row are positive, some that are not fill the rest. The product may be overwritten.
    """
    loops = choose_loops(product)
    if loops is None:
        pre = _sum(product, bias)
        positive |= (pre > 0).any(dim=1)
        values, latents = torch.topk(pre, k, dim=2, sorted=False)
        return values, latents
    threads, (members, rows, n) = threads_for(product.numel()), product.shape
    values = product.new_empty(members, rows, k)
    latents = torch.empty(members, rows, k, dtype=torch.int64, device="cpu")
    seen = torch.zeros(threads, members, n, dtype=torch.bool, device="cpu")
    # As an integer, 12 is a tenth of a bfloat16's value or so.
    factor, less = (1.0, 12) if product.dtype == torch.bfloat16 else (0.9, 0.0)
    addends = (t.numpy() for t in _addends(product, bias))
    outputs = (_order_keys(values).view(-1, k).numpy(), latents.view(-1, k).numpy())
    loops.largest(*addends, k, *outputs, seen.numpy(), factor, less, threads)
    positive |= seen.any(dim=0)
    return values, latents


def has_largest_by_latent(W_enc: Float[Tensor, "members d_sae d_in"], k: int) -> bool:
    """Is `largest_by_latent` there, and worth it? A token costs it k d_sae, without a branch."""
    small = k <= 16 and k * W_enc.shape[1] <= 2048
    return small and W_enc.device.type == "cpu" and W_enc.dtype in SUMMED and dispatch.load_loops() is not None


def largest_by_latent(
    product: Float[Tensor, "members d_sae rows"],
    bias: Bias,
    positive: Positive,
    values: Float[Tensor, "members rows k"],
    latents: Int[Tensor, "members rows k"],
) -> None:
    """As `largest`, from the product the other way round, into `values` and `latents`, in the order of the latents;
    only where `has_largest_by_latent`.
    """
    loops = choose_loops(product)
    assert loops is not None
    members, n, _ = product.shape
    seen = torch.zeros(members, spans(members, product.numel()), n, dtype=torch.int32, device="cpu")
    added = product.new_zeros(members, n) if bias is None else bias.contiguous()
    arrays = (t.numpy() for t in (product, added, values, latents, seen))
    loops.largest_by_latent(*arrays, threads_for(product.numel()))
    positive |= seen.any(dim=1)


def above(
    product: Block, bias: Bias, thresholds: Float[Tensor, "members d_sae"], positive: Positive
) -> tuple[Float[Tensor, "above"], Int[Tensor, "above"], Int[Tensor, "all_rows"]]:
    """(values, latents, how many per row) of all of product + bias that are over their column's threshold (>= 0),
    row by row; `positive` and the product as in `largest`.
    """
    thresholds = thresholds.to(product.dtype)
    loops = choose_loops(product, thresholds)
    if loops is None:
        pre = _sum(product, bias)
        positive |= (pre > 0).any(dim=1)
        is_above = ~(pre <= thresholds[:, None])  # NaN must not go unseen
        return pre[is_above], is_above.nonzero()[:, 2], is_above.sum(dim=2).flatten()
    threads, (members, rows, n) = threads_for(product.numel()), product.shape
    counts = torch.empty(members * rows, dtype=torch.int64, device="cpu")
    seen = torch.zeros(threads, members, n, dtype=torch.bool, device="cpu")
    rows_and_thresholds = [t.numpy() for t in (*_addends(product, bias), _order_keys(thresholds))]
    loops.count_above(*rows_and_thresholds, counts.numpy(), seen.numpy(), threads)
    total = int(counts.sum())
    values, latents = product.new_empty(total), torch.empty(total, dtype=torch.int64, device="cpu")
    starts = (counts.cumsum(0) - counts).numpy()
    loops.gather_above(*rows_and_thresholds, starts, _order_keys(values).numpy(), latents.numpy(), threads)
    positive |= seen.any(dim=0)
    return values, latents, counts
