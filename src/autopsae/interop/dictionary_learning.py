"""Folders of dictionary_learning: `config.json`, and `ae.pt`, a pickled state_dict, of which only tensors are read.

The class is named in the configuration, and each has tensors of its own; Linear weights are [out, in].
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import write_text, write_whole
from autopsae.interop.checks import dtype_of, fit_sparsity, sizes, take_tensors, whole
from autopsae.interop.plain import Plain
from autopsae.interop.reading import read_state_dict
from autopsae.reading import as_object, read_object
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.words import show

CONFIG, WEIGHTS = "config.json", "ae.pt"
TOPK, BATCH_TOPK, JUMPRELU, RELU = "AutoEncoderTopK", "BatchTopKSAE", "JumpReluAutoEncoder", "AutoEncoder"
TRAINERS = {
    TOPK: "TopKTrainer",
    BATCH_TOPK: "BatchTopKTrainer",
    JUMPRELU: "JumpReluTrainer",
    RELU: "StandardTrainer",
}
REASONS = {
    "GatedAutoEncoder": "its gate has weights of its own",
    "MatryoshkaBatchTopKSAE": "its nested groups",
    "AutoEncoderNew": "its codes contain the norms of the decoder in one call and not in another",
}


def read(folder: Path) -> SAE:
    """The SAE in a folder, with the same codes and reconstructions as from dictionary_learning's `load_dictionary`:
    a ReLU `AutoEncoder` gets decoder rows of unit norm, and JumpReLU's encoder takes tokens without subtracting
    b_dec. A BatchTopK SAE that has learned no threshold (-1, or none in the file, as before there was one) judges
    its batch as a whole. Where config.json lacks k, the weights' own is taken.

    Raises InputError for what cannot be carried over, and for files that are damaged or do not fit together.
    """
    path = folder / CONFIG
    settings = as_object(read_object(path).get("trainer"), path, "an object `trainer`")
    name = settings.get("dict_class")
    if not isinstance(name, str) or name not in TRAINERS:
        reason = f": {REASONS[name]}" if isinstance(name, str) and name in REASONS else ""
        raise InputError(f"{path}: expected a dict_class of {', '.join(TRAINERS)}, got {show(name)}{reason}")
    state = read_state_dict(folder / WEIGHTS)
    if "ae" in state and "optimizer" in state:
        raise InputError(
            f"{folder / WEIGHTS}: expected weights alone, got a backup of an unfinished training; finish it"
        )
    weights = "W_enc" if name == JUMPRELU else "encoder.weight"
    rows, columns = sizes(state, weights, folder / WEIGHTS)
    d_in, d_sae = (rows, columns) if name == JUMPRELU else (columns, rows)
    shapes = _shapes(name, d_in, d_sae)
    if name in (TOPK, BATCH_TOPK) and "threshold" not in state:
        del shapes["threshold"]  # files from before it was stored
    tensors = take_tensors(state, shapes, folder / WEIGHTS, ignored=("k",))
    sparsity = fit_sparsity(_sparsity(name, settings, state, path), d_sae, path)
    return _plain(name, tensors).sae(sparsity=sparsity, dtype=dtype_of(state[weights]))


def _shapes(name: str, d_in: int, d_sae: int) -> dict[str, tuple[int, ...]]:
    if name == JUMPRELU:
        biases: dict[str, tuple[int, ...]] = {"b_enc": (d_sae,), "b_dec": (d_in,), "threshold": (d_sae,)}
        return {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), **biases}
    linear = {"encoder.weight": (d_sae, d_in), "encoder.bias": (d_sae,), "decoder.weight": (d_in, d_sae)}
    return {**linear, "bias": (d_in,)} if name == RELU else {**linear, "b_dec": (d_in,), "threshold": ()}


def _sparsity(name: str, settings: Mapping[str, Any], state: Mapping[str, Any], path: Path) -> Sparsity:
    if name in (JUMPRELU, RELU):
        return JumpReLU() if name == JUMPRELU else ReLU()
    stored = state.get("k")
    if "k" not in settings and _is_number(stored):
        settings = {"k": stored.item()}
    k = whole(settings, "k", path)
    if stored is not None and not (_is_number(stored) and stored.item() == k):
        raise InputError(f"{path}: k: expected that of {WEIGHTS}, {show(stored)}, got {k}; correct it there")
    return TopK(k=k) if name == TOPK else BatchTopK(k=k)


def _is_number(stored: object) -> TypeGuard[Tensor]:
    return isinstance(stored, Tensor) and stored.is_cpu and stored.layout == torch.strided and stored.shape == ()


def _plain(name: str, tensors: dict[str, Tensor]) -> Plain:
    if name == JUMPRELU:
        return Plain(
            W_enc=tensors["W_enc"].T,
            W_dec=tensors["W_dec"],
            b_enc=tensors["b_enc"],
            b_dec=tensors["b_dec"],
            threshold=tensors["threshold"],
        ).add_centering()
    threshold = tensors.get("threshold")
    plain = Plain(
        W_enc=tensors["encoder.weight"],
        W_dec=tensors["decoder.weight"].T,
        b_enc=tensors["encoder.bias"],
        b_dec=tensors["bias" if name == RELU else "b_dec"],
        threshold=threshold if name == BATCH_TOPK and threshold is not None and threshold >= 0 else None,
    )
    return plain.unit() if name == RELU else plain


def write(sae: SAE, folder: Path, *, model_name: str | None = None, hook_name: str | None = None) -> None:
    """Write an SAE that dictionary_learning loads, with the same codes and reconstructions; those of a ReLU SAE are
    larger by the norms of its decoder rows, as dictionary_learning normalises them when it loads.

    model_name, hook_name: where its tokens come from, as dictionary_learning's `lm_name` and `submodule_name`.
    Raises InputError under layer_norm, for BatchTopK without a learned threshold, and for GroupMax.
    """
    if sae.layer_norm:
        raise InputError(
            "dictionary_learning: expected an SAE of tokens as they are, got layer_norm; write to saelens"
        )
    name, tensors = _tensors(sae)
    k = getattr(sae.sparsity, "k", None)
    stored = {name: tensor.to("cpu", sae.W_enc.dtype).contiguous() for name, tensor in tensors.items()}
    if k is not None:
        stored["k"] = torch.tensor(k, dtype=torch.int, device="cpu")
        stored["threshold"] = stored["threshold"].float()
    settings = {
        "trainer_class": TRAINERS[name],
        "dict_class": name,
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
        **({} if k is None else {"k": k}),
        "device": "cpu",
        "layer": None,
        "lm_name": model_name,
        "submodule_name": hook_name,
    }

    def save(temporary: Path) -> None:
        # Given a file, torch.save does not put the file's name, which is another one each time, into it.
        with temporary.open("wb") as file:
            torch.save(stored, file)

    write_whole(folder / WEIGHTS, save)
    write_text(folder / CONFIG, json.dumps({"trainer": settings, "buffer": {}}, indent=2) + "\n")


def _tensors(sae: SAE) -> tuple[str, dict[str, Tensor]]:
    """(the class, its tensors)."""
    sparsity, plain = sae.sparsity, Plain.of(sae)
    if isinstance(sparsity, JumpReLU):
        plain = plain.remove_centering()
        assert plain.threshold is not None
        biases = {"b_enc": plain.b_enc, "b_dec": plain.b_dec, "threshold": plain.threshold}
        return JUMPRELU, {"W_enc": plain.W_enc.T, "W_dec": plain.W_dec, **biases}
    if not isinstance(sparsity, TopK | BatchTopK | ReLU):
        name, other = sparsity.name, "sparsify" if isinstance(sparsity, GroupMax) else "autopsae"
        raise InputError(f"dictionary_learning: expected no {name}, which it does not know; write it to {other}")
    if isinstance(sparsity, ReLU):
        plain = plain.unit()
    linear = {"encoder.weight": plain.W_enc, "encoder.bias": plain.b_enc, "decoder.weight": plain.W_dec.T}
    if isinstance(sparsity, ReLU):
        return RELU, {**linear, "bias": plain.b_dec}
    if isinstance(sparsity, TopK):
        unset = torch.tensor(-1.0, dtype=torch.float32, device="cpu")
        return TOPK, {**linear, "b_dec": plain.b_dec, "threshold": unset}
    if plain.threshold is None:
        raise InputError(
            "dictionary_learning: expected a BatchTopK SAE that has learned its threshold, got one that has not; "
            "train it first"
        )
    return BATCH_TOPK, {**linear, "b_dec": plain.b_dec, "threshold": plain.threshold}
