"""What a caller has set in PyTorch for code of their own, and what must not change ours.

Notebooks begin with `torch.set_grad_enabled(False)`, and models run under `torch.inference_mode()` or autocast.
Training needs gradients all the same, and a product that autocast rounds to bfloat16 selects other latents. The
default type and the default device need nothing here: every tensor that we make names its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Shaped
from torch import Tensor


def matmul(a: Shaped[Tensor, "..."], b: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """a @ b in the type of the two. For products in float32; autocast leaves those in float64 as they are."""
    device = a.device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return a @ b  # on meta there is no autocast to ask for
    with torch.autocast(device, enabled=False):
        return a @ b


@contextmanager
def with_gradients(device: str) -> Iterator[None]:
    """In this context a backward pass is possible, and products on this kind of device are not rounded."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
        yield


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """In this context new tensors can be trained. Whether gradients are kept stays as it was set."""
    enabled = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(enabled):
        yield
