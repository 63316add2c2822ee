"""The cure in sparsify's own training: its coders are set up in place, and trained by it as before."""

from collections.abc import Mapping
from typing import Any

import torch

from autopsae.arrays import InputError
from autopsae.cure.prescribed import check_prescription, rows_within
from autopsae.diagnosis.prescribe import Prescription


@torch.no_grad()
def cure_sparsify(trainer: Any, prescriptions: Mapping[str, Prescription]) -> Any:
    """Set up the coders of a sparsify `Trainer` before `fit()`, by the name of their hookpoint; the same trainer is
    returned. Its first batch does not put its mean in the place of ours (the trainer is told that it fine-tunes).

    Every coder needs a prescription, as that word holds for all. Raises InputError for a coder without one, an
    unknown name, a transcoder, another width, and for whitening, for which this trainer has no place: its
    activations never leave its hooks.
    """
    if set(prescriptions) != set(trainer.saes):
        raise InputError(
            f"cure: expected a prescription for each of {', '.join(trainer.saes)}, got {', '.join(prescriptions)}"
        )
    for name, coder in trainer.saes.items():
        prescription = prescriptions[name]
        check_prescription(prescription, coder.d_in)
        if coder.cfg.transcode or prescription.remedy.affine.linear is not None:
            what = "a transcoder" if coder.cfg.transcode else "whitening"
            raise InputError(
                f"cure: {name}: expected an autoencoder and a centre or a subspace, got {what}; center alone: "
                "center_only(prescription)"
            )
        if prescription.remedy.subspace is not None:
            for weight in (coder.W_dec, coder.encoder.weight):
                weight.copy_(rows_within(prescription, weight))
        coder.b_dec.copy_(prescription.b_dec.to(coder.b_dec))
    trainer.cfg.finetune = trainer.cfg.finetune or "autopsae"
    return trainer
