"""The cure in dictionary_learning's own training: a trainer class whose SAE starts as prescribed."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.cure.prescribed import check_prescription, rows_within
from autopsae.diagnosis.prescribe import Prescription


def cure_dictionary_learning(
    trainer: Any, prescription: Prescription, *, normalized_by: Float[Tensor, "sample d_in"] | None = None
) -> Any:
    """The same trainer class of dictionary_learning, whose SAE starts as prescribed, for `trainer_configs` of
    `trainSAE`; its first step does not put the first batch's median in the place of ours.

    normalized_by: raw tokens, where trainSAE(normalize_activations=True) divides by sqrt(mean ||x||^2).

    Raises InputError for whitening: train on `map_tokens(prescription, data)`, with any trainer; and, once the SAE
    is made, for another width, and for a dictionary that subtracts no bias from tokens (AutoEncoderNew).
    """
    if prescription.remedy.affine.linear is not None:
        raise InputError(
            "cure: whitening is prescribed, which no trainer of dictionary_learning does; give it "
            "map_tokens(prescription, data), and unmap_sae(load_sae(folder), prescription) afterwards, or center "
            "alone: center_only(prescription)"
        )
    scale = 1.0 if normalized_by is None else 1 / float(normalized_by.float().square().sum(dim=1).mean().sqrt())

    class Cured(trainer):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            _set_dictionary(self.ae, prescription, scale)

        def update(self, step: int, *args: Any, **rest: Any) -> Any:
            """Step 0 is where b_dec would be overwritten; nothing else tells it from step 1."""
            return super().update(max(step, 1), *args, **rest)

    Cured.__name__ = Cured.__qualname__ = trainer.__name__
    return Cured


@torch.no_grad()
def _set_dictionary(ae: Any, prescription: Prescription, scale: float) -> None:
    """Any of its dictionaries: Linear layers or plain matrices, a bias at both ends or at the decoder alone."""
    linear = hasattr(ae, "encoder")
    decoder = ae.decoder.weight.T if linear else ae.W_dec
    check_prescription(prescription, decoder.shape[1])
    encoder = ae.encoder.weight.T if linear else ae.W_enc
    if prescription.remedy.subspace is not None:
        rows = rows_within(prescription, decoder)
        decoder.copy_(rows)
        encoder.copy_(rows.T)
    bias = next((getattr(ae, name) for name in ("b_dec", "bias", "decoder_bias") if hasattr(ae, name)), None)
    if bias is None:
        raise InputError(
            f"cure: expected a dictionary that subtracts a bias from tokens, got {type(ae).__name__}; take another "
            "dict_class"
        )
    center = (prescription.b_dec * scale).to(bias)
    bias.copy_(center)
    if not getattr(ae, "apply_b_dec_to_input", True):
        ae.b_enc.sub_(center @ encoder)
