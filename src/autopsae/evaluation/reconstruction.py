"""How well an SAE does on held-out tokens, in the space of the raw activations, and who of its latents lives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.activations.batches import evaluating
from autopsae.arrays import InputError, Tokens, chunks
from autopsae.passes import same_passes
from autopsae.sae.death import Census, Fates
from autopsae.sae.model import SAE
from autopsae.statistics.norms import NormHistogram
from autopsae.statistics.strays import STRAY


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """An SAE on held-out tokens.

    fvu_raw: summed squared error over the tokens' summed squared distance from their mean, both in raw space, so
    that SAEs under different remedies compare; fvu_typical: the same without stray tokens (over ten times the
    median norm), which may hold most of either sum; strays: their share of the tokens; mse_raw: mean squared error
    per token and dimension; l0: latents that fired, per token; bias_captured: b . mu / ||mu||^2, the share of the
    mean that the bias has taken over (b in raw space); fates: what each latent did.
    """

    tokens: int
    fvu_raw: float
    fvu_typical: float
    strays: float
    mse_raw: float
    l0: float
    bias_captured: float
    fates: Fates


@torch.no_grad()
def evaluate(sae: SAE, tokens: Tokens) -> Evaluation:
    """Evaluate on raw tokens in two passes (the mean, then the errors), sums in float64.

    Raises InputError as `chunks`, for passes that differ, and for tokens of another width than the SAE's.
    """
    weight, tokens = sae.W_enc, same_passes(tokens)
    mean, norms, n = _first_pass(tokens, weight.device)
    if len(mean) != sae.d_in:
        raise InputError(
            f"evaluate: expected tokens of d_in = {sae.d_in}, as the SAE's, got {len(mean)}; choose the layer that "
            "it was trained on"
        )
    limit = STRAY * norms.typical
    typical, stray = (_Sums(sae.d_in, weight.device) for _ in range(2))
    entered = torch.zeros(sae.d_in, dtype=torch.float64, device=weight.device)
    census = Census(sae.d_sae, weight.device)
    with evaluating(sae):
        for x in chunks(tokens, dtype=torch.float64, device=weight.device):
            y, back = sae.enter(x)
            selection = sae.select(y)
            error = (x - back(sae.reconstruct(selection)).double()).square().sum(dim=1)
            beyond = torch.linalg.vector_norm(x, dim=1) > limit
            for sums, of in ((typical, ~beyond), (stray, beyond)):
                sums.see(x[of] - mean, error[of])
            entered += y.sum(dim=0, dtype=torch.float64)
            census.see(selection)
    fates = census.fates()
    both = typical.error + stray.error
    return Evaluation(
        tokens=n,
        fvu_raw=_share(both, typical.square + stray.square),
        fvu_typical=_share(typical.error, typical.spread),
        strays=stray.tokens / n,
        mse_raw=both / (n * sae.d_in),
        l0=float(fates.fired.sum()) / n,
        bias_captured=sae.bias_captured(entered / n),
        fates=fates,
    )


class _Sums:
    """Over some of the tokens: squared errors, and squared distances from the mean of all."""

    def __init__(self, d_in: int, device: torch.device) -> None:
        self.tokens, self.error, self.square = 0, 0.0, 0.0
        self._away = torch.zeros(d_in, dtype=torch.float64, device=device)

    def see(self, away: Float[Tensor, "some d_in"], error: Float[Tensor, "some"]) -> None:
        self.tokens += len(away)
        self.error += float(error.sum())
        self.square += float(away.square().sum())
        self._away += away.sum(dim=0)

    @property
    def spread(self) -> float:
        """Squared distances from their own mean."""
        return self.square - float(self._away.square().sum()) / max(1, self.tokens)


def _share(error: float, spread: float) -> float:
    return error / spread if spread > 0 else 0.0


def _first_pass(tokens: Tokens, device: torch.device) -> tuple[Float[Tensor, "d_in"], NormHistogram, int]:
    """(mean, norms, number) of the tokens."""
    total, norms, n = torch.zeros(()), None, 0
    for x in chunks(tokens, dtype=torch.float64, device=device):
        total = x.sum(dim=0) + (total if n else 0)
        seen = NormHistogram.of(x)
        norms = norms.merge(seen) if norms else seen
        n += len(x)
    assert norms is not None  # chunks raises when there is no token
    return total / n, norms, n
