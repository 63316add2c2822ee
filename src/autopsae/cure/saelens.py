"""The cure in SAELens' own training: its SAE is set up in place, and trained by it as before."""

from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.cure.prescribed import check_prescription, rows_within
from autopsae.diagnosis.prescribe import Prescription
from autopsae.extras import package_error

_CENTERED_ANYWAY = "covariance_whitening"


@torch.no_grad()
def cure_saelens(
    sae: Any, prescription: Prescription, *, sample: Float[Tensor, "sample d_in"] | None = None
) -> Any:
    """Set up a fresh SAELens `TrainingSAE` of any architecture, for `override_sae=` or `SAETrainer`; the same
    object is returned.

    sample: raw tokens, needed under normalize_activations="expected_average_only_in", where `b_dec` lives in tokens
    of mean norm sqrt(d_in). Under "covariance_whitening" SAELens centers itself and b_dec stays zero; a
    prescription of whitening needs that setting, and `saelens_scaler` beside it.

    Raises InputError for another width, whitening without that setting, a subspace with it (its tokens are in
    principal coordinates), "layer_norm" (a raw centre means nothing there), a missing sample, and an encoder
    without a bias under apply_b_dec_to_input=False.
    """
    normalization = sae.cfg.normalize_activations
    check_prescription(prescription, sae.cfg.d_in)
    if normalization == "layer_norm":
        raise InputError('cure: expected raw tokens, got normalize_activations="layer_norm"; set it to "none"')
    if prescription.remedy.affine.linear is not None and normalization != _CENTERED_ANYWAY:
        raise InputError(
            f'cure: whitening is prescribed, expected normalize_activations="{_CENTERED_ANYWAY}", got '
            f'"{normalization}"; set it, and trainer.activation_scaler = saelens_scaler(prescription), or center '
            "alone: center_only(prescription)"
        )
    if prescription.remedy.subspace is not None:
        if normalization == _CENTERED_ANYWAY:
            raise InputError(
                f'cure: a subspace of raw tokens is prescribed, got normalize_activations="{_CENTERED_ANYWAY}", '
                'whose tokens are in other coordinates; set it to "none"'
            )
        rows = rows_within(prescription, sae.W_dec)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    if normalization != _CENTERED_ANYWAY:
        scale = 1.0
        if normalization == "expected_average_only_in":
            scale = sqrt(sae.cfg.d_in) / float(_need_sample(sample).float().norm(dim=1).mean())
        center = (prescription.b_dec * scale).to(sae.b_dec)
        sae.b_dec.copy_(center)
        if not sae.cfg.apply_b_dec_to_input:
            _shift_encoder(sae, center @ sae.W_enc)
    return sae


def _shift_encoder(sae: Any, shift: Float[Tensor, "d_sae"]) -> None:
    """What b_dec does at the input, put into the encoder's biases; a gate has two."""
    if getattr(sae, "b_enc", None) is not None:
        sae.b_enc.sub_(shift)
    elif hasattr(sae, "b_gate"):
        sae.b_gate.sub_(shift)
        sae.b_mag.sub_(shift * sae.r_mag.exp())
    else:
        raise InputError(
            "cure: expected an encoder with a bias under apply_b_dec_to_input=False, got "
            f"{type(sae).__name__}; set it to True"
        )


def saelens_scaler(prescription: Prescription) -> Any:
    """SAELens' `ActivationScaler` with the prescribed whitening instead of its own, to be set on an `SAETrainer`
    before `fit()`: it keeps what it finds there, and folds it into the weights at the end.

    Raises InputError where sae-lens is not installed, and where no whitening is prescribed.
    """
    affine = prescription.remedy.affine
    if affine.linear is None or affine.inverse is None:
        raise InputError(f"saelens_scaler: expected a prescription of whitening, got {prescription.remedy.name!r}")
    try:
        from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
    except ImportError as error:
        raise package_error("saelens_scaler", "sae_lens", error, install="sae-lens") from error
    matrix, inverse = affine.linear.T * affine.scale, affine.inverse.T / affine.scale
    named = {"mean": affine.center, "matrix": matrix, "inverse_matrix": inverse}
    # In float64: SAELens folds with it, and casts it to the tokens' type at every batch.
    return ActivationScaler(whitening=ActivationWhitening(**{n: t.double().contiguous() for n, t in named.items()}))


def _need_sample(sample: Float[Tensor, "sample d_in"] | None) -> Float[Tensor, "sample d_in"]:
    if sample is None:
        raise InputError(
            'cure: expected a sample of raw tokens under normalize_activations="expected_average_only_in", whose '
            "scale the bias needs; pass sample="
        )
    return sample
