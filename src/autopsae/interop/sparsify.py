"""The folders of sparsify (`eai-sparsify`): `cfg.json` and `sae.safetensors`; all matrices are [d_sae, d_in]."""

import json
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.files import write_tensors, write_text
from autopsae.interop.checks import dtype_of, expect, fit_sparsity, take_tensors, whole
from autopsae.interop.plain import Plain
from autopsae.interop.reading import read_safetensors
from autopsae.reading import read_object
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import GroupMax, TopK

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def read(folder: Path) -> SAE:
    """The SAE in a folder, with the same codes and reconstructions as sparsify's.

    Raises InputError for transcoders, skip connections and signed codes, and for files that are damaged or do not
    fit together.
    """
    path = folder / CONFIG
    settings = read_object(path)
    for name in ("transcode", "skip_connection", "signed"):
        expect(settings, name, False, [False], path)
    activation = expect(settings, "activation", "topk", ["topk", "groupmax"], path)
    d_in, k = whole(settings, "d_in", path), whole(settings, "k", path)
    if settings.get("num_latents"):
        d_sae = whole(settings, "num_latents", path)
    else:
        d_sae = d_in * whole({"expansion_factor": 32, **settings}, "expansion_factor", path)
    shapes = {"encoder.weight": (d_sae, d_in), "encoder.bias": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    tensors = read_safetensors(folder / WEIGHTS)
    weights = take_tensors(tensors, shapes, folder / WEIGHTS)
    plain = Plain(
        W_enc=weights["encoder.weight"],
        W_dec=weights["W_dec"],
        b_enc=weights["encoder.bias"],
        b_dec=weights["b_dec"],
    )
    sparsity = fit_sparsity(TopK(k=k) if activation == "topk" else GroupMax(k=k), d_sae, path)
    return plain.sae(sparsity=sparsity, dtype=dtype_of(tensors["encoder.weight"]))


def write(sae: SAE, folder: Path) -> None:
    """Write an SAE that sparsify loads, with the same codes and reconstructions.

    Raises InputError for another sparsity than TopK and GroupMax, and under layer_norm: sparsify has neither
    thresholds nor a normalisation of tokens.
    """
    if not isinstance(sae.sparsity, TopK | GroupMax):
        raise InputError(
            f"sparsify: expected topk or groupmax, got {sae.sparsity.name}, for which it has no thresholds; write "
            "it to saelens or dictionary_learning"
        )
    if sae.layer_norm:
        raise InputError("sparsify: expected an SAE of tokens as they are, got layer_norm; write it to saelens")
    plain = Plain.of(sae)
    tensors = {
        "encoder.weight": plain.W_enc,
        "encoder.bias": plain.b_enc,
        "W_dec": plain.W_dec,
        "b_dec": plain.b_dec,
    }
    stored = {name: tensor.to("cpu", sae.W_enc.dtype).contiguous() for name, tensor in tensors.items()}
    settings = {
        "activation": sae.sparsity.name,
        "expansion_factor": max(1, sae.d_sae // sae.d_in),
        # Only its training looks at this: rows that are not of unit norm would be changed at the first step.
        "normalize_decoder": bool((plain.W_dec.norm(dim=1) - 1).abs().max() < 1e-3),
        "num_latents": sae.d_sae,
        "k": sae.sparsity.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_in,
    }
    write_tensors(folder / WEIGHTS, stored)
    write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")
