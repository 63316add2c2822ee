"""What is minimised: the squared error in the SAE's space, and auxiliary losses that reach silent latents."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.sae.model import SAE
from autopsae.sae.sparse_ops import Pairs, decode, encode


def squared_error(y: Float[Tensor, "tokens d_in"], y_hat: Float[Tensor, "tokens d_in"]) -> Float[Tensor, ""]:
    """Mean over tokens of ||y - y_hat||^2."""
    return (y - y_hat).square().sum() / len(y)


@dataclass(frozen=True, kw_only=True)
class AuxK:
    """Let the silent latents explain what the others left over (Gao et al. 2024; paper A.2).

    Of the latents that have been silent for `dead_after_tokens`, each token takes the `k_aux` with the largest
    pre-activations, ReLU'd, and the loss is their error on the residual, over the residual's variance. The residual
    carries no gradient. As the codes pass a ReLU, dead-by-ReLU latents get no gradient: AuxK cannot revive them.
    """

    coefficient: float = 1 / 32
    dead_after_tokens: int = 256_000
    k_aux: int | None = None
    """Latents per token; None for d_in / 2."""

    def loss(
        self,
        sae: SAE,
        y: Float[Tensor, "tokens d_in"],
        y_hat: Float[Tensor, "tokens d_in"],
        pre: Float[Tensor, "tokens d_sae"],
        dead: Bool[Tensor, "d_sae"],
    ) -> Float[Tensor, ""]:
        """coefficient * ||residual - explained||^2 / ||residual - its mean||^2; 0 where no latent is silent."""
        silent = dead.nonzero()[:, 0]
        if not len(silent):
            return y.new_zeros(())
        residual = (y - y_hat).detach()
        k_aux = min(self.k_aux or sae.d_in // 2, len(silent))
        chosen, places = torch.topk(pre[:, silent], k_aux, dim=1, sorted=False)
        pairs = Pairs.of_matrix(silent[places], sae.d_sae)
        centered = (y - sae.b_dec).detach()
        codes = encode(chosen.flatten(), centered, pairs, sae.W_enc, sae.b_enc, sae.b_dec).relu()
        explained = decode(codes, pairs, sae.W_dec)
        variance = (residual - residual.mean(dim=0)).square().sum()
        tiny = torch.finfo(variance.dtype).tiny
        return self.coefficient * (residual - explained).square().sum() / variance.clamp_min(tiny)
