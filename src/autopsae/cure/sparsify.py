"""The cure in sparsify's own training: its coders are set up in place, and trained by it as before."""

from collections.abc import Mapping
from typing import Any

import torch

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
from autopsae.remedies.affine import Affine

_CURED = "autopsae"
"""A name for what is fine-tuned: a trainer with one leaves `b_dec` as it is at the first batch."""


@torch.no_grad()
def cure_sparsify(trainer: Any, prescriptions: Mapping[str, Prescription]) -> Any:
    """Set up the coders of a sparsify `Trainer` before `fit()` (and before `load_state()`), by the name of their
    hookpoint; the same trainer is returned.

    A coder maps the activations as prescribed (scale, centre, whitening) before it encodes them, and its output
    back. `b_dec` starts at zero, which is the centre (the first batch does not put its mean in the place: the
    trainer is told that it fine-tunes), and learns as prescribed. Rows begin in the prescribed subspace, and those
    of the encoder with the prescribed length. What is saved are weights for raw activations; `coder(x)` takes raw
    ones too, `coder.encode` mapped ones.

    Every coder needs a prescription, as that word holds for all. Raises InputError for a coder without one, an
    unknown name, a transcoder or a skip connection, another width, a `b_dec` that shall act after the decoder
    alone, micro_acc_steps over 1 (whose pieces share the variance of raw tokens), and a trainer that is cured
    already or has loaded a state.
    """
    if set(prescriptions) != set(trainer.saes):
        raise InputError(
            f"cure: expected a prescription for each of {', '.join(trainer.saes)}, got {', '.join(prescriptions)}"
        )
    if trainer.global_step > 0:
        raise InputError(
            f"cure: expected a fresh trainer, got one at step {trainer.global_step:,}; cure it before load_state()"
        )
    if trainer.cfg.finetune == _CURED:
        raise InputError("cure: expected a trainer that is not cured yet, got one that is; make a new one")
    if trainer.cfg.micro_acc_steps > 1:
        raise InputError(f"cure: expected micro_acc_steps = 1, got {trainer.cfg.micro_acc_steps}")
    affines = {name: _check(coder, name, prescriptions[name]) for name, coder in trainer.saes.items()}
    for name, coder in trainer.saes.items():
        for weight in (coder.W_dec, coder.encoder.weight):
            weight.copy_(rows_within(prescriptions[name], weight))
        set_encoder_length(prescriptions[name], coder.encoder.weight)
        _map_around(coder, place(affines[name], coder.W_dec))
        store_for_raw_tokens(coder, affines[name])
        for optimizer in trainer.optimizers:
            steps = getattr(optimizer, "base", optimizer)  # that of the schedule-free one
            teach_bias(
                steps,
                coder.b_dec,
                prescriptions[name].bias,
                lambda: trainer.global_step // trainer.cfg.grad_acc_steps,
            )
            teach_encoder(steps, [*coder.encoder.parameters()], prescriptions[name])
    trainer.cfg.finetune = _CURED
    return trainer


def _check(coder: Any, name: str, prescription: Prescription) -> Affine:
    if coder.cfg.transcode or coder.W_skip is not None:
        what = "a transcoder" if coder.cfg.transcode else "a skip connection"
        raise InputError(f"cure: {name}: expected an autoencoder, got {what}")
    refuse_decoder_only(prescription.bias, "sparsify")
    return token_map(prescription, coder.d_in)


def _map_around(coder: Any, affine: Affine) -> None:
    """Raw activations in, raw reconstructions out. The error is measured between them, against the variance of the
    mapped activations instead of the raw ones that the trainer passes on.
    """

    def enter(_coder: Any, args: Any, options: dict[str, Any]) -> Any:
        mapped = [affine(x.to(coder.dtype)) for x in args]
        names = {n: affine(options[n].to(coder.dtype)) for n in ("x", "y") if options.get(n) is not None}
        return tuple(mapped), {**options, **names, "total_variance": None}

    def leave(_coder: Any, _args: Any, output: Any) -> Any:
        return output._replace(sae_out=affine.invert(output.sae_out))

    coder.register_forward_pre_hook(enter, with_kwargs=True)
    coder.register_forward_hook(leave)
