"""What `autopsae` does not have, tried on its own loop: terms of the loss in place of those of the library.

    with PreActivations(coefficient=1.0).applied():
        train(sae, tokens, config)

A term sees one SAE at a time (a stack of one member), and is computed by autograd on whole matrices: slower than
the library, and exact.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.kernels.sparse_ops import decode
from autopsae.kernels.workspace import Workspace
from autopsae.sae.death import Watch
from autopsae.sae.selection import Selection
from autopsae.sae.weights import Weights
from autopsae.training import loop

Losses = tuple[Float[Tensor, "members tokens d_in"], Float[Tensor, "members"], Float[Tensor, "members"]]


@dataclass(kw_only=True)
class PreActivations:
    """coefficient * mean over tokens of sum over silent latents of relu(threshold - pre) * ||W_dec_i||, where the
    threshold of a token is its smallest selected code (in "Circuits Updates", Transformer Circuits, January 2025,
    that of JumpReLU). Its gradient reaches the rows and biases of the silent, and the encoder's centre.
    """

    coefficient: float
    dead_after_tokens: int = 20_480
    moves_center: bool = True
    _selection: Selection | None = field(default=None, init=False)

    def see(self, penalties: Any, weights: Weights, selection: Selection, step: int) -> Float[Tensor, "members"]:
        """Keep the selection, which the second term is not given; no penalty."""
        self._selection = selection
        return selection.values.new_zeros(1)

    def loss(
        self, methods: Sequence[Any], weights: Weights, centered: Tensor, left: Tensor, watch: Watch
    ) -> Float[Tensor, "members"]:
        """The term, of a stack of one."""
        assert self._selection is not None
        silent = watch.silent(torch.tensor([self.dead_after_tokens]))[0].nonzero()[:, 0]
        if not len(silent):
            return left.new_zeros(1)
        pairs, values = self._selection.pairs, self._selection.values.detach()
        smallest = torch.segment_reduce(values, "min", lengths=pairs.per_token_counts)[:, None].clamp_min(0)
        center = weights.encoder_center[0]
        y = centered[0].detach() + center.detach()
        pre = (y - (center if self.moves_center else center.detach())) @ weights.W_enc[0, silent].T
        if weights.b_enc is not None:
            pre = pre + weights.b_enc[0, silent]
        lengths = weights.W_dec[0, silent].detach().norm(dim=1)
        short = ((smallest - pre).relu() * lengths).sum() / len(y)
        added: Tensor = self.coefficient * short[None]
        return added

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, every training has this term, and neither penalty nor revival."""
        with patch.object(loop, "penalty_losses", self.see), patch.object(loop, "revival_losses", self.loss):
            yield


@dataclass(kw_only=True)
class WeighedErrors:
    """Squared errors times (typical distance / distance)^2, where the distance is that of the token from the
    encoder's centre: a token that is ten times as far counts as much as any other.
    """

    def loss(
        self,
        weights: Weights,
        target: Tensor,
        selection: Selection,
        nested: tuple[int, ...],
        workspace: Workspace | None = None,
    ) -> Losses:
        """What `objective.reconstruction_losses` returns, of a stack of one."""
        left = _left(weights, target, selection)
        distance = target[0].norm(dim=1)
        weight = (distance.median() / distance.clamp_min(1e-6)).square()
        error = left.detach().square().sum(dim=(1, 2)) / selection.tokens
        return left.detach(), error, (weight[:, None] * left.square()).sum(dim=(1, 2)) / selection.tokens

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, every training has this error."""
        with patch.object(loop, "reconstruction_losses", self.loss):
            yield


@dataclass(kw_only=True)
class Beside:
    """x_hat = SAE(y) + (y - b_dec) V U^T: a linear bypass beside an SAE that goes on seeing the whole token
    (arXiv 2606.14040). U and V start as the first principal directions; at a learning rate of 0 they stay.
    """

    U: Float[Tensor, "d_in rank"]
    V: Float[Tensor, "d_in rank"]
    lr: float

    def __post_init__(self) -> None:
        self.U, self.V = (W.clone().requires_grad_() for W in (self.U, self.V))
        self._adam = torch.optim.Adam([self.U, self.V], lr=self.lr, betas=(0.9, 0.999))

    def loss(
        self,
        weights: Weights,
        target: Tensor,
        selection: Selection,
        nested: tuple[int, ...],
        workspace: Workspace | None = None,
    ) -> Losses:
        """What `objective.reconstruction_losses` returns, of a stack of one."""
        if self.U.grad is not None:  # of the step before
            self._adam.step()
            self._adam.zero_grad()
        left = _left(weights, target, selection)
        moved = target + (weights.b_dec.detach() - weights.b_dec)[:, None]
        left = left - moved @ self.V @ self.U.T
        error = left.square().sum(dim=(1, 2)) / selection.tokens
        return left.detach(), error.detach(), error

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, every training has this bypass."""
        with patch.object(loop, "reconstruction_losses", self.loss):
            yield


def _left(weights: Weights, target: Tensor, selection: Selection) -> Float[Tensor, "members tokens d_in"]:
    """What decoding leaves of the target y - b_dec, with all its gradients."""
    moved = target + (weights.b_dec.detach() - weights.b_dec)[:, None]
    return moved - decode(selection.values, selection.pairs, weights.W_dec).view_as(target)
