"""OpenAI's SAEs of GPT-2 (`sparse_autoencoder`): one `.pt` file, a state_dict that names its activation as well.

Linear weights are [out, in]; its TopK SAEs bring every token to mean 0 and variance 1 first.
"""

from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.interop.checks import dtype_of, expect, fit_sparsity, sizes, take_tensors, whole
from autopsae.interop.plain import Plain, unbias_map
from autopsae.reading import as_object
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import ReLU, Sparsity, TopK
from autopsae.words import show

NAMES = ("pre_bias", "latent_bias", "encoder.weight")
"""What makes a state_dict one of theirs."""
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
ACTIVATION, OPTIONS = "activation", "activation_state_dict"


def read(state: dict[str, Any], path: Path) -> SAE:
    """The SAE of a state_dict. Without an activation it is a ReLU SAE, as for their own loader.

    They divide by std + 1e-5 where ours divides by std, so that codes differ by a share of 1e-5 / std.
    Raises InputError for codes that may be negative (`Identity`), tied weights and damaged files.
    """
    d_sae, d_in = sizes(state, "encoder.weight", path)
    kind = expect(state, ACTIVATION, "ReLU", ["ReLU", "TopK"], path)
    sparsity: Sparsity = ReLU()
    if kind == "TopK":
        options = as_object(state.get(OPTIONS), path, f"an object {OPTIONS}")
        if options.get("postact_fn") != "ReLU":
            got = show(options.get("postact_fn"))
            raise InputError(f"{path}: postact_fn: expected 'ReLU', got {got}: its codes may be negative")
        sparsity = TopK(k=whole(options, "k", path))
    if "decoder.linear.weight" in state:
        raise InputError(f"{path}: expected decoder.weight, got a tied decoder; save decoder.weight itself")
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (d_sae, d_in), "decoder.weight": (d_in, d_sae)}
    shapes |= {"latent_bias": (d_sae,), "pre_bias": (d_in,)}
    weights = take_tensors(state, shapes, path, ignored=(*STATISTICS, ACTIVATION, OPTIONS))
    plain = Plain(
        W_enc=weights["encoder.weight"],
        W_dec=weights["decoder.weight"].T,
        b_enc=weights["latent_bias"],
        b_dec=weights["pre_bias"],
    )
    is_topk = kind == "TopK"
    return plain.sae(
        sparsity=fit_sparsity(sparsity, d_sae, path),
        dtype=dtype_of(state["encoder.weight"]),
        affine=unbias_map(d_in) if is_topk else None,
        layer_norm=is_topk,
    )
