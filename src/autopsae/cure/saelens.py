"""The cure in SAELens' own training: its trainer is set up in place, and trains as before."""

from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.cure.prescribed import rows_within, set_encoder_length, teach_bias, teach_encoder, token_map
from autopsae.diagnosis.prescription import Prescription
from autopsae.remedies.affine import Affine

_MAPPED = "covariance_whitening"
"""SAELens' own word for tokens that pass through an affine map before the SAE, which is folded at the end."""


@torch.no_grad()
def cure_saelens(trainer: Any, prescription: Prescription) -> Any:
    """Set up a SAELens `SAETrainer` before `fit()`, or a `LanguageModelSAETrainingRunner` before `run()`; the same
    object is returned. The SAE is a fresh one of any architecture but matching pursuit.

    SAELens maps the tokens as prescribed (scale, centre, whitening), and folds the map into the weights at the end:
    the trained SAE takes raw tokens. `b_dec` starts at zero, which is the centre, and learns as prescribed. Rows
    begin in the prescribed subspace. Where latents compete for k places (a `cfg.k`), rows begin with length 1
    instead of SAELens' 0.1 (docs/interop.md shows why), and those of the encoder with the prescribed length.

    A trainer that went on from a checkpoint keeps its weights.

    Raises InputError for another width, for "layer_norm" and "constant_norm_rescale", which change every token by
    itself, for matching pursuit, into which SAELens can fold no map, and for a trainer that is cured already.
    """
    if hasattr(trainer, "run_trainer_with_interruption_handling"):
        _check(trainer.sae, prescription)
        train = trainer.run_trainer_with_interruption_handling
        # A runner makes its trainer when it runs, and hands it to this method.
        trainer.run_trainer_with_interruption_handling = lambda made: train(cure_saelens(made, prescription))
        return trainer
    sae, bias = trainer.sae, prescription.bias
    affine = _check(sae, prescription)
    if trainer.n_training_steps == 0:
        if trainer.activation_scaler.whitening is not None:
            raise InputError("cure: expected a trainer that is not cured yet, got one that is; make a new one")
        _start(sae, prescription)
    sae.cfg.normalize_activations = _MAPPED
    sae.cfg.apply_b_dec_to_input = sae.cfg.apply_b_dec_to_input and not bias.decoder_only
    trainer.activation_scaler = _scaler(affine)
    teach_bias(trainer.optimizer, sae.b_dec, bias, lambda: int(trainer.n_training_steps))
    if hasattr(sae.cfg, "k"):
        teach_encoder(trainer.optimizer, [sae.W_enc, getattr(sae, "b_enc", None)], prescription)
    return trainer


def _check(sae: Any, prescription: Prescription) -> Affine:
    normalization = sae.cfg.normalize_activations
    if normalization in ("layer_norm", "constant_norm_rescale"):
        raise InputError(
            f'cure: expected raw tokens, got normalize_activations="{normalization}"; set it to "none"'
        )
    if sae.cfg.architecture() == "matching_pursuit":
        raise InputError(
            "cure: expected an SAE into which SAELens can fold a map of the tokens, got matching_pursuit; train it "
            "on map_tokens(prescription, batches)"
        )
    return token_map(prescription, sae.cfg.d_in)


def _start(sae: Any, prescription: Prescription) -> None:
    rows: Tensor = rows_within(prescription, sae.W_dec)
    if hasattr(sae.cfg, "k"):
        # Selection is by size, and short rows grow: those that grow first would take the places of all others.
        rows = torch.nn.functional.normalize(rows, dim=1)
    sae.W_dec.copy_(rows)
    sae.W_enc.copy_(rows.T)
    if hasattr(sae.cfg, "k"):
        set_encoder_length(prescription, sae.W_enc.T)
    sae.b_dec.zero_()


def _scaler(affine: Affine) -> Any:
    """SAELens' own, in float64: it folds with it, and casts it to the tokens' type at every batch."""
    from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening

    eye = torch.eye(len(affine.center), dtype=torch.float64, device="cpu")
    linear, inverse = (eye if A is None else A.double().cpu() for A in (affine.linear, affine.inverse))
    maps = {"matrix": linear.T * affine.scale, "inverse_matrix": inverse.T / affine.scale}
    maps = {name: matrix.contiguous() for name, matrix in maps.items()}
    return ActivationScaler(whitening=ActivationWhitening(mean=affine.center.double(), **maps))
