"""What is asked of a diagnosis, checked."""

from collections.abc import Sequence
from dataclasses import dataclass

from autopsae.defaults import ACCEPTABLE, AT_TOKENS, LR, STEPS
from autopsae.diagnosis.parameters import check_parameters
from autopsae.sae.sparsity import Sparsity


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Arguments of `diagnose` that hold for every layer; checked when it is made."""

    d_sae: int
    sparsity: Sparsity
    at_tokens: int = AT_TOKENS
    alphas: Sequence[float] = ()
    ranks: Sequence[int] = ()
    acceptable: float = ACCEPTABLE
    lr: float = LR
    steps: int = STEPS
    seed: int = 0

    def __post_init__(self) -> None:
        self.sparsity.check(self.d_sae)
        check_parameters(
            self.d_sae,
            self.acceptable,
            at_tokens=self.at_tokens,
            alphas=self.alphas,
            ranks=self.ranks,
            lr=self.lr,
            steps=self.steps,
            seed=self.seed,
        )
