"""The cure in another library's own training: its object is set up in place, and trained by it as before.

A centre becomes the start of `b_dec`, a subspace the span of the rows. Whitening changes the tokens themselves, so
it goes where a library lets tokens be mapped: SAELens' scaler, or the stream of activations before any other.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.diagnosis.prescribe import Prescription
from autopsae.interop.plain import Plain
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import within
from autopsae.sae.model import SAE

Sample = Float[Tensor, "sample d_in"]

_CENTERED_ANYWAY = "covariance_whitening"


@torch.no_grad()
def cure_saelens(sae: Any, prescription: Prescription, *, sample: Sample | None = None) -> Any:
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
    _check_width(prescription, sae.cfg.d_in)
    if normalization == "layer_norm":
        raise InputError('cure: expected raw tokens, got normalize_activations="layer_norm"; set it to "none"')
    if prescription.affine.linear is not None and normalization != _CENTERED_ANYWAY:
        raise InputError(
            f'cure: whitening is prescribed, expected normalize_activations="{_CENTERED_ANYWAY}", got '
            f'"{normalization}"; set it, and trainer.activation_scaler = saelens_scaler(prescription), or center '
            "alone: only_centered(prescription)"
        )
    if prescription.subspace is not None:
        if normalization == _CENTERED_ANYWAY:
            raise InputError(
                f'cure: a subspace of raw tokens is prescribed, got normalize_activations="{_CENTERED_ANYWAY}", '
                'whose tokens are in other coordinates; set it to "none"'
            )
        rows = _rows(prescription, sae.W_dec)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    if normalization != _CENTERED_ANYWAY:
        scale = 1.0
        if normalization == "expected_average_only_in":
            scale = sqrt(sae.cfg.d_in) / float(_needed(sample).float().norm(dim=1).mean())
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
    affine = prescription.affine
    if affine.linear is None or affine.inverse is None:
        raise InputError(f"saelens_scaler: expected a prescription of whitening, got {prescription.remedy!r}")
    try:
        from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
    except ImportError as error:
        raise InputError("saelens_scaler: pip install sae-lens first") from error
    matrix, inverse = affine.linear.T * affine.scale, affine.inverse.T / affine.scale
    named = {"mean": affine.center, "matrix": matrix, "inverse_matrix": inverse}
    # In float64: SAELens folds with it, and casts it to the tokens' type at every batch.
    return ActivationScaler(whitening=ActivationWhitening(**{n: t.double().contiguous() for n, t in named.items()}))


def cure_dictionary_learning(
    trainer: Any, prescription: Prescription, *, normalized_by: Sample | None = None
) -> Any:
    """The same trainer class of dictionary_learning, whose SAE starts as prescribed, for `trainer_configs` of
    `trainSAE`; its first step does not put the first batch's median in the place of ours.

    normalized_by: raw tokens, where trainSAE(normalize_activations=True) divides by sqrt(mean ||x||^2).

    Raises InputError for whitening: train on `mapped(prescription, data)`, with any trainer; and, once the SAE is
    made, for another width, and for a dictionary that subtracts no bias from tokens (AutoEncoderNew).
    """
    if prescription.affine.linear is not None:
        raise InputError(
            "cure: whitening is prescribed, which no trainer of dictionary_learning does; give it "
            "mapped(prescription, data), and unmapped(load_sae(folder), prescription) afterwards, or center alone: "
            "only_centered(prescription)"
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
    _check_width(prescription, decoder.shape[1])
    encoder = ae.encoder.weight.T if linear else ae.W_enc
    if prescription.subspace is not None:
        rows = _rows(prescription, decoder)
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
        _check_width(prescription, coder.d_in)
        if coder.cfg.transcode or prescription.affine.linear is not None:
            what = "a transcoder" if coder.cfg.transcode else "whitening"
            raise InputError(
                f"cure: {name}: expected an autoencoder and a centre or a subspace, got {what}; center alone: "
                "only_centered(prescription)"
            )
        if prescription.subspace is not None:
            for weight in (coder.W_dec, coder.encoder.weight):
                weight.copy_(_rows(prescription, weight))
        coder.b_dec.copy_(prescription.b_dec.to(coder.b_dec))
    trainer.cfg.finetune = trainer.cfg.finetune or "autopsae"
    return trainer


def only_centered(prescription: Prescription) -> Prescription:
    """The prescription without its whitening or subspace, where a library has no place for them: its centre. Most
    of what kills at birth is cured by it; what dies in training may not be.
    """
    affine = Affine(center=prescription.b_dec)
    return replace(prescription, remedy="median", advice="center by the median", affine=affine, subspace=None)


def mapped(prescription: Prescription, tokens: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tokens as they are after the prescribed map, batch by batch: what a library that has no whitening is to
    be trained on.
    """
    for batch in tokens:
        yield prescription.affine(batch)


def unmapped(sae: SAE, prescription: Prescription) -> SAE:
    """The SAE trained on `mapped` tokens, for raw ones: the map folded into plain weights.

    Raises InputError under layer_norm, and for an SAE that has a map of its own.
    """
    if sae.linear is not None or sae.scale != 1 or bool(sae.center.any()):
        raise InputError("unmapped: expected an SAE of plain weights; fold it first")
    if sae.layer_norm:
        raise InputError(
            "unmapped: expected an affine SAE, got layer_norm = True; no weights divide by a token's norm"
        )
    plain = Plain.of(sae, prescription.affine)
    return plain.sae(sparsity=sae.sparsity, dtype=sae.W_enc.dtype).train(sae.training)


def peek(batches: Iterable[Tensor], tokens: int) -> tuple[Float[Tensor, "tokens d_in"], Iterator[Tensor]]:
    """(the first `tokens` tokens of a stream, the whole stream from its start): a look at an iterator, such as
    dictionary_learning's ActivationBuffer, that takes nothing from the training. Batches of more dimensions are
    flattened for the look alone. Takes the memory of what it looks at.

    Raises InputError for a stream that ends before.
    """
    stream, seen, found = iter(batches), [], 0
    while found < tokens:
        batch = next(stream, None)
        if batch is None:
            raise InputError(f"peek: expected at least {tokens:,} tokens, the stream ended after {found:,}")
        seen.append(batch.clone())  # a stream may refill one buffer
        found += batch[..., 0].numel()

    def whole() -> Iterator[Tensor]:
        yield from seen
        yield from stream

    return torch.cat([batch.reshape(-1, batch.shape[-1]) for batch in seen])[:tokens], whole()


def _rows(prescription: Prescription, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "d_sae d_in"]:
    """The rows turned into the prescribed subspace, each as long as it was."""
    rows: Tensor = within(prescription.subspace, W_dec) * W_dec.norm(dim=1, keepdim=True)
    return rows


def _check_width(prescription: Prescription, d_in: int) -> None:
    if prescription.d_in != d_in:
        raise InputError(f"cure: expected a prescription for d_in = {d_in}, got one for {prescription.d_in}")


def _needed(sample: Sample | None) -> Sample:
    if sample is None:
        raise InputError(
            'cure: expected a sample of raw tokens under normalize_activations="expected_average_only_in", whose '
            "scale the bias needs; pass sample="
        )
    return sample
