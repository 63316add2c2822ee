"""Hooks: the activations of any torch module by name, several points in one forward pass.

A point is a module's dotted name (its output), `name:input` (its input), or `hs0` .. `hsL`, the hidden states
of a Hugging Face model: those of the encoder where it has an encoder and a decoder.

Features of images, [batch, channels, height, width], are tokens of `channels` dimensions: [batch, height * width,
channels], row by row. Three dimensions are [batch, seq, d_in] and nothing else, as no shape says which of two axes
is the features: for [batch, channels, time], as one-dimensional convolutions give it, hook a module that gives its
transpose (`models.spliceai` is such a network).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from autopsae.activations.store import select_layers
from autopsae.arrays import InputError


class PassEnded(BaseException):
    """All points were reached, and the rest of the pass is left out. No Exception: a model must not answer it."""


class Capture:
    """What the hooked points gave since the last `take`. Made by `hooked`."""

    def __init__(self, points: Sequence[str], dtype: torch.dtype, *, ends: bool = False) -> None:
        self._dtype, self._ends = dtype, ends
        self._passes: dict[str, list[Tensor]] = {point: [] for point in points}

    def put(self, point: str, value: Any) -> None:
        """Keep a copy of what `point` gave for one batch."""
        # A copy, because what follows in the network may work in place on what the hook was shown.
        _, tensor = first_tensor(point, value)
        self._passes[point].append(as_tokens(tensor).detach().to("cpu", self._dtype, copy=True))
        if self._ends and all(self._passes.values()):
            raise PassEnded

    def equals(self, other: "Capture") -> bool:
        """Whether all points gave the same, to the bit."""
        pairs = [(passes, other._passes[point]) for point, passes in self._passes.items()]
        return all(len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in pairs)

    @property
    def shape(self) -> torch.Size:
        """[batch, seq] of the last forward pass, or [tokens] where no point has both."""
        shapes = [_only(point, passes).shape[:-1] for point, passes in self._passes.items()]
        return max(shapes, key=len)

    def take(self, mask: Shaped[Tensor, "*batch"] | None = None) -> dict[str, Float[Tensor, "tokens _"]]:
        """Each point's tokens [tokens, d_in] of one forward pass, where `mask` is True; forgets them.

        They are copies: they stay what they are when the network or the batches use their memory again. A point
        [tokens, d_in] may be given a mask of [batch, seq]; its tokens are then those of the rows one after another.

        Raises InputError for a point that was not reached or was reached more than once, and for a mask
        that is not bool or not of the shape of the tokens.
        """
        passes_of = self._passes
        self._passes = {point: [] for point in passes_of}
        return {point: _tokens(point, _only(point, passes), mask) for point, passes in passes_of.items()}


@contextmanager
def hooked(
    model: nn.Module,
    points: Sequence[str],
    *,
    dtype: torch.dtype = torch.float32,
    sources: Mapping[str, str] | None = None,
) -> Iterator[Capture]:
    """Within the context, every forward pass of `model` leaves the points' activations in the Capture.

    They are detached, on the CPU, in `dtype`. The hooks are removed however the context ends.

        with hooked(model, ["encoder.layer.3", "encoder.layer.3:input"]) as capture:
            model(**batch)
            tokens = capture.take(batch["attention_mask"].bool())

    sources: {hidden state: the point of a module at which it is read}. With them a pass ends, by PassEnded, once
    all points were reached.

    Raises InputError for a point that the model does not have (naming the near ones).
    """
    points = select_points(model, points)
    capture = Capture(points, dtype, ends=sources is not None)
    handles: list[RemovableHandle] = []
    try:
        for point in points:
            handles += _hooks(model, point, (sources or {}).get(point, point), capture)
        yield capture
    finally:
        for handle in handles:
            handle.remove()


def layer_names(model: nn.Module) -> list[str]:
    """Every point that `model` has: its hidden states, then its modules (each also as `name:input`)."""
    modules = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    return hidden_state_names(model) + modules


def select_points(model: nn.Module, wanted: Sequence[str]) -> list[str]:
    """The wanted points by their full names, once each (`7` is `hs7`), or InputError with near names."""
    if not wanted or isinstance(wanted, str):
        raise InputError(f"points: expected a list of names such as ['hs3', 'encoder:input'], got {wanted!r}")
    names = layer_names(model)
    points: dict[str, None] = {}
    for point in wanted:
        name = point.removesuffix(":input")
        # A hidden state is no module, so it has no input.
        known = names if name == point else names[len(hidden_state_names(model)) :]
        points[select_layers(known, [name])[0] + point[len(name) :]] = None
    return list(points)


def hidden_state_names(model: nn.Module) -> list[str]:
    """hs0 (the embedding) .. hsL of a Hugging Face model of L layers; none for another."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        return []
    layers = getattr(config.get_text_config(), "num_hidden_layers", -1)
    return [f"hs{number}" for number in range(layers + 1)]


def _hooks(model: nn.Module, point: str, source: str, capture: Capture) -> list[RemovableHandle]:
    if source in hidden_state_names(model):
        return [
            model.register_forward_pre_hook(
                lambda _model, args, kwargs: (args, {**kwargs, "output_hidden_states": True}),
                with_kwargs=True,
            ),
            model.register_forward_hook(
                lambda _model, _args, output: capture.put(point, hidden_state(output, point))
            ),
        ]
    module = model.get_submodule(source.removesuffix(":input"))
    if source.endswith(":input"):
        return [
            module.register_forward_pre_hook(
                lambda _module, args, kwargs: capture.put(point, (*args, *kwargs.values())), with_kwargs=True
            )
        ]
    return [module.register_forward_hook(lambda _module, _args, output: capture.put(point, output))]


def hidden_state(output: Any, point: str) -> Any:
    """The hidden state `point` of what a Hugging Face model returned. Raises InputError where it has fewer."""
    states = getattr(output, "hidden_states", None) or getattr(output, "encoder_hidden_states", None) or ()
    if int(point[2:]) >= len(states):
        raise InputError(f"{point}: the model returned {len(states)} hidden states; hook a module by name instead")
    return states[int(point[2:])]


def first_tensor(point: str, value: Any) -> tuple[Any, Tensor]:
    """(key, tensor): the first tensor in what a module takes or gives, and where; the key of a bare one is None.

    Raises InputError where that is not a floating-point [batch, seq, d_in], [tokens, d_in] or [batch, channels,
    height, width].
    """
    items: Iterable[tuple[Any, Any]] = [(None, value)]
    if isinstance(value, (Mapping, tuple, list)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
    key, tensor = next(((key, item) for key, item in items if isinstance(item, Tensor)), (None, None))
    if tensor is None or tensor.ndim not in (2, 3, 4) or not tensor.is_floating_point():
        got = type(value).__name__ if tensor is None else f"shape {tuple(tensor.shape)} of {tensor.dtype}"
        raise InputError(
            f"{point}: expected floating-point [batch, seq, d_in], [tokens, d_in] or [batch, channels, height, "
            f"width], got {got}; hook a module that gives one of these"
        )
    return key, tensor


def as_tokens(x: Shaped[Tensor, "*_"]) -> Shaped[Tensor, "*batch d_in"]:
    """[batch, channels, height, width] as [batch, height * width, channels]; any other shape as it is."""
    return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x


def _only(point: str, passes: list[Tensor]) -> Tensor:
    if len(passes) != 1:
        raise InputError(
            f"{point}: expected to be reached once since the last take, got {len(passes)} times; take "
            "after each forward pass, and hook only modules that every pass runs exactly once"
        )
    return passes[0]


def _tokens(point: str, tensor: Tensor, mask: Tensor | None) -> Tensor:
    rows = tensor.flatten(0, -2)
    if mask is None:
        return rows
    # [seq, batch] has as many entries as [batch, seq], in another order: only the shape tells them apart.
    if mask.dtype != torch.bool or (
        mask.shape != tensor.shape[:-1] if tensor.ndim == 3 else mask.numel() != len(rows)
    ):
        raise InputError(
            f"{point}: expected a bool mask with one entry for each token of {tuple(tensor.shape[:-1])}, got "
            f"shape {tuple(mask.shape)} of {mask.dtype}"
        )
    return rows[mask.flatten().cpu()]
