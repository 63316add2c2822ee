"""What is minimised besides the squared error: what keeps codes sparse where no k does."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import whole, whole_fields
from autopsae.arrays import InputError
from autopsae.kernels.sparse_ops import decode_between, subtract_decoded
from autopsae.kernels.workspace import Workspace
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection
from autopsae.sae.weights import Weights
from autopsae.transfers import numbers_like, send


@dataclass(frozen=True, kw_only=True)
class L1:
    """coefficient * mean over tokens of sum_i z_i ||W_dec_i||: codes shrink till few fire (Bricken et al. 2023)."""

    coefficient: float
    """Against a squared error that is about d_in at birth, where the layer is scaled."""
    warmup_steps: int = 0
    """Steps over which the coefficient rises from 0, so that latents find their place before they are thinned."""

    def __post_init__(self) -> None:
        whole_fields(self, "warmup_steps")
        if not self.coefficient >= 0 or self.warmup_steps < 0:
            raise InputError(f"L1: expected coefficient >= 0 and warmup_steps >= 0, got {self}")

    def check(self, sae: SAE) -> None:
        """Any SAE will do."""

    def at(self, step: int) -> float:
        """The coefficient of a step."""
        return self.coefficient * min(1.0, (step + 1) / (self.warmup_steps + 1))

    @staticmethod
    def losses(
        penalties: "Sequence[L1]", weights: Weights, selection: Selection, step: int
    ) -> Float[Tensor, "members"]:
        """Each member's penalty of its batch."""
        # Not lengths[latents], whose gradient PyTorch adds up in another order each time.
        lengths = weights.W_dec.flatten(0, 1).norm(dim=1).index_select(0, selection.pairs.latents)
        summed = selection.pairs.sum_per_member(selection.values * lengths)
        summed = weights.ranks.everyone.total(summed, "penalty")
        return (
            summed
            / weights.tokens_of(selection)
            * numbers_like(summed, [penalty.at(step) for penalty in penalties])
        )


@dataclass(frozen=True, kw_only=True)
class L0Target:
    """coefficient * d_in * (L0 / l0 - 1)^2, a gradient for JumpReLU's thresholds (Rajamanoharan et al. 2024).

    The factor d_in is the size of the squared error at birth, where the layer is scaled: one coefficient then does
    for layers of every width. The published penalty is without it (`times_d_in=False`).
    """

    l0: float
    """Latents that shall fire per token, on average."""
    coefficient: float = 0.2
    """Weight of the penalty."""
    times_d_in: bool = True
    """Whether the penalty has the factor d_in."""

    def __repr__(self) -> str:
        # Checkpoints of earlier versions hold it so, and are compared with it.
        factor = "" if self.times_d_in else ", times_d_in=False"
        return f"L0Target(l0={self.l0!r}, coefficient={self.coefficient!r}{factor})"

    def __post_init__(self) -> None:
        if not (self.l0 > 0 and self.coefficient >= 0):
            raise InputError(f"L0Target: expected l0 > 0 and coefficient >= 0, got {self}")

    def check(self, sae: SAE) -> None:
        """InputError for an SAE without learned thresholds."""
        if not sae.sparsity.gated:
            raise InputError(
                f"L0Target: expected a JumpReLU SAE, whose thresholds it moves, got {sae.sparsity.name}; a ReLU "
                "SAE takes L1, and top-k needs neither"
            )

    @staticmethod
    def losses(penalties: "Sequence[L0Target]", weights: Weights, selection: Selection) -> Float[Tensor, "members"]:
        """Each member's penalty of its batch."""
        assert selection.gates is not None
        wanted, size = numbers_like(selection.gates, [[p.l0, p.coefficient] for p in penalties]).T
        times_d_in = send(torch.tensor([p.times_d_in for p in penalties], device="cpu"), size.device)
        size = torch.where(times_d_in, size * weights.shape[2], size)
        fired = weights.ranks.everyone.total(selection.pairs.sum_per_member(selection.gates), "penalty")
        l0 = fired / weights.tokens_of(selection)
        losses: Tensor = size * (l0 / wanted - 1).square()
        return losses


def reconstruction_losses(
    weights: Weights,
    target: Float[Tensor, "members tokens d_in"],
    selection: Selection,
    nested: tuple[int, ...],
    workspace: Workspace | None = None,
) -> tuple[Float[Tensor, "members tokens d_in"], Float[Tensor, "members"], Float[Tensor, "members"]]:
    """(what decoding leaves, its squared error per token, what is minimised of it) of each member; only the last
    has gradients. target: y - b_dec.

    What is minimised is the squared error itself; with `nested`, the mean of those of the reconstructions from the
    first m latents alone, for each m in `nested` and for all latents (Matryoshka SAEs, Bussmann et al. 2025).
    """
    if not nested:
        left, error = subtract_decoded(
            target,
            selection.values,
            selection.pairs,
            weights.W_dec,
            weights.b_dec_of_decoder,
            workspace,
            weights.gradients,
            weights.ranks,
        )
        error = weights.ranks.peers.total(error, "loss") / weights.tokens_of(selection)
        return left, error.detach(), error
    # `target` has no gradient: what is added is zero, and has that of b_dec at the decoder's end.
    left, errors = target + (weights.b_dec.detach() - weights.b_dec)[:, None], []
    for first, last in pairwise((0, *nested, weights.shape[1])):
        # Each prefix goes on from the residual of the one before it, so every pair is decoded once.
        left = left - decode_between(selection.values, selection.pairs, weights.W_dec, first, last)
        errors.append(left.square().sum(dim=(1, 2)) / selection.tokens)
    loss: Tensor = sum(errors[1:], errors[0]) / len(errors)
    return left.detach(), errors[-1].detach(), loss


def take_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of nested prefixes. Raises InputError, with this name, unless they grow from 1 on."""
    whole_sizes = tuple(whole(name, size) for size in sizes)
    if min(whole_sizes, default=1) < 1 or any(b <= a for a, b in pairwise(whole_sizes)):
        raise InputError(f"{name}: expected sizes of at least 1 that grow, such as (256, 1024), got {whole_sizes}")
    return whole_sizes


def check_nested(nested: tuple[int, ...], d_sae: int) -> None:
    """InputError for a prefix of an SAE of `d_sae` latents that is not smaller than the whole."""
    if nested and nested[-1] >= d_sae:
        raise InputError(
            f"nested: expected prefixes of fewer than d_sae = {d_sae:,} latents, as the whole always counts, got "
            f"{nested[-1]:,}; leave it out"
        )


def penalty_losses(
    penalties: Sequence[L1 | L0Target | None], weights: Weights, selection: Selection, step: int
) -> Float[Tensor, "members"]:
    """Each member's penalty of its batch; 0 for None."""
    total = selection.values.new_zeros(len(penalties))
    if not any(penalties):
        return total
    nothing = L1(coefficient=0.0), L0Target(l0=1.0, coefficient=0.0)
    if any(isinstance(penalty, L1) for penalty in penalties):
        l1 = [penalty if isinstance(penalty, L1) else nothing[0] for penalty in penalties]
        total = total + L1.losses(l1, weights, selection, step)
    if any(isinstance(penalty, L0Target) for penalty in penalties):
        targets = [penalty if isinstance(penalty, L0Target) else nothing[1] for penalty in penalties]
        total = total + L0Target.losses(targets, weights, selection)
    return total
