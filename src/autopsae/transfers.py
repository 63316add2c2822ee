"""From the memory of the host to that of a GPU without waiting for it.

A copy from ordinary memory makes the host wait until the device has done all that it was asked before. From pinned
memory the copy is asked for like any other work, and the host goes on.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


def send(
    x: Shaped[Tensor, "*shape"], device: torch.device | str | None, dtype: torch.dtype | None = None
) -> Shaped[Tensor, "*shape"]:
    """A copy of x on a device and in a type (None: those of x); the memory of x may be filled anew at once.

    To a GPU x travels in its own type, which is converted there.
    """
    dtype = dtype or x.dtype
    if not _goes_up(x, device):
        return x.to(device=device, dtype=dtype, copy=True)
    # Not x.pin_memory(), which is x itself where it is pinned: whoever fills it anew would spoil the copy.
    pinned = torch.empty(x.shape, dtype=x.dtype, pin_memory=True, device="cpu").copy_(x)
    return pinned.to(device, non_blocking=True).to(dtype)


def numbers_like(
    like: Float[Tensor, "..."], values: Sequence[float] | Sequence[Sequence[float]]
) -> Float[Tensor, "..."]:
    """`like.new_tensor(values)`, for which a GPU is not waited for."""
    return send(torch.tensor(values, dtype=like.dtype, device="cpu"), like.device)


def rows_for(
    x: Shaped[Tensor, "rows columns"], rows: Int[Tensor, "some"], device: torch.device | str | None
) -> Shaped[Tensor, "some columns"]:
    """x[rows], where x lies; in pinned memory if it is to go to a GPU from there (`to` with non_blocking=True)."""
    if not _goes_up(x, device):
        return x.index_select(0, send(rows, x.device))
    pinned = torch.empty(len(rows), x.shape[1], dtype=x.dtype, pin_memory=True, device="cpu")
    return torch.index_select(x, 0, rows, out=pinned)


def is_gpu(device: torch.device | str | None) -> bool:
    """Whether the device computes beside the host, which may read meanwhile."""
    return device is not None and torch.device(device).type == "cuda"


def _goes_up(x: Tensor, device: torch.device | str | None) -> bool:
    return x.device.type == "cpu" and is_gpu(device)
