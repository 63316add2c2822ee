"""Files of others, which may be anything: read without running what is in them, and checked before use."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.sae.sparsity import Sparsity

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float32,  # half a product's range is lost in it; every value of it is one of float32
}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected a JSON object, could not read it ({_first_line(error)}); get the file again"
        ) from error
    return as_object(found, path, "a JSON object")


def as_object(found: object, path: Path, what: str) -> dict[str, Any]:
    """What should be a mapping, or InputError."""
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected {what}, got {type(found).__name__}; get the file again")
    return found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file. Raises InputError for a missing, truncated or foreign one."""
    try:
        return load_file(path)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path}: expected safetensors, could not read them ({_first_line(error)}); get the file again"
        ) from error


def read_state_dict(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote, if it is made of tensors, numbers and words: nothing else is unpickled, and no code
    runs. Raises InputError for anything else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can end in any of Python's errors
        raise InputError(
            f"{path}: expected a torch.save of tensors alone, could not read it ({_first_line(error)}); pickles "
            "that hold code are not run: save its state_dict()"
        ) from error
    return as_object(found, path, "a state_dict of tensors")


def checked(
    tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path, ignored: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors named by `shapes`, in float64, if they are just these, of these shapes, floating, finite.

    ignored: names that may be there too. Raises InputError.
    """
    wrong = {*shapes} - {*tensors} | {*tensors} - {*shapes} - {*ignored}
    if wrong:
        raise InputError(
            f"{path}: expected tensors {', '.join(shapes)}, got {shown(sorted(map(str, tensors)), 200)}; "
            "is it the SAE that its configuration describes?"
        )
    for name, shape in shapes.items():
        _check(name, tensors[name], shape, path)
    return {name: tensors[name].detach().double() for name in shapes}


def _check(name: str, tensor: object, shape: tuple[int, ...], path: Path) -> None:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
        got = f"a {tensor.layout} one on {tensor.device}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(f"{path}: {name}: expected a dense tensor, got {got}; save it again")
    if tuple(tensor.shape) != shape or not tensor.is_floating_point():
        raise InputError(
            f"{path}: {name}: expected shape {shape} in floating point, got {tuple(tensor.shape)} of "
            f"{tensor.dtype}; is it the SAE that its configuration describes?"
        )
    # A pickle may describe far more values than it holds.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{path}: {name}: expected a value of its own for every place; save it again")
    if not bool(tensor.isfinite().all()):
        bad = int((~tensor.isfinite()).sum())
        raise InputError(
            f"{path}: {name}: expected finite weights, got NaN or infinite ones in {bad:,} of {tensor.numel():,} "
            "places; take an earlier checkpoint"
        )


def whole(settings: Mapping[str, Any], name: str, path: Path) -> int:
    """A positive whole number among settings, or InputError."""
    value = settings.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{path}: {name}: expected a positive whole number, got {shown(value)}; correct it there")
    return value


def fitting(sparsity: Sparsity, d_sae: int, path: Path) -> Sparsity:
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
            f"{path}: {name}: expected {listed}, got {shown(value)}, which autopsae's SAE cannot express"
        )
    return value


def dtype_of(tensor: Tensor) -> torch.dtype:
    """The type in which our SAE holds these weights: their own; float32 for float16 and narrower ones."""
    return DTYPES.get(str(tensor.dtype).removeprefix("torch."), torch.float32)


def shown(value: object, characters: int = 80) -> str:
    """For a message: a hostile value may be long, or of many lines."""
    text = repr(value)
    return text if len(text) <= characters else f"{text[: characters - 3]}..."


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
