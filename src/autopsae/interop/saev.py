"""saev's checkpoints: one `.pt` file, whose first line is a JSON header and whose rest is a state_dict.

W_enc is [d_in, d_sae], W_dec [d_sae, d_in]. The header has a `schema` since one was thought of.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autopsae.arrays import InputError
from autopsae.interop.checks import dtype_of, fit_sparsity, sizes, take_tensors, whole
from autopsae.interop.plain import Plain
from autopsae.interop.reading import read_state_dict
from autopsae.reading import MOST_JSON, as_object, input_errors, parse_foreign
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, ReLU, Sparsity, TopK
from autopsae.words import show

FIRST_BYTE = b"{"
"""No file of `torch.save` begins with it."""
LEARNED = "activation.threshold"
SUBTRACTS: dict[int, bool | None] = {0: True, 1: None, 2: False, 3: False, 4: False, 5: False}
"""By schema, 0 where there is none: whether the encoder takes tokens minus b_dec; None where versions of saev that
write the same schema differ.
"""


def read(path: Path) -> SAE:
    """The SAE in a checkpoint, as the saev that wrote it uses it: files without a schema subtract b_dec from tokens
    (saev 0.1.0), those of schema 2 to 5 do not.

    TopK: where fewer than k latents are positive, saev's codes contain negative values; ours are zero there.
    Raises InputError for schema 1 unless b_dec is zero, for BatchTopK without a threshold, whose meaning changed
    between versions, and for damaged files.
    """
    what = "a JSON object in its first line"
    with input_errors(path, what):
        with path.open("rb") as file:
            line = file.readline(MOST_JSON + 1)
        if len(line) > MOST_JSON:
            raise ValueError(f"over {MOST_JSON:,} bytes")
        header = as_object(parse_foreign(line), path, what)
    schema = header.get("schema", 0)
    if isinstance(schema, bool) or not isinstance(schema, int) or schema not in SUBTRACTS:
        raise InputError(f"{path}: schema: expected none or 1 to {max(SUBTRACTS)}, got {show(schema)}")
    settings = as_object(header["cfg"], path, "an object `cfg`") if "cfg" in header else header
    state = read_state_dict(path, after=len(line))
    d_in, d_sae = sizes(state, "W_enc", path)
    sparsity = fit_sparsity(_sparsity(header, settings, path), d_sae, path)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in)}
    shapes |= {"b_enc": (d_sae,), "b_dec": (d_in,)}
    if isinstance(sparsity, BatchTopK):
        if LEARNED not in state:
            raise InputError(
                f"{path}: expected {LEARNED} for BatchTopK, got none: how it chooses without one depends on the "
                "version of saev, which the file does not say"
            )
        shapes[LEARNED] = ()
    weights = take_tensors(state, shapes, path)
    subtracts = SUBTRACTS[schema]
    if subtracts is None and bool(weights["b_dec"].any()):
        raise InputError(
            f"{path}: expected another schema than 1, under which some versions of saev subtract b_dec from tokens "
            "and some do not; load it with the saev that wrote it and save it with one of schema 2 or later"
        )
    threshold = weights.pop(LEARNED, None)
    plain = Plain(
        **weights | {"W_enc": weights["W_enc"].T}, threshold=None if threshold is None else threshold.clamp_min(0)
    )
    dtype = dtype_of(state["W_enc"]) if isinstance(state["W_enc"], torch.Tensor) else torch.float32
    return (plain if subtracts else plain.add_centering()).sae(sparsity=sparsity, dtype=dtype)


def _sparsity(header: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> Sparsity:
    """By schema: ReLU alone; the class of the configuration; an activation with its own class and parameters."""
    activation = settings.get("activation", {"cls": header.get("cls", "Relu"), "params": settings})
    named = as_object(activation, path, "an object `activation`")
    kind, options = named.get("cls"), as_object(named.get("params"), path, "an object `params`")
    if kind in ("TopK", "BatchTopK"):
        k = whole(options, "top_k", path)
        return TopK(k=k) if kind == "TopK" else BatchTopK(k=k)
    if kind != "Relu":
        raise InputError(f"{path}: activation: expected Relu, TopK or BatchTopK, got {show(kind)}")
    return ReLU()
