"""What SAEs selected on a batch: the codes, and the pairs of tokens and latents that they belong to."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.kernels.pairs import Pairs
from autopsae.tables import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Selection(Result):
    """What SAEs selected, each on its batch of tokens; latents are numbered through all of them."""

    values: Float[Tensor, "pairs"]
    """Of the selected pairs, zero where they do not fire, with gradients for the weights."""
    pairs: Pairs
    """Which latent is selected on which token."""
    positive: Bool[Tensor, "latents"]
    """Which latents had a positive pre-activation on any token."""
    gates: Float[Tensor, "pairs"] | None = None
    """1 where a pair fires, with a gradient for the thresholds; None unless the sparsity is JumpReLU."""

    @property
    def tokens(self) -> int:
        """Of each member."""
        return self.pairs.n_tokens // self.pairs.members
