"""What is asked of a diagnosis, whatever it is made of."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import OmitArgPrefixes

from autopsae.cli.options.kinds import Integers, Numbers, Rare
from autopsae.cli.options.sparsity import ShortFiring
from autopsae.defaults import ACCEPTABLE, AT_TOKENS, D_SAE, LR, STEPS


@dataclass(frozen=True, kw_only=True)
class Asking:
    """The SAE that is to be trained, and what may be done about latents that are born dead."""

    d_sae: int = D_SAE
    """Latents of the SAE to be trained."""
    firing: Annotated[ShortFiring, OmitArgPrefixes] = ShortFiring()
    """Which of them fire on a token."""
    at_tokens: Rare[int] = AT_TOKENS
    """Tokens on which death is forecast, from a sample of 4,096."""
    alphas: Rare[Numbers] = ()
    """Further whitening exponents to measure, from 0 (centering) to 1 (full)."""
    ranks: Rare[Integers] = ()
    """Active subspace ranks to measure."""
    acceptable: float = ACCEPTABLE
    """Fraction of latents that may be born dead before something is prescribed."""
    lr: float = LR
    """Learning rate by which it is judged whether training brings the dead-by-ReLU back."""
    steps: int = STEPS
    """Steps of that training."""
