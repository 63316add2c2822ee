"""An SAE as it is born: rows drawn, b_dec and affine map from a prescription or any remedy."""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.arrays import InputError
from autopsae.diagnosis.birth import draw_rows
from autopsae.diagnosis.prescribe import Prescription
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import Sparsity


def born(
    remedy: Remedy | Prescription,
    *,
    d_sae: int,
    sparsity: Sparsity,
    sample: Float[Tensor, "sample d_in"] | None,
    generator: torch.Generator,
    encoder_bias: bool = False,
    dtype: torch.dtype = torch.float32,
) -> SAE:
    """A freshly drawn SAE under a remedy: unit rows uniform on the sphere (in the remedy's subspace, if it has
    one), W_dec = W_enc, b_enc = 0 if wanted (paper A.2).

    Where the remedy only centers, its centre becomes `b_dec`; otherwise it becomes the SAE's affine map. sample:
    some raw tokens, to scale the layer so that the median norm of the tokens, as the SAE sees them, is sqrt(d_in):
    learning rates then mean the same on every layer. None leaves the scale as it is (the paper's setting).

    Raises InputError for a sample of another width or of zero tokens only, and for k outside 1 ... d_sae.
    """
    sparsity.check(d_sae)
    d_in = len(remedy.affine.center)
    W = draw_rows(d_sae, d_in, generator=generator, dtype=dtype)
    if remedy.subspace is not None:
        basis = remedy.subspace.to(W)
        W = normalize((W @ basis.T) @ basis, dim=1)
    only_centers = remedy.affine.linear is None
    seen = Affine.identity(d_in) if only_centers else remedy.affine
    scale = 1.0 if sample is None else _scale(seen, sample)
    affine = Affine(center=seen.center, linear=seen.linear, inverse=seen.inverse, scale=scale)
    start = affine(remedy.affine.center[None])[0] if only_centers else torch.zeros(d_in)
    return SAE(
        W_enc=W,
        W_dec=W,
        b_dec=start.to(W),
        b_enc=W.new_zeros(d_sae) if encoder_bias else None,
        sparsity=sparsity,
        affine=affine,
    )


def _scale(affine: Affine, sample: Tensor) -> float:
    d_in = len(affine.center)
    if sample.ndim != 2 or sample.shape[1] != d_in:
        raise InputError(f"born: expected a sample [tokens, d_in = {d_in}], got shape {tuple(sample.shape)}")
    norm = float(affine(sample.double()).norm(dim=1).median())
    if norm == 0:
        raise InputError("born: expected a sample whose median token is not zero; check mask and hook point")
    return sqrt(d_in) / norm
