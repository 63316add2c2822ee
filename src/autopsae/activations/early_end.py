"""Passes that end at the last wanted point: what a network would compute after it is left out.

Hidden states are known only when a whole pass is over. But each of them is also what some module gave or took. A
whole pass over the first batch tells which, as it is the same tensor. That batch is then run once more, ending
early. Only if all activations are the same to the bit do later passes end early too.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from autopsae.activations.batches import forward
from autopsae.activations.hooks import (
    Capture,
    PassEnded,
    first_tensor,
    hidden_state,
    hidden_state_names,
    hooked,
    select_points,
)
from autopsae.arrays import InputError

Seen = dict[str, list["weakref.ref[Tensor]"]]
"""What each module took (`module:input`) and gave, in the order of time; weak, as all of it may not fit."""


class Passes:
    """Passes of a model, each of which leaves its points in a `Capture`. Made by `passes_of`."""

    def __init__(
        self, model: nn.Module, points: Sequence[str], dtype: torch.dtype, stack: ExitStack, *, end_early: bool
    ) -> None:
        self._model, self._dtype, self._stack = model, dtype, stack
        self._points = select_points(model, points)
        # After the last hidden state come the logits alone, which `without_logits` spares.
        last = {*hidden_state_names(model)[-1:]}
        self._is_decided = not end_early or not last.isdisjoint(self._points)
        self._capture = self._hook()

    def run(self, batch: Any, number: int) -> Capture:
        """One pass over a batch. number: the batch's, for messages. Raises InputError as `forward`."""
        if self._is_decided:
            return self._run(batch, number)
        self._is_decided = True
        with _watch(self._model, self._points) as sources:
            whole = self._run(batch, number)
        if not sources:
            return whole
        self._capture = self._hook(sources)
        ended = self._run(batch, number)
        if ended.equals(whole):
            return ended
        self._capture = self._hook()
        return whole

    def _hook(self, sources: Mapping[str, str] | None = None) -> Capture:
        self._stack.close()
        hooks = hooked(self._model, self._points, dtype=self._dtype, sources=sources)
        return self._stack.enter_context(hooks)

    def _run(self, batch: Any, number: int) -> Capture:
        with suppress(PassEnded):
            forward(self._model, batch, number)
        return self._capture


@contextmanager
def passes_of(
    model: nn.Module, points: Sequence[str], *, dtype: torch.dtype = torch.float32, end_early: bool = True
) -> Iterator[Passes]:
    """Within the context, passes of `model` that keep the points, and from the second on end at the last of them.

    end_early: False for a model of which a whole pass may be wanted, such as one that counts its passes itself. A
    point that the first pass reaches once counts as reached once by all. Raises InputError as `hooked`.
    """
    with ExitStack() as stack:
        yield Passes(model, points, dtype, stack, end_early=end_early)


@contextmanager
def _watch(model: nn.Module, points: Sequence[str]) -> Iterator[dict[str, str]]:
    """After a pass within the context: what `_sources` finds."""
    seen: Seen = {}
    sources: dict[str, str] = {}

    def note(point: str, value: Any) -> None:
        of_point = seen.setdefault(point, [])
        with suppress(InputError):  # it is given no activations, or gives none
            of_point.append(weakref.ref(first_tensor(point, value)[1]))

    def hooks_of(name: str, module: nn.Module) -> list[RemovableHandle]:
        return [
            module.register_forward_pre_hook(
                lambda _module, args, kwargs: note(f"{name}:input", (*args, *kwargs.values())), with_kwargs=True
            ),
            module.register_forward_hook(lambda _module, _args, output: note(name, output)),
        ]

    handles = [handle for name, module in model.named_modules() if name for handle in hooks_of(name, module)]
    at_end = model.register_forward_hook(
        lambda _model, _args, output: sources.update(_sources(model, points, seen, output))
    )
    try:
        yield sources
    finally:
        for handle in (*handles, at_end):
            handle.remove()


def _sources(model: nn.Module, points: Sequence[str], seen: Seen, output: Any) -> dict[str, str]:
    """{point: where it is read}: a module's point at itself, a hidden state at what first took or gave its tensor.

    {} where one is not found or not reached once, and where no module is called after the last of them.
    """
    once = {point: tensors[0]() for point, tensors in seen.items() if len(tensors) == 1}
    first = {id(tensor): point for point, tensor in reversed(once.items()) if tensor is not None}
    states = hidden_state_names(model)
    sources = {
        point: first.get(id(hidden_state(output, point)), "") if point in states else point for point in points
    }
    order = [*seen]
    if not {*sources.values()} <= {*once}:
        return {}
    last = max(order.index(source) for source in sources.values())
    return sources if any(point.endswith(":input") for point in order[last:]) else {}
