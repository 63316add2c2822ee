"""A step of Adam on rows, which may have to stay of unit length.

As in `choose`: Numba's loop or PyTorch's operators, with the same answers (tested).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.kernels.dispatch import step_loops, threads_for
from autopsae.kernels.gradients import OuterSum


@dataclass(frozen=True, kw_only=True)
class Adam:
    """What a step of Adam does to rows."""

    step: int
    """From 1."""
    unit: bool = False
    """Rows stay of unit length, and their gradient orthogonal to them: Adam would otherwise spend its steps on
    lengths that are then undone."""
    sparse: bool = False
    """Only rows with a gradient move and remember."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


def rate_of_younger(step: int, *, age: int) -> float:
    """What a rate has to be multiplied by where moments began later: in step number `step` of Adam they are in
    their step number `age` (both from 1), and the step corrects their bias as if they were as old as itself.

    (1 - beta1^step) / (1 - beta1^age) * sqrt((1 - beta2^age) / (1 - beta2^step)) (Kingma and Ba 2015, Algorithm 1).
    Only eps keeps its place, which matters for a gradient of about eps alone.
    """
    (first, second, _), (young_first, young_second, _) = (_corrections(Adam(step=t)) for t in (step, age))
    return first / young_first * young_second / second


Rows = Float[Tensor, "rows columns"]
ROW = 10
"""Work on a row in a step of Adam, over that of adding a token's row to its gradient."""
ADAM = 8
"""Work on a value in a step of Adam, for which others are read once."""


def adam(rows: Rows, grads: Rows, firsts: Rows, seconds: Rows, rates: Float[Tensor, "members"], how: Adam) -> None:
    """One step, in place, each row at the rate of its member; at rate 0 a row and its moments stay as they are. The
    gradient may be overwritten.
    """
    (beta1, beta2), each = how.betas, len(rows) // len(rates)
    loops = step_loops(rows, grads, firsts, seconds)
    if loops is not None:
        arrays = (t.numpy() for t in (rows, grads, firsts, seconds, *_sizes_and_settings(rows, rates, how)))
        loops.adam(*arrays, how.unit, how.sparse, threads_for(ADAM * rows.numel()))
        return
    correction1, correction2, eps = _corrections(how)
    rate = rates.to(rows).repeat_interleave(each)[:, None]
    if how.unit:
        remove_parallel(grads, rows)
    moves = rate > 0
    if how.sparse:
        moves = moves & grads.any(dim=1, keepdim=True)
    firsts.copy_(torch.where(moves, firsts.lerp(grads, 1 - beta1), firsts))
    seconds.copy_(torch.where(moves, seconds * beta2 + (1 - beta2) * grads * grads, seconds))
    moved = rows - rate / correction1 * firsts / (seconds.sqrt() / correction2 + eps)
    rows.copy_(torch.where(moves, moved, rows))
    if how.unit:
        rows.copy_(torch.where(rate > 0, normalize(rows, dim=1, eps=torch.finfo(rows.dtype).tiny), rows))


def adam_from_sum(
    rows: Rows,
    grads: Rows | None,
    firsts: Rows,
    seconds: Rows,
    rates: Float[Tensor, "members"],
    how: Adam,
    one: OuterSum,
) -> None:
    """As `adam`, where the gradient is `grads` (None: 0) and a sum that is never written. Only where there is a
    compiled loop (`has_loop`).
    """
    loops = step_loops(rows, firsts, seconds)
    assert loops is not None
    threads, ends = threads_for(ADAM * rows.numel()), one.pairs.ends_by_latent
    # Each thread has as much work, however unevenly the latents fire.
    work = ends + ROW * torch.arange(len(ends), device="cpu")
    bounds = torch.searchsorted(
        work, torch.linspace(0, float(work[-1]), threads + 1, dtype=torch.float64, device="cpu").ceil()
    )
    bounds[0], bounds[-1] = 0, len(rows)
    dense = rows[:0] if grads is None else grads
    arrays = [t.numpy() for t in (rows, dense, firsts, seconds, *_sizes_and_settings(rows, rates, how))]
    pairs = tuple(t.numpy() for t in (one.values, one.pairs.order, one.pairs.tokens, ends))
    loops.adam_from_sum(*arrays, how.unit, how.sparse, pairs, one.rows.numpy(), bounds.numpy(), threads)


def has_loop(*tensors: Tensor) -> bool:
    """Is there a compiled loop for these?"""
    return step_loops(*tensors) is not None


def _corrections(how: Adam) -> tuple[float, float, float]:
    """(1 - beta1^t, sqrt(1 - beta2^t), eps as it is added after the correction)."""
    beta1, beta2 = how.betas
    correction1, correction2 = 1 - beta1**how.step, (1 - beta2**how.step) ** 0.5
    # torch.optim.SparseAdam adds it before the correction, torch.optim.Adam after.
    return correction1, correction2, how.eps / correction2 if how.sparse else how.eps


def _sizes_and_settings(rows: Rows, rates: Float[Tensor, "members"], how: Adam) -> tuple[Tensor, Tensor]:
    """As the loops take them."""
    (beta1, beta2), (correction1, correction2, eps) = how.betas, _corrections(how)
    settings = rows.new_tensor([1 - beta1, beta2, 1 - beta2, correction2, eps])
    return rates.to(rows.dtype) / correction1, settings


def remove_parallel(gradient: Rows, rows: Rows) -> None:
    """gradient - <gradient, row> row, row by row, in place: what is left does not change a unit row's length."""
    gradient.addcmul_(torch.linalg.vecdot(gradient, rows)[:, None], rows, value=-1)
