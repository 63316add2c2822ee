"""SAELens' folders, of its versions 5 and 6 and older ones with the same files: `cfg.json`,
`sae_weights.safetensors`.

Checkpoints of its training add `activation_scaler.json` and `activation_whitening.safetensors`, which SAELens
applies outside of the SAE; here they are part of it. W_enc is [d_in, d_sae], W_dec [d_sae, d_in].
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import write_tensors, write_text
from autopsae.interop.checks import DTYPES, expect, fit_sparsity, positive, take_tensors, whole
from autopsae.interop.plain import Plain, scale_map, unbias_map
from autopsae.interop.reading import read_safetensors
from autopsae.reading import read_object
from autopsae.remedies.affine import Affine
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.words import show

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
FACTORS = ("scaling_factor", "finetuning_scaling_factor")
"""What fine-tuning learned to multiply codes with, by its two names."""
VERSION = "6.54.12"
"""Of SAELens, whose format `write` writes."""

REASONS = {
    "gated": "its gate has weights of its own",
    "matryoshka_batchtopk": "its nested groups; save_inference_model writes it as a jumprelu, which can be read",
    "abstopk": "its codes may be negative",
    "matching_pursuit": "it selects latents one after another",
    "temporal": "its codes depend on earlier tokens",
}


def read(folder: Path, *, scale: float | None = None) -> SAE:
    """The SAE in a folder, on raw tokens: the same codes and reconstructions as SAELens'.

    scale: what SAELens' trainer multiplied tokens with (`expected_average_only_in`), where no file says it.

    With `rescale_acts_by_decoder_norm` the norms become part of the encoder, as SAELens' codes contain them. With
    `layer_norm`, SAELens divides by std + 1e-5 where ours divides by std, so that codes differ by a share of
    1e-5 / std. What a checkpoint's scaler or whitening does before the SAE becomes its affine map; without these
    files tokens are taken as they are, as SAELens does.

    Raises InputError for what cannot be carried over, and for files that are damaged or do not fit together.
    """
    path = folder / CONFIG
    settings = _modern(read_object(path), path)
    d_in, d_sae = whole(settings, "d_in", path), whole(settings, "d_sae", path)
    sparsity = _sparsity(settings, d_sae, path)
    dtype = expect(
        {"dtype": str(settings.get("dtype", "float32")).removeprefix("torch.")}, "dtype", None, DTYPES, path
    )
    expect(settings, "reshape_activations", "none", ["none", "hook_z"], path)
    normalization = expect(
        settings,
        "normalize_activations",
        "none",
        ["none", "expected_average_only_in", "layer_norm", "covariance_whitening"],
        path,
    )
    subtracts = expect(settings, "apply_b_dec_to_input", True, [True, False], path)
    by_norm = expect(settings, "rescale_acts_by_decoder_norm", False, [True, False], path)
    is_finetuned = expect(settings, "finetuning_scaling_factor", False, [True, False, None], path)
    plain = _plain(folder / WEIGHTS, d_in, d_sae, sparsity, is_finetuned=bool(is_finetuned))
    if by_norm and isinstance(sparsity, TopK | BatchTopK):
        plain = plain.unit()
    if not subtracts:
        plain = plain.add_centering()
    affine = _outside(folder, d_in)
    if scale is not None:
        if normalization != "expected_average_only_in" or affine.scale != 1:
            raise InputError(
                f"{path}: expected no scale, as its files say how tokens are scaled ({normalization}), got {scale}"
            )
        affine = scale_map(d_in, scale)
    if normalization == "layer_norm":
        if affine.scale != 1 or affine.linear is not None:
            raise InputError(
                f"{folder / SCALER}: expected no scaler before layer_norm, got one; remove one of them"
            )
        affine = affine.then(unbias_map(d_in))
    return plain.sae(
        sparsity=sparsity, dtype=DTYPES[dtype], affine=affine, layer_norm=normalization == "layer_norm"
    )


def scales_by_average(folder: Path) -> bool:
    """Whether the files in a folder say that tokens are scaled by an average norm, and not by how much."""
    if not (folder / CONFIG).is_file() or (folder / SCALER).exists():
        return False
    settings = _modern(read_object(folder / CONFIG), folder / CONFIG)
    return settings.get("normalize_activations") == "expected_average_only_in"


def _modern(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Settings by the names of version 6; version 5 said top-k by an activation function."""
    settings = {"architecture": "standard", **settings}
    function = settings.get("activation_fn", settings.get("activation_fn_str", "relu"))
    if function == "topk":
        options = settings.get("activation_fn_kwargs")
        settings["architecture"] = "topk"
        settings.setdefault("k", options.get("k") if isinstance(options, dict) else None)
    elif settings["architecture"] == "standard":
        expect({"activation_fn": function}, "activation_fn", "relu", ["relu"], path)
    normalize = settings.get("normalize_activations")
    if normalize is None or isinstance(normalize, bool):
        settings["normalize_activations"] = "expected_average_only_in" if normalize else "none"
    return settings


def _sparsity(settings: dict[str, Any], d_sae: int, path: Path) -> Sparsity:
    name = settings["architecture"]
    if name == "topk":
        return fit_sparsity(TopK(k=whole(settings, "k", path)), d_sae, path)
    if name == "batchtopk":
        return fit_sparsity(BatchTopK(k=whole(settings, "k", path)), d_sae, path)
    if name in ("standard", "jumprelu"):
        return ReLU() if name == "standard" else JumpReLU()
    reason = REASONS.get(name) if isinstance(name, str) else None
    if isinstance(name, str) and "transcoder" in name:
        reason = "it reconstructs other activations than it reads"
    raise InputError(
        f"{path}: expected an architecture of topk, batchtopk, standard or jumprelu, got {show(name)}"
        + (f": {reason}" if reason else "")
    )


def _plain(path: Path, d_in: int, d_sae: int, sparsity: Sparsity, *, is_finetuned: bool) -> Plain:
    tensors = dict(read_safetensors(path))
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_in),
        "b_enc": (d_sae,),
        "b_dec": (d_in,),
    }
    if isinstance(sparsity, JumpReLU):
        shapes["log_threshold" if "log_threshold" in tensors else "threshold"] = (d_sae,)
    if isinstance(sparsity, BatchTopK):
        shapes["topk_threshold"] = ()
    factor = next((name for name in FACTORS if name in tensors), None)
    if factor:
        shapes[factor] = (d_sae,)
    weights = take_tensors(tensors, shapes, path)
    # Up to version 5: codes are multiplied by it before they are decoded. Many files hold ones that nobody uses.
    factors = weights[factor] if factor else torch.ones(d_sae, dtype=torch.float64, device="cpu")
    if not is_finetuned and not bool((factors == 1).all()):
        raise InputError(
            f"{path}: {factor}: expected ones, as cfg.json says finetuning_scaling_factor false, got other values; "
            "correct cfg.json if the SAE was fine-tuned"
        )
    threshold = weights.get("threshold")
    if "log_threshold" in weights:
        threshold = weights["log_threshold"].exp()
    if "topk_threshold" in weights and weights["topk_threshold"] > 0:  # 0 until SAELens has learned one
        threshold = weights["topk_threshold"]
    W_enc, W_dec, b_enc, b_dec = weights["W_enc"].T, weights["W_dec"], weights["b_enc"], weights["b_dec"]
    return Plain(W_enc=W_enc, W_dec=W_dec * factors[:, None], b_enc=b_enc, b_dec=b_dec, threshold=threshold)


def _outside(folder: Path, d_in: int) -> Affine:
    """What SAELens' trainer does with tokens before they reach the SAE: z = (factor x - mean) M."""
    path = folder / SCALER
    affine = Affine.identity(d_in)
    if not path.exists():
        return affine
    settings = read_object(path)
    if settings.get("scaling_factor") is not None:
        affine = replace(affine, scale=positive(settings, "scaling_factor", path))
    if settings.get("has_whitening") is True and not (folder / WHITENING).exists():
        raise InputError(f"{path}: expected {WHITENING} beside it, got none; get the whole checkpoint")
    if settings.get("has_whitening", True) and (folder / WHITENING).exists():
        shapes = {"mean": (d_in,), "matrix": (d_in, d_in), "inverse_matrix": (d_in, d_in)}
        maps = take_tensors(read_safetensors(folder / WHITENING), shapes, folder / WHITENING)
        whitening = Affine(center=maps["mean"], linear=maps["matrix"].T, inverse=maps["inverse_matrix"].T)
        affine = affine.then(whitening)
    return affine


def write(sae: SAE, folder: Path, *, model_name: str | None = None, hook_name: str | None = None) -> None:
    """Write an SAE that SAELens loads, with the same codes and reconstructions (under layer_norm as nearly as
    `read` says). BatchTopK becomes a jumprelu with one threshold, as SAELens itself does it.

    model_name, hook_name: where its tokens come from, as SAELens names them.
    Raises InputError for a sparsity that SAELens has not.
    """
    before = None
    if sae.layer_norm:
        before = scale_map(sae.d_in, 1 / unbias_map(sae.d_in).scale)
    name, extra, threshold = _architecture(sae)
    plain = Plain.of(sae, before)
    tensors = {"W_enc": plain.W_enc.T, "W_dec": plain.W_dec, "b_enc": plain.b_enc, "b_dec": plain.b_dec}
    if threshold is not None:
        tensors["threshold"] = threshold.detach().expand(sae.d_sae)
    dtype = sae.W_enc.dtype
    stored = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    settings = {
        "architecture": name,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        **extra,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "layer_norm" if sae.layer_norm else "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": VERSION, "model_name": model_name, "hook_name": hook_name},
    }
    write_tensors(folder / WEIGHTS, stored)
    write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")


def _architecture(sae: SAE) -> tuple[str, dict[str, Any], Tensor | None]:
    """(SAELens' name, the settings that only this one has, its thresholds)."""
    if isinstance(sae.sparsity, TopK):
        return "topk", {"k": sae.sparsity.k, "rescale_acts_by_decoder_norm": False}, None
    if isinstance(sae.sparsity, ReLU):
        return "standard", {}, None
    if not isinstance(sae.sparsity, BatchTopK | JumpReLU):
        other = "sparsify" if isinstance(sae.sparsity, GroupMax) else "autopsae"
        raise InputError(
            f"SAELens: expected topk, batch_topk, relu or jumprelu, got {sae.sparsity.name}; write it to {other}"
        )
    if sae.threshold is None:
        raise InputError(
            "SAELens: expected a BatchTopK SAE that has learned its threshold, got one that has not; train it first"
        )
    return "jumprelu", {}, sae.threshold
