"""How well an SAE does on held-out tokens, in the space of the raw activations, and who of its latents lives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.activations.batches import evaluating
from autopsae.arrays import Tokens, chunks
from autopsae.sae.death import Census, Fates
from autopsae.sae.model import SAE


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """An SAE on held-out tokens.

    fvu_raw: summed squared error over the tokens' summed squared distance from their mean, both in raw space, so
    that SAEs under different remedies compare; mse_raw: mean squared error per token and dimension; l0: latents
    that fired, per token; bias_captured: b . mu / ||mu||^2, the share of the mean that the bias has taken over (b
    in raw space); fates: what each latent did.
    """

    tokens: int
    fvu_raw: float
    mse_raw: float
    l0: float
    bias_captured: float
    fates: Fates


@torch.no_grad()
def evaluate(sae: SAE, tokens: Tokens) -> Evaluation:
    """Evaluate on raw tokens in two passes (the mean, then the errors), sums in float64. Raises as `chunks`."""
    weight = sae.W_enc
    mean, n = _mean(tokens, weight.device)
    error = spread = 0.0
    entered = torch.zeros(sae.d_in, dtype=torch.float64, device=weight.device)
    census = Census(sae.d_sae, weight.device)
    with evaluating(sae):
        for x in chunks(tokens, dtype=torch.float64, device=weight.device):
            y, back = sae.enter(x)
            selection = sae.select(y)
            error += float((x - back(sae.reconstruct(selection)).double()).square().sum())
            spread += float((x - mean).square().sum())
            entered += y.sum(dim=0, dtype=torch.float64)
            census.see(selection)
    fates = census.fates()
    return Evaluation(
        tokens=n,
        fvu_raw=error / spread if spread > 0 else 0.0,
        mse_raw=error / (n * sae.d_in),
        l0=float(fates.fired.sum()) / n,
        bias_captured=sae.bias_captured(entered / n),
        fates=fates,
    )


def _mean(tokens: Tokens, device: torch.device) -> tuple[Float[Tensor, "d_in"], int]:
    total, n = torch.zeros(()), 0
    for x in chunks(tokens, dtype=torch.float64, device=device):
        total = x.sum(dim=0) + (total if n else 0)
        n += len(x)
    return total / n, n
