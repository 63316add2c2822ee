"""What is minimised: the squared error in the SAE's space, and what keeps codes sparse where no k does."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection


def squared_error(y: Float[Tensor, "tokens d_in"], y_hat: Float[Tensor, "tokens d_in"]) -> Float[Tensor, ""]:
    """Mean over tokens of ||y - y_hat||^2."""
    return (y - y_hat).square().sum() / len(y)


@dataclass(frozen=True, kw_only=True)
class L1:
    """coefficient * mean over tokens of sum_i z_i ||W_dec_i||: codes shrink till few fire (Bricken et al. 2023)."""

    coefficient: float
    """Against a squared error that is about d_in at birth, where the layer is scaled."""
    warmup_steps: int = 0
    """Steps over which the coefficient rises from 0, so that latents find their place before they are thinned."""

    def __post_init__(self) -> None:
        if not self.coefficient >= 0 or self.warmup_steps < 0:
            raise InputError(f"L1: expected coefficient >= 0 and warmup_steps >= 0, got {self}")

    def check(self, sae: SAE) -> None:
        """Any SAE will do."""

    def loss(self, sae: SAE, selection: Selection, step: int) -> Float[Tensor, ""]:
        """The penalty of a batch."""
        # Not lengths[latents], whose gradient PyTorch adds up in another order each time.
        lengths = sae.W_dec.norm(dim=1).index_select(0, selection.pairs.latents)
        risen = min(1.0, (step + 1) / (self.warmup_steps + 1))
        loss: Tensor = self.coefficient * risen * (selection.values * lengths).sum() / selection.tokens
        return loss


@dataclass(frozen=True, kw_only=True)
class L0Target:
    """coefficient * d_in * (L0 / l0 - 1)^2, a gradient for JumpReLU's thresholds (Rajamanoharan et al. 2024).

    The factor d_in is the size of the squared error at birth, where the layer is scaled.
    """

    l0: float
    """Latents that shall fire per token, on average."""
    coefficient: float = 0.2

    def __post_init__(self) -> None:
        if not (self.l0 > 0 and self.coefficient >= 0):
            raise InputError(f"L0Target: expected l0 > 0 and coefficient >= 0, got {self}")

    def check(self, sae: SAE) -> None:
        """InputError for an SAE without learned thresholds."""
        if sae.log_threshold is None:
            raise InputError(
                f"L0Target: expected a JumpReLU SAE, whose thresholds it moves, got {sae.sparsity.name}; a ReLU "
                "SAE takes L1, and top-k needs neither"
            )

    def loss(self, sae: SAE, selection: Selection, step: int) -> Float[Tensor, ""]:
        """The penalty of a batch."""
        assert selection.gates is not None
        return self.coefficient * sae.d_in * (selection.gates.sum() / selection.tokens / self.l0 - 1).square()
