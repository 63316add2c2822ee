"""What is minimised besides the squared error: what keeps codes sparse where no k does."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection
from autopsae.sae.weights import Weights


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
        return summed / selection.tokens * summed.new_tensor([penalty.at(step) for penalty in penalties])


@dataclass(frozen=True, kw_only=True)
class L0Target:
    """coefficient * d_in * (L0 / l0 - 1)^2, a gradient for JumpReLU's thresholds (Rajamanoharan et al. 2024).

    The factor d_in is the size of the squared error at birth, where the layer is scaled.
    """

    l0: float
    """Latents that shall fire per token, on average."""
    coefficient: float = 0.2
    """Weight of the penalty."""

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
        wanted, size = selection.gates.new_tensor([[p.l0, p.coefficient] for p in penalties]).T
        l0 = selection.pairs.sum_per_member(selection.gates) / selection.tokens
        losses: Tensor = size * weights.shape[2] * (l0 / wanted - 1).square()
        return losses


def penalty_losses(
    penalties: Sequence[L1 | L0Target | None], weights: Weights, selection: Selection, step: int
) -> Float[Tensor, "members"]:
    """Each member's penalty of its batch; 0 for None."""
    total = selection.values.new_zeros(len(penalties))
    nothing = L1(coefficient=0.0), L0Target(l0=1.0, coefficient=0.0)
    if any(isinstance(penalty, L1) for penalty in penalties):
        l1 = [penalty if isinstance(penalty, L1) else nothing[0] for penalty in penalties]
        total = total + L1.losses(l1, weights, selection, step)
    if any(isinstance(penalty, L0Target) for penalty in penalties):
        targets = [penalty if isinstance(penalty, L0Target) else nothing[1] for penalty in penalties]
        total = total + L0Target.losses(targets, weights, selection)
    return total
