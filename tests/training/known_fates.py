"""An SAE and tokens on which it is known who fires, who never wins and who is never positive."""

import torch
from torch import Tensor

from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK

ALIVE, BY_TOPK, BY_RELU = range(6), range(6, 9), range(9, 12)
D_IN, D_SAE = 8, 12


def sae_with_known_fates(*, bias: bool = False) -> tuple[SAE, Tensor]:
    """An SAE and tokens on which latents 0-5 fire, 6-8 are positive but never win, and 9-11 are never positive."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, D_IN, generator=generator, dtype=torch.float64) + 0.1
    W = torch.rand(12, D_IN, generator=generator, dtype=torch.float64)
    W[list(BY_TOPK)] *= 1e-3
    W[list(BY_RELU)] *= -1
    W_dec, b_dec = W / W.norm(dim=1, keepdim=True), torch.zeros(D_IN, dtype=torch.float64)
    b_enc = torch.zeros(D_SAE, dtype=torch.float64) if bias else None
    sae = SAE(W_enc=W, W_dec=W_dec, b_dec=b_dec, b_enc=b_enc, sparsity=TopK(k=3))
    with torch.no_grad():  # each of the six wins somewhere
        for latent in ALIVE:
            sae.W_enc[latent] = x[latent] * 3 / x[latent].norm()
    return sae, x


def reached(gradient: Tensor | None) -> list[int]:
    assert gradient is not None
    return [int(row) for row in (gradient.abs().sum(dim=1) > 0).nonzero()[:, 0]]


def dead(*latents: int) -> Tensor:
    """The latents as a mask."""
    mask = torch.zeros(D_SAE, dtype=torch.bool)
    mask[list(latents)] = True
    return mask
