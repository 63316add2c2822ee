"""What an SAE is made of, checked before it is made: kernels read weights by their shapes alone."""

from collections.abc import Mapping

from torch import Tensor

from autopsae.arrays import InputError
from autopsae.remedies.affine import Affine
from autopsae.words import show


def check_parts(parts: Mapping[str, object], affine: Affine | None) -> None:
    """InputError unless the weights are tensors of one floating type with the shapes that `SAE` names, and the map
    is one of d_in dimensions. parts: by name, with None for a part that an SAE can lack and that is not there.
    """
    W_enc = parts["W_enc"]
    if not isinstance(W_enc, Tensor) or W_enc.ndim != 2 or not W_enc.is_floating_point():
        raise InputError(f"SAE: expected W_enc as a tensor of floats [d_sae, d_in], got {_form(W_enc)}")
    d_sae, d_in = W_enc.shape
    shapes: dict[str, list[tuple[int, ...]]] = {"W_enc": [(d_sae, d_in)], "W_dec": [(d_sae, d_in)]}
    shapes |= {"b_dec": [(d_in,)], "b_pre": [(d_in,)], "b_enc": [(d_sae,)], "threshold": [(), (d_sae,)]}
    for name, part in parts.items():
        if part is None and name not in ("W_dec", "b_dec"):
            continue
        fits = isinstance(part, Tensor) and tuple(part.shape) in shapes[name] and part.is_floating_point()
        # A threshold may have a type of its own: a running mean moves by less than bfloat16 can say.
        if not fits or (name != "threshold" and part.dtype != W_enc.dtype):  # type: ignore[attr-defined]
            expected = " or ".join(str([*shape]) for shape in shapes[name])
            raise InputError(
                f"SAE: expected {name} as a tensor of floats {expected}, in the type of W_enc {_form(W_enc)}, "
                f"got {_form(part)}"
            )
    if affine is not None and len(affine.center) != d_in:
        n = len(affine.center)
        raise InputError(f"SAE: expected an affine map of d_in = {d_in:,} dimensions, got one of {n:,}")


def _form(part: object) -> str:
    return f"{[*part.shape]} {part.dtype}" if isinstance(part, Tensor) else show(part)
