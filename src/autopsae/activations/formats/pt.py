"""What `torch.save` wrote: a tensor, a dict or a tuple of tensors (a layer each), or a list (pieces of one layer).

Only tensors, numbers and words are unpickled, and no code runs. The file is mapped, not read, unless it is in the
format from before PyTorch 1.6.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor

from autopsae.activations.formats.rows import WIDENED
from autopsae.activations.formats.weights import refuse_weights
from autopsae.activations.names import layer_name
from autopsae.activations.parts import NoLayers, Part, runs, shape_as_tokens
from autopsae.arrays import InputError
from autopsae.memory import check_memory
from autopsae.pickles import check_torch_save
from autopsae.reading import check_regular, input_errors
from autopsae.words import list_names

MOST_SUMMED = 2 * 2**30
"""Bytes of the largest file whose checksums are compared when it is opened, which takes 0.3 s for each GiB that the
system has in its cache; of a larger one only the places of the tensors are compared, and it is mapped unread."""


def pt_layers(path: Path) -> dict[str, list[Part]] | list[Part]:
    """The layers of a file, or the parts of its one layer, where that has no name.

    Raises InputError for code, for weights, and for other content than tensors, NoLayers where no tensor is a
    layer.
    """
    with input_errors(
        path, "a torch.save of tensors", "code in pickles is not run: save tensors, or a dict of them"
    ):
        held = load_pt(path)
    refuse_weights(path, [*_names(held)])
    if isinstance(held, Tensor) and _is_layer(held):
        return [tensor_part(held, path)]
    if isinstance(held, list) and held and all(isinstance(piece, Tensor) and _is_layer(piece) for piece in held):
        return [tensor_part(piece, f"{path}: item {number}") for number, piece in enumerate(held)]
    # A tuple is what a network returns as its hidden states.
    named = held if isinstance(held, Mapping) else {}
    named = {f"hs{number}": value for number, value in enumerate(held)} if isinstance(held, tuple) else named
    tensors = [(layer_name(str(name)), value) for name, value in named.items() if isinstance(value, Tensor)]
    layers = {name: [tensor_part(value, f"{path}: {name}")] for name, value in tensors if _is_layer(value)}
    if len(layers) < sum(_is_layer(value) for _, value in tensors):
        raise InputError(f"{path}: two tensors have the same name; give each its own")
    if not layers:
        raise NoLayers(
            f"{path}: expected floating-point tensors [tokens, d_in], alone, in a dict, list or "
            f"tuple, got "
            f"{_description(held)}"
        )
    return layers


def load_pt(path: Path) -> object:
    """What is in the file. Raises InputError and, for damaged bytes, whatever PyTorch does."""
    check_regular(path)
    with path.open("rb") as file:
        check_torch_save(file, path, most_summed=MOST_SUMMED)
        if not is_zipfile(file) or not str(path).isascii():
            file.seek(0)  # PyTorch maps no file of its old format, or whose name is no UTF-8
            what = f"to read {path}, which cannot be mapped"
            check_memory(path.stat().st_size, torch.device("cpu"), what, "save it again with torch.save")
            return torch.load(file, map_location="cpu", weights_only=True)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def tensor_part(tensor: Tensor, where: object) -> Part:
    """A layer that is a tensor. Raises InputError unless it is dense, with a value of its own for each place."""
    tokens, d_in, sequence = shape_as_tokens(tensor.shape, where)
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise InputError(f"{where}: expected a dense tensor, got {tensor.layout} on {tensor.device}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{where}: expected a value of its own for every place; save a contiguous copy")
    sequences = tensor if sequence else tensor[None]

    def read(start: int, stop: int) -> Tensor:
        rows = torch.cat([sequences[n, first:last] for n, first, last in runs(start, stop, sequence or tokens)])
        return rows.float() if tensor.dtype in WIDENED else rows

    given = torch.float32 if tensor.dtype in WIDENED else tensor.dtype
    return Part(tokens=tokens, d_in=d_in, dtype=given, read=read, sequence=sequence)


def _is_layer(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim in (2, 3)


def _names(held: object, depth: int = 3) -> Iterator[str]:
    """The names in a dict, and in the dicts within: a checkpoint keeps its weights one or two levels down."""
    if isinstance(held, Mapping) and depth:
        for name, value in held.items():
            yield str(name)
            yield from _names(value, depth - 1)


def _description(held: object) -> str:
    if isinstance(held, Tensor):
        return f"shape {list(held.shape)} of {held.dtype}"
    if isinstance(held, Mapping):
        return f"a dict of {list_names([str(name) for name in held]) or 'nothing'}"
    return type(held).__name__
