"""What files of others hold, which may be anything: checked before use. All raise InputError."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.memory import check_memory
from autopsae.reading import whole_of
from autopsae.sae.sparsity import Sparsity
from autopsae.words import printable, show

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float32,  # half a product's range is lost in it; every value of it is one of float32
}
BYTES_PER_WEIGHT = 28
"""While an SAE of float32 is read: as stored, in float64, and in our SAE (tests measure it)."""
LARGEST_SIZE = 2**31
"""Of d_in, d_sae and k."""


def take_tensors(
    tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path, ignored: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors named by `shapes`, in float64, if they are just these, of these shapes, floating, finite.

    ignored: names that may be there too. Raises InputError.
    """
    wrong = {*shapes} - {*tensors} | {*tensors} - {*shapes} - {*ignored}
    if wrong:
        raise InputError(
            f"{path}: expected tensors {', '.join(shapes)}, got {names(tensors)}; "
            "is it the SAE that its configuration describes?"
        )
    for name, shape in shapes.items():
        _check_shape(name, tensors[name], shape, path)
    weights = sum(tensors[name].numel() for name in shapes)
    try:
        what = f"to read {weights:,} weights"
        check_memory(weights * BYTES_PER_WEIGHT, torch.device("cpu"), what, "read it on a larger machine")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return {name: _exact(name, tensors[name], path) for name in shapes}


def _check_shape(name: str, tensor: object, shape: tuple[int, ...], path: Path) -> None:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
        got = f"a {tensor.layout} one on {tensor.device}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(f"{path}: {name}: expected a dense tensor, got {got}; save it again")
    if tuple(tensor.shape) != shape or not tensor.is_floating_point():
        raise InputError(
            f"{path}: {name}: expected shape {shape} in floating point, got {show(tuple(tensor.shape))} of "
            f"{tensor.dtype}; is it the SAE that its configuration describes?"
        )
    # A pickle may describe far more values than it holds.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{path}: {name}: expected a value of its own for every place; save it again")


def _exact(name: str, tensor: Tensor, path: Path) -> Tensor:
    try:
        exact = tensor.detach().double()
    except RuntimeError as error:  # float4, which PyTorch can store and not read
        raise InputError(
            f"{path}: {name}: expected weights that PyTorch computes with, got {tensor.dtype}; save it as float32"
        ) from error
    if not bool(exact.isfinite().all()):
        bad = int((~exact.isfinite()).sum())
        raise InputError(
            f"{path}: {name}: expected finite weights, got NaN or infinite ones in {bad:,} of {tensor.numel():,} "
            "places; take an earlier checkpoint"
        )
    return exact


def sizes(tensors: Mapping[str, Any], name: str, path: Path) -> tuple[int, int]:
    """(rows, columns) of the matrix of this name, or InputError."""
    matrix = tensors.get(name)
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or 0 in matrix.shape:
        got = f"shape {show(tuple(matrix.shape))}" if isinstance(matrix, Tensor) else f"none in {names(tensors)}"
        raise InputError(f"{path}: expected the encoder's matrix {name}, got {got}; save its state_dict()")
    return matrix.shape[0], matrix.shape[1]


def whole(settings: Mapping[str, Any], name: str, path: Path) -> int:
    """A positive whole number among settings, or InputError."""
    return whole_of(settings, name, path, least=1, most=LARGEST_SIZE)


def positive(settings: Mapping[str, Any], name: str, path: Path) -> float:
    """A number over zero among settings, or InputError."""
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, float | int) or not 0 < value < 1e30:
        raise InputError(f"{path}: {name}: expected a number > 0, got {show(value)}; correct it there")
    return float(value)


def fit_sparsity(sparsity: Sparsity, d_sae: int, path: Path) -> Sparsity:
    """A sparsity, if it is one for so many latents. Raises InputError."""
    try:
        sparsity.check(d_sae)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return sparsity


def expect(settings: Mapping[str, Any], name: str, default: Any, allowed: Collection[Any], path: Path) -> Any:
    """A setting that may be left out, if it is one of those that can be carried over. Raises InputError."""
    value = settings.get(name, default)
    # 1 == True, and a list is in no set: compare with each.
    if not any(type(value) is type(one) and value == one for one in allowed):
        listed = ", ".join(map(repr, allowed))
        raise InputError(
            f"{path}: {name}: expected {listed}, got {show(value)}, which autopsae's SAE cannot express"
        )
    return value


def dtype_of(tensor: Tensor) -> torch.dtype:
    """The type in which our SAE holds these weights: their own; float32 for float16 and narrower ones."""
    return DTYPES.get(str(tensor.dtype).removeprefix("torch."), torch.float32)


def names(tensors: Iterable[object]) -> str:
    """The names of tensors, for a message."""
    listed = sorted(show(name) for name in tensors)
    return printable(f"[{', '.join(listed)}]", 200)
