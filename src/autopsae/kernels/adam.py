"""A step of Adam on rows, which may have to stay of unit length.

As in `choose`: Numba's loop or PyTorch's operators, with the same answers (tested).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.kernels.dispatch import step_loops, threads_for


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


Rows = Float[Tensor, "rows columns"]
ADAM = 8
"""Work on a value in a step of Adam, for which others are read once."""


def adam(rows: Rows, grads: Rows, firsts: Rows, seconds: Rows, rates: Float[Tensor, "members"], how: Adam) -> None:
    """One step, in place, each row at the rate of its member; at rate 0 a row and its moments stay as they are. The
    gradient may be overwritten.
    """
    (beta1, beta2), each = how.betas, len(rows) // len(rates)
    correction1, correction2 = 1 - beta1**how.step, (1 - beta2**how.step) ** 0.5
    # torch.optim.SparseAdam adds it before the correction, torch.optim.Adam after.
    eps = how.eps / correction2 if how.sparse else how.eps
    loops = step_loops(rows, grads, firsts, seconds)
    if loops is not None:
        settings = rows.new_tensor([1 - beta1, beta2, 1 - beta2, correction1, correction2, eps]).numpy()
        arrays = (t.numpy() for t in (rows, grads, firsts, seconds, rates.to(rows.dtype)))
        loops.adam(*arrays, settings, how.unit, how.sparse, threads_for(ADAM * rows.numel()))
        return
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


def remove_parallel(gradient: Rows, rows: Rows) -> None:
    """gradient - <gradient, row> row, row by row, in place: what is left does not change a unit row's length."""
    gradient.addcmul_(torch.linalg.vecdot(gradient, rows)[:, None], rows, value=-1)
