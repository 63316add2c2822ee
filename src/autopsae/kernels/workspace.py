"""Memory that is kept from step to step."""

import torch
from torch import Tensor


class Workspace:
    """The large tensors of a training step, each by its name: memory that is fresh each time is slow, and one large
    product is a little faster than several small ones.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A tensor with any content, of the type and on the device of `like`; the one before it is gone."""
        size, memory = torch.Size(shape).numel(), self._memory.get(name)
        if memory is None or len(memory) < size or (memory.dtype, memory.device) != (like.dtype, like.device):
            memory = self._memory[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return memory[:size].view(shape)
