"""An SAE as it is born: rows drawn, biases, thresholds and affine map from a prescription or any remedy."""

import warnings
from math import sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, matrix
from autopsae.diagnosis.prescribe import Prescription
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy, within
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, Sparsity, TopK
from autopsae.statistics.moments import layer_norm as normalized
from autopsae.survival.birth import draw_rows

UNNAMED = ("", "layer")
"""What the layer of a prescription is called where whoever diagnosed it gave no name."""

THRESHOLD = 0.1
"""Where JumpReLU's thresholds start, at least, in units of the scaled layer's pre-activations."""


@whole_arguments("d_sae")
def born(
    remedy: Remedy | Prescription,
    *,
    d_sae: int,
    sparsity: Sparsity,
    sample: Float[Tensor, "sample d_in"] | NDArray[Any] | None,
    generator: torch.Generator,
    encoder_bias: bool = False,
    firing_rate: float | None = None,
    scaled: bool = True,
    layer_norm: bool = False,
    dtype: torch.dtype = torch.float32,
) -> SAE:
    """A freshly drawn SAE under a remedy: unit rows uniform on the sphere (in the remedy's subspace, if it has
    one), W_dec = W_enc, b_enc = 0 if wanted (paper A.2).

    Where the remedy only centers, its centre becomes `b_dec`; otherwise it becomes the SAE's affine map.

    sample: some raw tokens, for all that is set from data: what a firing rate needs, and the scale of the layer, at
    which the median norm of the tokens, as the SAE sees them, is sqrt(d_in): learning rates then mean the same on
    every layer. It is 1 without a sample, or where `scaled` is False (the paper's setting).
    firing_rate: share of the sample on which each latent shall fire at birth. A ReLU SAE gets the encoder bias that
    does it (Conerly et al. 2025), TopK and BatchTopK one that makes each latent positive so often; JumpReLU gets
    thresholds, and a bias only for latents whose threshold would be under 0.1.
    layer_norm: normalise every token; the remedy is then one for normalised tokens, the sample is still raw.

    Raises InputError as `chunks` for a sample, and for one of another width, of zero tokens only, or so small or
    large that `dtype` cannot hold the scale; for k outside 1 ... d_sae, for a firing
    rate outside (0, 1) and one without a sample.
    """
    sparsity.check(d_sae)
    d_in = len(remedy.affine.center)
    tokens = _checked(sample, d_in, layer_norm)
    W = within(remedy.subspace, draw_rows(d_sae, d_in, generator=generator, dtype=dtype))
    only_centers = remedy.affine.linear is None
    seen = Affine.identity(d_in) if only_centers else remedy.affine
    scale = 1.0 if tokens is None or not scaled else _scale(seen, tokens, dtype)
    affine = Affine(center=seen.center, linear=seen.linear, inverse=seen.inverse, scale=scale)
    start = affine(remedy.affine.center[None])[0] if only_centers else torch.zeros(d_in)
    b_enc = W.new_zeros(d_sae) if encoder_bias else None
    threshold = torch.full((d_sae,), THRESHOLD) if isinstance(sparsity, JumpReLU) else None
    if firing_rate is not None:
        reached = _reached(affine, tokens, W, start, firing_rate)
        if threshold is not None:
            threshold = reached.clamp_min(THRESHOLD)
        b_enc = -reached if threshold is None else threshold - reached
    sae = SAE(
        W_enc=W,
        W_dec=W,
        b_dec=start.to(W),
        b_enc=b_enc,
        sparsity=sparsity,
        threshold=threshold,
        affine=affine,
        layer_norm=layer_norm,
    )
    if isinstance(remedy, Prescription) and (found := differences(remedy, sae)):
        said = f"born: the prescription was made for another SAE: {'; '.join(found)}; diagnose again for this one"
        warnings.warn(said, stacklevel=3)
    return sae


def made_for(prescription: Prescription) -> dict[str, Any]:
    """The layer and the SAE that a prescription was made for; a diagnosis is one for TopK."""
    names = ("remedy", "layer", "d_in", "d_sae", "k")
    return {**{name: getattr(prescription, name) for name in names}, "sparsity": TopK.name}


def differences(prescription: Prescription, sae: SAE, *, layer: str = "") -> list[str]:
    """In what an SAE that was born from a prescription is not the one that it was made for: "d_sae 128, here 64".

    What a diagnosis found for one layer, d_sae, k or sparsity need not hold for another. layer: on which the SAE is
    trained; layers without a name are not compared.
    """
    intended = made_for(prescription)
    here = {"d_sae": sae.d_sae, "k": getattr(sae.sparsity, "k", intended["k"]), "sparsity": sae.sparsity.name}
    if layer and prescription.layer not in UNNAMED:
        here = {"layer": layer, **here}
    return [f"{name} {intended[name]!r}, here {value!r}" for name, value in here.items() if value != intended[name]]


def _checked(sample: Tensor | NDArray[Any] | None, d_in: int, layer_norm: bool) -> Tensor | None:
    if sample is None:
        return None
    if not isinstance(sample, Tensor | np.ndarray) or sample.ndim != 2 or sample.shape[1] != d_in:
        got = f"shape {tuple(sample.shape)}" if isinstance(sample, Tensor | np.ndarray) else type(sample).__name__
        raise InputError(f"born: expected a sample [tokens, d_in = {d_in}], got {got}")
    tokens = matrix(sample)
    return normalized(tokens) if layer_norm else tokens


def _scale(affine: Affine, sample: Tensor, dtype: torch.dtype) -> float:
    norm = float(affine(sample.double()).norm(dim=1).median())
    if norm == 0:
        raise InputError("born: expected a sample whose median token is not zero; check mask and hook point")
    scale = sqrt(len(affine.center)) / norm
    limits = torch.finfo(dtype)
    if not limits.tiny <= scale <= limits.max:
        raise InputError(
            f"born: expected tokens whose scale {dtype} can hold, got a median norm of {norm:.3g}, for which it is "
            f"{scale:.3g}; multiply all tokens by a constant first"
        )
    return scale


def _reached(
    affine: Affine, sample: Tensor | None, W: Tensor, b_dec: Tensor, rate: float
) -> Float[Tensor, "d_sae"]:
    """What each latent's pre-activation exceeds on the share `rate` of the sample."""
    if sample is None or not 0 < rate < 1:
        missing = "no sample" if sample is None else str(rate)
        raise InputError(f"born: expected a firing_rate between 0 and 1 and a sample to set it on, got {missing}")
    if rate * len(sample) < 1:
        raise InputError(
            f"born: expected a firing_rate of at least one token of the sample, got {rate:g} of {len(sample):,}; "
            "pass a higher rate or a larger sample"
        )
    y = affine(sample.to(W)) - b_dec.to(W)
    rank = max(1, round((1 - rate) * len(y)))
    # Some latents at a time: [sample, d_sae] may be large.
    return torch.cat([(y @ rows.T).kthvalue(rank, dim=0).values for rows in W.split(1024)])
