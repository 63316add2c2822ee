"""The cure in dictionary_learning's own training: a trainer class whose SAE starts as prescribed."""

from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.cure.prescribed import (
    place,
    refuse_decoder_only,
    rows_within,
    set_encoder_length,
    teach_bias,
    teach_encoder,
    token_map,
)
from autopsae.cure.stored import store_for_raw_tokens
from autopsae.diagnosis.prescription import Prescription

_CENTERS = ("b_dec", "bias", "decoder_bias")


def cure_dictionary_learning(trainer: Any, prescription: Prescription) -> Any:
    """The same trainer class of dictionary_learning, cured, for `trainer_configs` of `trainSAE`.

    Its `update` takes raw tokens, and maps them as prescribed (scale, centre, whitening) before the dictionary sees
    them. The bias of the decoder starts at zero, which is the centre (the first step puts no median of the first
    batch in its place), and learns as prescribed. Rows begin in the prescribed subspace, those of the encoder of
    TopK and BatchTopK with the prescribed length. What `trainSAE` saves, and `ae.state_dict()` gives, are weights
    for raw tokens; `ae` itself takes mapped ones.

    Once the dictionary is made, InputError is raised for another width, for a bias that shall act after the decoder
    alone (but JumpReluTrainer's always does), and for trainSAE(normalize_activations=True): the prescription scales
    the tokens.
    """

    class Cured(trainer):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self._steps = 0
            affine, b_dec = token_map(prescription, self.ae.activation_dim), _bias_of(self.ae)
            _set_dictionary(self.ae, prescription)
            store_for_raw_tokens(self.ae, affine, centers=_subtracts_bias(self.ae))
            teach_bias(self.optimizer, b_dec, prescription.bias, lambda: self._steps)
            if hasattr(self.ae, "k"):
                teach_encoder(self.optimizer, [*self.ae.encoder.parameters()], prescription)
            self._affine = place(affine, b_dec)

        def update(self, step: int, activations: Tensor) -> Any:
            """Step 0 is where b_dec would be overwritten; nothing else tells it from step 1."""
            self._steps = step
            return super().update(max(step, 1), self._map(activations))

        def loss(self, x: Tensor, *args: Any, logging: bool = False, **rest: Any) -> Any:
            """trainSAE logs with raw tokens; within an update they are mapped already."""
            return super().loss(self._map(x) if logging else x, *args, logging=logging, **rest)

        def _map(self, x: Tensor) -> Tensor:
            return self._affine(x.to(self._affine.center)).to(x.dtype)

    Cured.__name__ = Cured.__qualname__ = trainer.__name__
    return Cured


@torch.no_grad()
def _set_dictionary(ae: Any, prescription: Prescription) -> None:
    """Any of its dictionaries: Linear layers or plain matrices."""
    if _subtracts_bias(ae):
        refuse_decoder_only(prescription.bias, "dictionary_learning")
    linear = hasattr(ae, "encoder")
    if linear and ae.encoder.bias is not None:
        ae.encoder.bias.zero_()  # AutoEncoder draws them at random, as large as scaled tokens' pre-activations
    if prescription.remedy.subspace is not None:
        decoder, encoder = (ae.decoder.weight.T, ae.encoder.weight.T) if linear else (ae.W_dec, ae.W_enc)
        rows = rows_within(prescription, decoder)
        decoder.copy_(rows)
        encoder.copy_(rows.T)
    if hasattr(ae, "k"):  # other penalties are set for codes of the usual size
        set_encoder_length(prescription, ae.encoder.weight)

    def refuse(_scale: float) -> None:
        raise InputError(
            "cure: expected raw tokens, got trainSAE(normalize_activations=True); leave it out, the prescription "
            "scales the tokens"
        )

    ae.scale_biases = refuse  # trainSAE calls it before the first step, and only under that setting


def _bias_of(ae: Any) -> Tensor:
    """AutoEncoderNew has a bias inside its decoder, a Linear layer."""
    bias: Tensor
    for name in _CENTERS:
        if hasattr(ae, name):
            bias = getattr(ae, name)
            return bias
    bias = ae.decoder.bias
    return bias


def _subtracts_bias(ae: Any) -> bool:
    """JumpReluAutoEncoder says so; AutoEncoderNew has no such bias."""
    return any(hasattr(ae, name) for name in _CENTERS) and getattr(ae, "apply_b_dec_to_input", True)
