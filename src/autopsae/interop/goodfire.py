"""Goodfire's SAEs of Llama 3: one `.pt` or `.pth`, a state_dict of a ReLU SAE whose encoder takes tokens without
subtracting b_dec. Linear weights are [out, in].
"""

from pathlib import Path
from typing import Any

from autopsae.interop.checks import dtype_of, sizes, take_tensors
from autopsae.interop.plain import Plain
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import ReLU

NAMES = ("encoder_linear.weight", "encoder_linear.bias", "decoder_linear.weight", "decoder_linear.bias")
"""What makes a state_dict one of theirs."""


def read(state: dict[str, Any], path: Path) -> SAE:
    """The SAE of a state_dict, as SAELens' loader reads it."""
    d_sae, d_in = sizes(state, NAMES[0], path)
    shapes = dict(zip(NAMES, [(d_sae, d_in), (d_sae,), (d_in, d_sae), (d_in,)], strict=True))
    W_enc, b_enc, W_dec, b_dec = take_tensors(state, shapes, path).values()
    plain = Plain(W_enc=W_enc, W_dec=W_dec.T, b_enc=b_enc, b_dec=b_dec).add_centering()
    return plain.sae(sparsity=ReLU(), dtype=dtype_of(state[NAMES[0]]))
