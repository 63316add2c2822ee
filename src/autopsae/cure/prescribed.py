"""What all cures need of a prescription: its map of the tokens, its rows, and how `b_dec` and the encoder learn."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.remedies.affine import Affine
from autopsae.remedies.view import within
from autopsae.training.bias import Bias


def token_map(prescription: Prescription, d_in: int) -> Affine:
    """x -> scale A (x - center), as prescribed: an SAE of such tokens starts with b_dec = 0. Where a prescription
    carries no scale, it is 1.

    Raises InputError unless the prescription is for tokens of `d_in` dimensions.
    """
    if prescription.d_in != d_in:
        raise InputError(f"cure: expected a prescription for d_in = {d_in}, got one for {prescription.d_in}")
    return replace(prescription.remedy.affine, scale=prescription.scale or 1.0)


def place(affine: Affine, weights: Tensor) -> Affine:
    """The same map on the device and in the type of `weights`: moved once, not at every batch."""
    linear, inverse = (None if A is None else A.to(weights) for A in (affine.linear, affine.inverse))
    return replace(affine, center=affine.center.to(weights), linear=linear, inverse=inverse)


def rows_within(prescription: Prescription, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "d_sae d_in"]:
    """The rows turned into the prescribed subspace, each as long as it was; W_dec if none is prescribed."""
    if prescription.remedy.subspace is None:
        return W_dec
    rows: Tensor = within(prescription.remedy.subspace, W_dec) * W_dec.norm(dim=1, keepdim=True)
    return rows


def set_encoder_length(prescription: Prescription, rows: Float[Tensor, "d_sae d_in"]) -> None:
    """Give the rows of an encoder the prescribed length, in place; without one, each stays as long as it is."""
    if prescription.encoder_scale != 1:
        rows.copy_(torch.nn.functional.normalize(rows, dim=1) * prescription.encoder_scale)


def teach_bias(optimizer: Any, b_dec: Tensor, bias: Bias, step: Callable[[], int]) -> None:
    """Let `b_dec` learn as prescribed under another library's optimizer. step: the number of the step that is
    taken, from 0.
    """
    if (bias.lr_fraction, bias.from_step, bias.until_step) != (1, 0, None):
        _slow_down(optimizer, [b_dec], lambda: bias.lr_fraction if bias.learns(step()) else 0.0)


def teach_encoder(optimizer: Any, weights: Sequence[Tensor | None], prescription: Prescription) -> None:
    """Let an encoder whose rows have the prescribed length turn as fast as one with rows of length 1, as
    `TrainConfig.relative_encoder_lr` does. weights: W_enc and b_enc, if there is one.
    """
    if prescription.encoder_scale != 1:
        there = [weight for weight in weights if weight is not None]
        _slow_down(optimizer, there, lambda: prescription.encoder_scale)


def _slow_down(optimizer: Any, weights: Sequence[Tensor], share: Callable[[], float]) -> None:
    """After each step of the optimizer, weights go back to where only this share of their move is left. The move of
    Adam or of the sign is proportional to the learning rate, so this is what a rate of their own would do.
    """
    before: list[Tensor] = []

    def remember(*_: Any) -> None:
        before[:] = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def go_back(*_: Any) -> None:
        # An optimizer whose step calls that of its parent class runs the hooks of both; the move is shortened once.
        for weight, start in zip(weights, before, strict=False):
            weight.copy_(start.lerp(weight, share()))
        before.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(go_back)


def refuse_decoder_only(bias: Bias, library: str) -> None:
    """InputError for a `b_dec` that shall act after the decoder alone, where a library has no place for it."""
    if bias.decoder_only:
        raise InputError(
            f"cure: expected a b_dec that acts before the encoder too, got {bias}, which {library} cannot train; "
            "train with autopsae or SAELens, or pass dataclasses.replace(prescription, bias=Bias())"
        )
