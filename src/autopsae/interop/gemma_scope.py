"""The files of Gemma Scope (`params.npz`) and Gemma Scope 2 (`params.safetensors`, `config.json`): JumpReLU SAEs,
whose encoder takes tokens without subtracting b_dec. W_enc is [d_in, d_sae], W_dec [d_sae, d_in].
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from autopsae.arrays import InputError
from autopsae.interop.checks import dtype_of, expect, fit_sparsity, sizes, take_tensors
from autopsae.interop.plain import Plain, scale_map
from autopsae.interop.reading import read_npz, read_safetensors
from autopsae.reading import read_object
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU
from autopsae.words import show

ARRAYS = "params.npz"
CONFIG, WEIGHTS = "config.json", "params.safetensors"
TRANSCODER = "it reconstructs other activations than it reads"
PLACES = 4
"""Folders above the weights by whose names the suites tell their parts apart."""


def read(folder: Path, *, scale: float | None = None) -> SAE:
    """An SAE of Gemma Scope, with the codes and reconstructions of its definition (arXiv:2408.05147).

    scale: what tokens are multiplied with first. Its SAEs of embeddings need it: they were trained on embeddings
    before Gemma multiplies them by sqrt(d_in), which no file says.
    Raises InputError for transcoders (known by the folder's name alone, as their files are the same), for SAEs of
    embeddings without a scale, and for damaged files.
    """
    path = folder / ARRAYS
    above = _above(folder)
    if any(re.search("gemma-scope.*transcoder", name) for name in above):
        raise InputError(f"{path}: expected an SAE, got a transcoder: {TRANSCODER}")
    if "embedding" in above and scale is None:
        raise InputError(
            f"{path}: expected a scale for an SAE of embeddings, got none; pass scale = 1/sqrt(d_in) for "
            "embeddings as Gemma uses them, 1 for rows of its embedding matrix"
        )
    arrays = read_npz(path)
    tensors = {re.sub("^w_", "W_", name): array for name, array in arrays.items()}
    return _jumprelu(tensors, path, scale)


def read_2(folder: Path) -> SAE:
    """An SAE of Gemma Scope 2, as SAELens' loader reads it.

    `config.json` may be missing, as it is in parts of the suite. Raises InputError for transcoders and crosscoders,
    and for damaged files.
    """
    path = folder / WEIGHTS
    settings = read_object(folder / CONFIG) if (folder / CONFIG).exists() else {}
    expect(settings, "architecture", "jump_relu", ["jump_relu"], folder / CONFIG)
    expect(settings, "affine_connection", False, [False, None], folder / CONFIG)
    enters, leaves = settings.get("hf_hook_point_in"), settings.get("hf_hook_point_out")
    is_other = settings.get("type", "sae") != "sae" or (leaves is not None and leaves != enters)
    part = next((name for name in _above(folder) if re.match("transcoder|crosscoder|clt", name)), None)
    if is_other or (part and not settings):
        got = part or f"{show(settings.get('type'))} from {show(enters)} to {show(leaves)}"
        raise InputError(f"{path}: expected an SAE, got {got}: {TRANSCODER}")
    tensors = read_safetensors(path)
    return _jumprelu({re.sub("^w_", "W_", name): tensor for name, tensor in tensors.items()}, path, None)


def _above(folder: Path) -> list[str]:
    """The names of the folders in which it lies, as they are known on the hub."""
    return [name.lower() for name in folder.absolute().parts[-PLACES:]] + [
        name.lower() for name in folder.resolve().parts if name.startswith("models--")
    ]


def _jumprelu(tensors: Mapping[str, Tensor], path: Path, scale: float | None) -> SAE:
    d_in, d_sae = sizes(tensors, "W_enc", path)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in)}
    shapes |= {"b_enc": (d_sae,), "b_dec": (d_in,), "threshold": (d_sae,)}
    weights = take_tensors(tensors, shapes, path)
    plain = Plain(**weights | {"W_enc": weights["W_enc"].T}).add_centering()
    affine = None if scale is None else scale_map(d_in, scale)
    return plain.sae(
        sparsity=fit_sparsity(JumpReLU(), d_sae, path), dtype=dtype_of(tensors["W_enc"]), affine=affine
    )
