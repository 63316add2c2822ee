"""The prescription that an autopsy has for the next SAE of the layer: b_dec at the tokens' centre."""

from typing import Any

import torch

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.evaluation.result import Autopsy
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy
from autopsae.sae.model import SAE


@torch.no_grad()
def fresh_start(sae: SAE, autopsy: Autopsy, *, layer: str) -> Prescription:
    """Start anew with b_dec at the centre that the autopsy has measured, brought back to raw tokens through the
    SAE's affine map: raw = A^-1 center / scale + center of the map. A whitening of the SAE is kept. It carries no
    scale, so `born` needs a sample.

    Raises InputError for another SAE than the one examined, and under layer_norm, where the centre is one of
    normalised tokens.
    """
    check_raw(sae)
    if autopsy.center.shape != sae.b_dec.shape or autopsy.d_sae != sae.d_sae:
        raise InputError(
            f"fresh_start: expected the SAE that was examined, of d_in = {autopsy.d_in} and "
            f"d_sae = {autopsy.d_sae}, got {sae.d_in} and {sae.d_sae}"
        )
    affine = sae.affine
    raw = affine.invert(autopsy.center[None])[0]
    whitened = affine.linear is not None
    options: dict[str, Any] = {"linear": affine.linear, "inverse": affine.inverse} if whitened else {}
    remedy = Remedy(
        name="whiten_as_before" if whitened else "median",
        instruction="center by the median" + (" and whiten as this SAE does" if whitened else ""),
        affine=Affine(center=raw, **options),
    )
    return Prescription(
        remedy=remedy,
        reason=f"{autopsy.causes['shift']:,} of {autopsy.d_sae:,} latents of an SAE of this layer are dead of the "
        f"shift on {autopsy.tokens:,} tokens (autopsy)",
        layer=layer,
        d_sae=autopsy.d_sae,
        sparsity=sae.sparsity,
    )


def check_raw(sae: SAE) -> None:
    """InputError for an SAE whose centre is not one of raw tokens: to be known before the work, not after."""
    if sae.layer_norm:
        raise InputError(
            "prescription: expected an SAE of raw tokens, got layer_norm = True, whose centre is one of normalised "
            'tokens; autopsae train with {"layer_norm": true} in its --config FILE starts there'
        )
