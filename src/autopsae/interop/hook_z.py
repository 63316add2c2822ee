"""The attention SAEs of Kissane, Krzyzanowski et al.: `NAME.pt`, a state_dict, and `NAME_cfg.json` beside it.

ReLU SAEs of one head's outputs side by side. W_enc is [d_in, d_sae], W_dec [d_sae, d_in].
"""

from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.interop.checks import dtype_of, sizes, take_tensors, whole
from autopsae.interop.plain import Plain
from autopsae.reading import read_object
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import ReLU


def config_of(path: Path) -> Path:
    """Where the configuration of such a file would lie."""
    return path.with_name(f"{path.stem}_cfg.json")


def read(state: dict[str, Any], path: Path) -> SAE:
    """The SAE of a state_dict, as SAELens' loader reads it: pass tokens with the heads flattened."""
    settings = read_object(config_of(path))
    d_in, d_sae = sizes(state, "W_enc", path)
    for name, size in (("act_size", d_in), ("dict_size", d_sae)):
        if whole(settings, name, config_of(path)) != size:
            raise InputError(f"{config_of(path)}: {name}: expected that of {path.name}, {size}")
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in)}
    weights = take_tensors(state, shapes | {"b_enc": (d_sae,), "b_dec": (d_in,)}, path)
    plain = Plain(**weights | {"W_enc": weights["W_enc"].T})
    return plain.sae(sparsity=ReLU(), dtype=dtype_of(state["W_enc"]))
