"""How many of the true directions an SAE has found, where they are known: on synthetic tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError


def unit_rows(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
    """Each row over its length, however short or long it is; a row of zeros stays one."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    rows = rows / largest.where(largest > 0, 1)  # whose squares neither vanish nor overflow
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).where(largest > 0, 1)
    return unit


@torch.no_grad()
def mmcs(W_dec: Float[Tensor, "d_sae d_in"], features: Float[Tensor, "n_features width"]) -> float:
    """Mean max cosine similarity: for each true direction the largest cosine with any decoder row, averaged.

        mean_j max_i  W_dec_i . f_j / (||W_dec_i|| ||f_j||)

    In [-1, 1]; 1 where every feature has a row along it, whatever the other rows do. Random unit rows are not at 0:
    the largest of many cosines is well over it (about 0.35 for 100 rows in 50 dimensions). A zero row or feature
    has cosine 0 with everything. In float64.

    Raises InputError for two widths and for an empty matrix.
    Source: Sharkey, Braun and Millidge 2022; Simon, Adams and Zou 2026, A.3.
    """
    if W_dec.shape[1] != features.shape[1] or not W_dec.numel() or not features.numel():
        raise InputError(
            f"mmcs: expected W_dec [d_sae, d_in] and features [n_features, d_in] of one width, neither empty, got "
            f"shapes {tuple(W_dec.shape)} and {tuple(features.shape)}; pass the raw-space rows (sae.fold().W_dec)"
        )
    rows, directions = (unit_rows(matrix.double()) for matrix in (W_dec, features.to(W_dec.device)))
    return float((directions @ rows.T).amax(dim=1).mean())
