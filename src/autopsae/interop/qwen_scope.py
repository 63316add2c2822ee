"""Qwen-Scope: one `layerN.sae.pt` for a layer, a state_dict of a TopK SAE whose encoder takes tokens without
subtracting b_dec. W_enc is [d_sae, d_in], W_dec [d_in, d_sae]; k stands in the repository's name alone.
"""

import re
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.interop.checks import dtype_of, fit_sparsity, sizes, take_tensors
from autopsae.interop.plain import Plain
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK

SUFFIX = ".sae.pt"
"""How the names of its files end."""
REPOSITORY = re.compile(r"SAE-Res-.+-W(\d+)K-L0_(\d+)$")


def read(state: dict[str, Any], path: Path, *, k: int | None = None) -> SAE:
    """The SAE of a state_dict, as SAELens' loader reads it.

    k: active latents per token; may be left out in a folder with the repository's name
    (`SAE-Res-Qwen3-8B-Base-W64K-L0_50`: 50). Raises InputError where it is not known, or is another one.
    """
    named = [match for name in path.absolute().parts if (match := REPOSITORY.search(name))]
    known = {int(match[2]) for match in named} | (set() if k is None else {k})
    if len(known) != 1:
        got = " and ".join(map(str, sorted(known))) or "none"
        raise InputError(
            f"{path}: expected one number of active latents per token, which is not in the file, got {got}; pass "
            "k, or keep the repository's name (SAE-Res-...-L0_50) for its folder"
        )
    [active] = known
    d_sae, d_in = sizes(state, "W_enc", path)
    if any(int(match[1]) * 1024 != d_sae for match in named):
        raise InputError(f"{path}: expected the {named[0][1]}K latents of {named[0][0]}, got {d_sae:,}")
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_sae, d_in), "W_dec": (d_in, d_sae)}
    weights = take_tensors(state, shapes | {"b_enc": (d_sae,), "b_dec": (d_in,)}, path)
    sparsity = fit_sparsity(TopK(k=active), d_sae, path)
    plain = Plain(**weights | {"W_dec": weights["W_dec"].T}).add_centering()
    return plain.sae(sparsity=sparsity, dtype=dtype_of(state["W_enc"]))
