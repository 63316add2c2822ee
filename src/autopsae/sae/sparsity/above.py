"""All pairs over a threshold: what ReLU, JumpReLU and BatchTopK select."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.kernels import choose
from autopsae.kernels.pairs import Pairs
from autopsae.sae.selection import Chosen, Product


def above(product: Product, threshold: Float[Tensor, "members d_sae"]) -> Chosen:
    """The pairs whose pre-activation is over their latent's threshold, which must not be negative."""
    threshold, (members, _, d_sae) = threshold.contiguous(), product.shape
    parts = []
    for block in product:
        m = block.members
        parts.append(choose.above(block.rows, product.biases(m), threshold[m], product.positive[m]))
    values, latents, counts = (torch.cat([part[i] for part in parts]) for i in range(3))
    pairs = Pairs(latents=latents, per_token_counts=counts, d_sae=d_sae, members=members)
    if members == 1:
        return values, pairs
    firsts = d_sae * torch.arange(members, device=latents.device)
    return values, replace(pairs, latents=latents + pairs.spread(firsts))
