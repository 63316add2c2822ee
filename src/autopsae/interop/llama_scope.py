"""The folders of OpenMOSS: Llama Scope (`hyperparams.json`, `checkpoints/final.safetensors`) and what their library
llamascopium, earlier lm-saes, saves (`config.json`, `sae_weights.safetensors`).

Tokens are multiplied by sqrt(d_in) / their average norm first, and reconstructions divided by it (`dataset-wise`).
With `sparsity_include_decoder_norm` a latent is chosen by its pre-activation times the norm of its decoder row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.interop.checks import dtype_of, expect, fit_sparsity, positive, sizes, take_tensors, whole
from autopsae.interop.plain import Plain, scale_map
from autopsae.interop.reading import read_safetensors
from autopsae.reading import as_object, read_object
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.words import show

HYPERPARAMS, CHECKPOINT = "hyperparams.json", "checkpoints/final.safetensors"
CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"
NORM = "dataset_average_activation_norm"
THRESHOLDS = ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")
LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight", "b_dec": "decoder.bias"}
SHORT = {"W_enc": "W_E", "b_enc": "b_E", "W_dec": "W_D", "b_dec": "b_D"}


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What both kinds of configuration say in the same words."""

    path: Path
    hook: str
    """Where the tokens come from."""
    is_scaled: bool
    """Tokens are multiplied by sqrt(d_in) / their average norm."""
    by_norm: bool
    subtracts: bool
    """The encoder takes tokens minus b_dec."""
    has_b_dec: bool
    sparsity: Sparsity


def read_scope(folder: Path) -> SAE:
    """An SAE of Llama Scope, as SAELens' loader reads it: the one threshold is in the unit of raw tokens, codes in
    that of the scaled ones. Where decoder rows are not of norm 1, `sparsity_include_decoder_norm` is obeyed here.

    Raises InputError for transcoders, gated encoders, norms of each token, and for damaged files.
    """
    path = folder / HYPERPARAMS
    values = read_object(path)
    settings = _settings(values, path)
    tensors = read_safetensors(folder / CHECKPOINT)
    plain, dtype = _plain(tensors, LINEAR, settings, folder / CHECKPOINT, ignored=_norms(tensors))
    d_sae, d_in = plain.W_enc.shape
    for name, size in (("d_model", d_in), ("d_sae", d_sae)):
        if whole(values, name, path) != size:
            raise InputError(f"{path}: {name}: expected that of the weights, {size}, got {values[name]}")
    scale = 1.0
    if settings.is_scaled:
        norms = as_object(values.get(NORM), path, f"an object {NORM}")
        if norms.get("out", norms.get("in")) != norms.get("in"):
            raise InputError(f"{path}: {NORM}: expected one norm for an SAE, got {show(norms)}, of a transcoder")
        scale = float(d_in**0.5 / positive(norms, "in", path))
    if isinstance(settings.sparsity, JumpReLU):
        threshold = positive(values, "jump_relu_threshold", path) * scale
        plain = replace(plain, threshold=plain.W_dec.new_full((d_sae,), threshold))
    return _sae(plain, settings, scale, dtype)


def read(folder: Path, *, scale: float | None = None) -> SAE:
    """An SAE that llamascopium 2 or its forerunner lm-saes saved; its thresholds are in the unit of scaled tokens.

    TopK and BatchTopK codes are larger than llamascopium's by the norms of the decoder rows where it chooses by
    them. BatchTopK has no threshold and judges its batch as a whole. scale: sqrt(d_in) / the average norm of the
    tokens, where the files lack it. Raises InputError as `read_scope`.
    """
    path = folder / CONFIG
    values = read_object(path)
    expect(values, "sae_type", "sae", ["sae"], path)
    settings = _settings(values, path)
    tensors = read_safetensors(folder / WEIGHTS)
    threshold = next((name for name in THRESHOLDS if name in tensors), THRESHOLDS[-1])
    stored = SHORT if "W_E" in tensors else LINEAR
    if isinstance(settings.sparsity, JumpReLU):
        stored = {**stored, "threshold": threshold}
    norms = _norms(tensors)
    plain, dtype = _plain(tensors, stored, settings, folder / WEIGHTS, ignored=norms)
    if plain.threshold is not None:
        plain = replace(plain, threshold=plain.threshold.exp())
    known = None
    if settings.is_scaled and norms:
        norm = take_tensors(
            {name: tensors[name] for name in norms}, dict.fromkeys(norms, ()), folder / WEIGHTS
        ).get(f"{NORM}.{settings.hook}")
        if norm is None:
            raise InputError(f"{folder / WEIGHTS}: expected {NORM}.{settings.hook}, got {show(norms)}")
        known = plain.W_enc.shape[1] ** 0.5 / positive({NORM: float(norm)}, NORM, folder / WEIGHTS)
    return _sae(plain, settings, _scale(known, scale, settings), dtype)


def _scale(known: float | None, told: float | None, settings: _Settings) -> float:
    if told is not None and (known is not None or not settings.is_scaled):
        raise InputError(f"{settings.path}: expected no scale, as its files say it ({known or 1.0}), got {told}")
    if settings.is_scaled and known is None and told is None:
        raise InputError(
            f"{settings.path}: expected {NORM} in {WEIGHTS}, got none; pass scale = sqrt(d_in) / the average norm "
            "of the tokens it was trained on"
        )
    return known or told or 1.0


def _settings(values: Mapping[str, Any], path: Path) -> _Settings:
    for name in ("hook_point_in", "hook_point_out"):
        if not isinstance(values.get(name), str):
            raise InputError(f"{path}: {name}: expected a name, got {show(values.get(name))}")
    if values["hook_point_in"] != values["hook_point_out"]:
        raise InputError(
            f"{path}: expected an SAE, got a transcoder from {show(values['hook_point_in'])} to "
            f"{show(values['hook_point_out'])}: it reconstructs other activations than it reads"
        )
    expect(values, "use_glu_encoder", False, [False], path)
    norm = expect(values, "norm_activation", "dataset-wise", ["dataset-wise", "inference"], path)
    kind = expect(values, "act_fn", "relu", ["relu", "jumprelu", "topk", "batchtopk"], path)
    has_b_dec = expect(values, "use_decoder_bias", True, [True, False], path)
    sparsity: Sparsity = ReLU() if kind == "relu" else JumpReLU()
    if kind in ("topk", "batchtopk"):
        k = whole(values, "top_k", path)
        sparsity = TopK(k=k) if kind == "topk" else BatchTopK(k=k)
    return _Settings(
        path=path,
        hook=values["hook_point_in"],
        is_scaled=norm == "dataset-wise",
        by_norm=expect(values, "sparsity_include_decoder_norm", True, [True, False], path),
        subtracts=expect(values, "apply_decoder_bias_to_pre_encoder", False, [True, False], path),
        has_b_dec=has_b_dec,
        sparsity=sparsity,
    )


def _norms(tensors: Mapping[str, Any]) -> list[str]:
    return [name for name in tensors if name.startswith(f"{NORM}.")]


def _plain(
    tensors: Mapping[str, Tensor], stored: Mapping[str, str], settings: _Settings, path: Path, ignored: list[str]
) -> tuple[Plain, torch.dtype]:
    """(the weights under our names, their type). stored: their names in the file."""
    rows, columns = sizes(tensors, stored["W_enc"], path)
    is_linear = stored["W_enc"] == LINEAR["W_enc"]
    d_in, d_sae = (columns, rows) if is_linear else (rows, columns)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (rows, columns), "W_dec": (columns, rows)}
    shapes |= {"b_enc": (d_sae,), "b_dec": (d_in,), "threshold": (d_sae,)}
    names = {ours: theirs for ours, theirs in stored.items() if ours != "b_dec" or settings.has_b_dec}
    weights = take_tensors(tensors, {theirs: shapes[ours] for ours, theirs in names.items()}, path, ignored)
    by_our_names = {ours: weights[theirs] for ours, theirs in names.items()}
    by_our_names.setdefault("b_dec", torch.zeros(d_in, dtype=torch.float64, device="cpu"))
    turned = "W_dec" if is_linear else "W_enc"
    by_our_names[turned] = by_our_names[turned].T
    fit_sparsity(settings.sparsity, d_sae, path)
    return Plain(**by_our_names), dtype_of(tensors[stored["W_enc"]])


def _sae(plain: Plain, settings: _Settings, scale: float, dtype: torch.dtype) -> SAE:
    """Our SAE of weights that take scaled tokens."""
    if settings.by_norm and isinstance(settings.sparsity, JumpReLU):
        plain = plain.by_norm()
    if settings.by_norm and isinstance(settings.sparsity, TopK | BatchTopK):
        plain = plain.unit()
    if not settings.subtracts:
        plain = plain.add_centering()
    return plain.sae(sparsity=settings.sparsity, dtype=dtype, affine=scale_map(plain.W_enc.shape[1], scale))
