"""Replacing: a forward pass that goes on with other activations than those it computed at a point (see `hooks`)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from autopsae.activations.batches import forward
from autopsae.activations.hooks import as_tokens, first_tensor, hidden_state_names, hooked, select_points
from autopsae.arrays import InputError


@contextmanager
def replace_activations(model: nn.Module, point: str, new: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context, one forward pass of `model` goes on with `new(x)` where a module takes or gives x.

    point: a module's name, or `name:input`; x and new(x): [batch, seq, d_in] or [tokens, d_in]; of features
    [batch, channels, height, width] their tokens, as `hooks` has them. The hook is removed however the context
    ends.

        with replace_activations(model, "transformer.h.3.mlp", torch.zeros_like):
            logits = model(ids).logits

    Raises InputError for a point that the model does not have or that is a hidden state (`at_module` says where
    it is), and for one that was not reached exactly once.
    """
    [point] = select_points(model, [point])
    if point in hidden_state_names(model):
        raise InputError(f"{point}: expected a point at a module, got a hidden state; pass at_module(...) of it")
    reached = 0

    def change(value: Any) -> Any:
        nonlocal reached
        reached += 1
        key, x = first_tensor(point, value)
        tokens = new(as_tokens(x))
        return _with(value, key, tokens.transpose(1, 2).reshape(x.shape) if x.ndim == 4 else tokens)

    def change_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        values = change((*args, *kwargs.values()))
        return values[: len(args)], dict(zip(kwargs, values[len(args) :], strict=True))

    module = model.get_submodule(point.removesuffix(":input"))
    if point.endswith(":input"):
        handle = module.register_forward_pre_hook(change_input, with_kwargs=True)
    else:
        handle = module.register_forward_hook(lambda _module, _args, output: change(output))
    try:
        yield
    finally:
        handle.remove()
    if reached != 1:
        raise InputError(
            f"{point}: expected to be reached once, got {reached} times; replace only what a pass runs exactly once"
        )


@torch.no_grad()
def at_module(model: nn.Module, point: str, batch: Any) -> str:
    """The point at a module where hidden state `point` can be replaced; a point at a module is its own.

    hsN is what block N takes, and the last one, after the final norm, what the output layer takes. Whether it is
    so is seen by running `batch` once.

    Raises InputError for a point that the model does not have, and for a hidden state that is no module's input.
    """
    [point] = select_points(model, [point])
    states = hidden_state_names(model)
    if point not in states:
        return point
    taker = _output_layer(model) if point == states[-1] else _block(model, states.index(point), len(states) - 1)
    if taker is not None:
        with hooked(model, [point, f"{taker}:input"], dtype=torch.float64) as capture:
            forward(model, batch, 0)
            state, taken = capture.take().values()
        if torch.equal(state, taken):
            return f"{taker}:input"
    raise InputError(
        f"{point}: expected a hidden state that a block or the output layer takes as it is, found no such module; "
        "pass the name of a module, or name:input"
    )


def _block(model: nn.Module, number: int, count: int) -> str | None:
    """The block's name in the outermost list of as many modules as the model has layers."""
    lists = (
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count
    )
    blocks = next(lists, None)
    return None if blocks is None else f"{blocks}.{number}"


def _output_layer(model: nn.Module) -> str | None:
    layer = getattr(model, "get_output_embeddings", lambda: None)()
    return next((name for name, module in model.named_modules() if module is layer), None)


def _with(value: Any, key: Any, x: Tensor) -> Any:
    """A copy of what a module takes or gives with x at `key`."""
    if isinstance(value, Mapping):
        changed: Any = copy(value)
        changed[key] = x
        return changed
    if isinstance(value, (tuple, list)):
        return type(value)(x if place == key else item for place, item in enumerate(value))
    return x
