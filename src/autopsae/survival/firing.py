"""When a latent fires: by how much its pre-activation exceeds what it has to, token by token.

A margin is positive on the tokens on which the latent fires, and says elsewhere how far it is from it.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError
from autopsae.survival.closed_form import check_k


@runtime_checkable
class Firing(Protocol):
    """Who fires on a block of tokens."""

    def margins(self, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "tokens d_sae"]:
        """How far each pre-activation is over what makes it fire; negative where it does not fire."""
        ...


@dataclass(frozen=True)
class AmongLargest:
    """TopK: among the k largest of its token, and positive."""

    k: int

    def __post_init__(self) -> None:
        whole_fields(self, "k")

    def margins(self, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "tokens d_sae"]:
        """Over the k-th largest of the *other* latents, or over zero where that is negative.

        Raises InputError for k outside 1 ... d_sae.
        """
        check_k(self.k, pre.shape[1])
        if self.k == pre.shape[1]:
            return pre
        largest = torch.topk(pre, self.k + 1, dim=1).values
        last, next_ = largest[:, -2:-1], largest[:, -1:]
        # One of the k largest would still be chosen if it fell to the next one.
        return pre - torch.where(pre >= last, next_.clamp_min(0), last.clamp_min(0))


@dataclass(frozen=True)
class AmongLargestOfBatch:
    """BatchTopK: among the k x tokens largest of its batch, and positive; a block of tokens is one batch."""

    k: int

    def __post_init__(self) -> None:
        whole_fields(self, "k")

    def margins(self, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "tokens d_sae"]:
        """Over the least value that the batch admits, at least zero. Raises as AmongLargest."""
        check_k(self.k, pre.shape[1])
        admitted = self.k * len(pre)
        if admitted == pre.numel():
            return pre
        # Of a batch the next value is as good as the last: they differ by a millionth of the spread.
        return pre - torch.topk(pre.flatten(), admitted + 1).values[-1].clamp_min(0)


@dataclass(frozen=True, eq=False)
class Above:
    """ReLU (threshold 0) and JumpReLU: over a threshold, one for all latents or each its own; never negative."""

    threshold: float | Float[Tensor, "d_sae"] = 0.0

    def margins(self, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "tokens d_sae"]:
        """Over the threshold. Raises InputError for a negative one, under which silence would not be zero."""
        threshold = torch.as_tensor(self.threshold).to(pre)
        if bool((threshold < 0).any()):
            raise InputError(f"expected thresholds of at least 0, got {float(threshold.min()):g}")
        return pre - threshold
