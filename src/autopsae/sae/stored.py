"""The files of a saved SAE, read and checked: what its JSON says, its tensors, and whether they fit together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import pair_files
from autopsae.kinds import anything, fields, flag, number, one_of, whole
from autopsae.remedies.affine import check_inverse
from autopsae.sae.sparsity import SPARSITIES, Sparsity, read_sparsity
from autopsae.saved import FLOATS, Layout, check_tensors, load_pair

FORMAT = "autopsae-sae"

_OTHERS = {"scale": number(over=0.0), "layer_norm": flag, "d_in": whole(), "d_sae": whole()}


def _content(content: object) -> str | None:
    """The kind of an SAE's JSON; which sparsities there are is known when it is read, not when this is imported."""
    return fields({"sparsity": fields({"name": one_of(*SPARSITIES)}, others=anything), **_OTHERS})(content)


def read_parts(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], Sparsity]:
    """(what the JSON says, the tensors, the sparsity). Raises InputError for a pair as `load_pair`, for a sparsity
    that is not known, and for tensors that are not those of such an SAE.
    """
    content, tensors = load_pair(path, format=FORMAT, kind=_content)
    described, stored = pair_files(path)
    sparsity = read_sparsity(described, content["sparsity"], content["d_sae"])
    check_tensors(stored, tensors, _layouts(content, tensors, sparsity))
    check_inverse(tensors.get("linear"), tensors.get("inverse"), str(stored))
    _check_range(content, tensors, sparsity, described)
    return content, tensors, sparsity


def _layouts(content: Mapping[str, Any], tensors: Mapping[str, Tensor], sparsity: Sparsity) -> dict[str, Layout]:
    """What the tensors of an SAE must be; all of one type, that of W_enc."""
    d_sae, d_in = content["d_sae"], content["d_in"]
    dtype = tensors["W_enc"].dtype if "W_enc" in tensors else torch.float32
    types = (dtype,) if dtype in FLOATS else FLOATS
    matrix, square = (
        Layout(shape=(d_sae, d_in), dtypes=types),
        Layout(shape=(d_in, d_in), dtypes=types, needed=False),
    )
    layouts = {
        "W_enc": matrix,
        "W_dec": matrix,
        "b_dec": Layout(shape=(d_in,), dtypes=types),
        "b_enc": Layout(shape=(d_sae,), dtypes=types, needed=False),
        "b_pre": Layout(shape=(d_in,), dtypes=types, needed=False),
        "center": Layout(shape=(d_in,), dtypes=types),
        "linear": square,
        "inverse": square,
    }
    return {**layouts, **sparsity.layouts(d_sae, types)}


def _check_range(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor], sparsity: Sparsity, described: Path
) -> None:
    """InputError for a scale or a threshold that is zero or infinite in the type of the weights."""
    scale = torch.tensor(float(content["scale"]), dtype=tensors["W_enc"].dtype, device="cpu")
    if not bool((scale > 0) & scale.isfinite() & (1 / scale).isfinite()):
        raise InputError(
            f"{described}.scale: expected a number that {scale.dtype} can hold, got {content['scale']:g}; save it "
            "again"
        )
    threshold = sparsity.threshold(tensors)
    if threshold is not None and bool(threshold.isinf().any()):
        raise InputError(f"{described}: expected finite thresholds, got infinite ones; take an earlier one")
