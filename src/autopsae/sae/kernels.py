"""What is done row by row: the k largest, all over a threshold, dot products, grouping by latent.

Each is Numba's where tokens are in main memory and Numba is installed (`pip install autopsae[fast]`), and otherwise
made of PyTorch's own operators, on any device. Both give the same answers (tested).
"""

from functools import cache
from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Block = Float[Tensor, "rows d_sae"]
Bias = Float[Tensor, "d_sae"] | None


@cache
def _loops() -> ModuleType | None:
    """The compiled loops, or None without Numba."""
    try:
        from autopsae.sae import numba_loops
    except ImportError:
        return None
    return numba_loops


_SUMMED = (torch.float32, torch.float64)
_COMPARED = (*_SUMMED, torch.bfloat16)


def _compiled_for(*tensors: Tensor, dtypes: tuple[torch.dtype, ...]) -> ModuleType | None:
    fits = all(t.device.type == "cpu" and t.dtype in dtypes and t.is_contiguous() for t in tensors)
    return _loops() if fits else None


SMALL = 1 << 19
"""Values over which a loop takes longer than waiting for other threads."""


def _threads(values: int) -> int:
    """Threads for a loop over so many values: one where the others would come too late."""
    return torch.get_num_threads() if values > SMALL else 1


def _sum(product: Block, bias: Bias) -> Block:
    """product + bias, in place."""
    return product if bias is None else product.add_(bias)


def _addends(product: Block, bias: Bias) -> tuple[Tensor, Tensor]:
    """(product, bias) as the loops take them; bfloat16 as integers, whose order is right from zero upwards, but
    which cannot be added, so that the bias is added before, in place.
    """
    if product.dtype == torch.bfloat16:
        return _sum(product, bias).view(torch.int16), torch.zeros(product.shape[1], dtype=torch.int16)
    return product, product.new_zeros(product.shape[1]) if bias is None else bias.contiguous()


def _ordered(t: Tensor) -> Tensor:
    return t.view(torch.int16) if t.dtype == torch.bfloat16 else t


def largest(
    product: Block, bias: Bias, k: int, positive: Bool[Tensor, "d_sae"]
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """(values, latents) of the k largest of each row of product + bias, in no order; `positive` becomes true where
    a column is.

    Where fewer than k of a row are positive, some that are not fill the rest. The product may be overwritten.
    """
    loops = _compiled_for(product, dtypes=_COMPARED)
    if loops is None:
        pre = _sum(product, bias)
        positive |= (pre > 0).any(dim=0)
        values, latents = torch.topk(pre, k, dim=1, sorted=False)
        return values, latents
    threads = _threads(product.numel())
    values = product.new_empty(len(product), k)
    latents = torch.empty(len(product), k, dtype=torch.int64)
    seen = torch.zeros(threads, product.shape[1], dtype=torch.bool)
    # As an integer, 12 is a tenth of a bfloat16's value or so.
    factor, less = (1.0, 12) if product.dtype == torch.bfloat16 else (0.9, 0.0)
    addends = (t.numpy() for t in _addends(product, bias))
    loops.largest(*addends, k, _ordered(values).numpy(), latents.numpy(), seen.numpy(), factor, less, threads)
    positive |= seen.any(dim=0)
    return values, latents


def above(
    product: Block, bias: Bias, thresholds: Float[Tensor, "d_sae"], positive: Bool[Tensor, "d_sae"]
) -> tuple[Float[Tensor, "found"], Int[Tensor, "found"], Int[Tensor, "rows"]]:
    """(values, latents, how many per row) of all of product + bias that are over their column's threshold (>= 0),
    row by row; `positive` and the product as in `largest`.
    """
    thresholds = thresholds.to(product.dtype)
    loops = _compiled_for(product, thresholds, dtypes=_COMPARED)
    if loops is None:
        pre = _sum(product, bias)
        positive |= (pre > 0).any(dim=0)
        found = ~(pre <= thresholds)  # NaN must not go unseen
        rows, latents = found.nonzero(as_tuple=True)
        return pre[rows, latents], latents, found.sum(dim=1)
    threads = _threads(product.numel())
    counts = torch.empty(len(product), dtype=torch.int64)
    seen = torch.zeros(threads, product.shape[1], dtype=torch.bool)
    rows_and_thresholds = [t.numpy() for t in (*_addends(product, bias), _ordered(thresholds))]
    loops.count_above(*rows_and_thresholds, counts.numpy(), seen.numpy(), threads)
    total = int(counts.sum())
    values, latents = product.new_empty(total), torch.empty(total, dtype=torch.int64)
    starts = (counts.cumsum(0) - counts).numpy()
    loops.gather_above(*rows_and_thresholds, starts, _ordered(values).numpy(), latents.numpy(), threads)
    positive |= seen.any(dim=0)
    return values, latents, counts


def dots(
    of_tokens: Float[Tensor, "tokens d_in"],
    of_latents: Float[Tensor, "d_sae d_in"],
    tokens: Int[Tensor, "pairs"],
    latents: Int[Tensor, "pairs"],
    starts: Int[Tensor, "tokens"],
) -> Float[Tensor, "pairs"]:
    """<the token's row, the latent's row> of every pair; no [pairs, d_in] matrix is made."""
    loops = _compiled_for(of_tokens, of_latents, dtypes=_SUMMED)
    if loops is None:
        # What embedding_bag uses for the gradient of its weights.
        found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            of_tokens, of_latents, latents, starts, tokens, 0
        )
        return found
    found = of_tokens.new_empty(len(latents))
    of_pairs = (of_tokens.numpy(), of_latents.numpy(), tokens.numpy(), latents.numpy(), found.numpy())
    loops.dots(*of_pairs, _threads(len(latents) * of_tokens.shape[1]))
    return found


def remove_parallel(gradient: Float[Tensor, "d_sae d_in"], rows: Float[Tensor, "d_sae d_in"]) -> None:
    """gradient - <gradient, row> row, row by row, in place: what is left does not change a unit row's length."""
    loops = _compiled_for(gradient, rows, dtypes=_SUMMED)
    if loops is None:
        gradient.addcmul_(torch.linalg.vecdot(gradient, rows)[:, None], rows, value=-1)
    else:
        loops.remove_parallel(gradient.numpy(), rows.numpy(), _threads(rows.numel()))


def group(latents: Int[Tensor, "pairs"], counts: Int[Tensor, "d_sae"]) -> Int[Tensor, "pairs"]:
    """The pairs sorted by latent, and as they came within one; `counts`: how many each latent has.

    A fixed order makes the sums, and so the training, the same every time.
    """
    loops = _loops() if latents.device.type == "cpu" else None
    if loops is None:
        return torch.argsort(latents.int(), stable=True)
    order = torch.empty_like(latents)
    loops.group(latents.numpy(), counts.numpy(), (counts.cumsum(0) - counts).numpy(), order.numpy())
    return order
