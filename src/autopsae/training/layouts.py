"""What the tensors of a checkpoint must be: their shapes and types, for as many members as go on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autopsae.saved import Layout
from autopsae.training.sources import Member

LATER = ("ever_fired", "last_resampling", "encoder_lengths")
"""Tensors that the first files of this version lack; `checkpoint.complete_tensors` tells them from the others."""


def layouts_of(tensors: Mapping[str, Tensor]) -> dict[str, Layout]:
    """What the tensors of a state must be, given those that `Training` has before its first step."""
    return {
        name: Layout(shape=tuple(tensor.shape), dtypes=(tensor.dtype,), needed=name not in LATER)
        for name, tensor in tensors.items()
    }


def among(going_on: int, name: str, layout: Layout) -> Layout:
    """For the members that go on: they come second in the moments and in what was counted, else first."""
    if name == "last_resampling":  # of all members, as their summaries tell it
        return layout
    axis = 1 if name.startswith("moments.") or name == "changes" else 0
    return replace(layout, shape=(*layout.shape[:axis], going_on, *layout.shape[axis + 1 :]))


def sae_layouts(members: Sequence[Member]) -> dict[str, Layout]:
    """Weights may be infinite, where the next step would say so."""
    return {
        f"sae.{m}.{name}": Layout(shape=tuple(tensor.shape), dtypes=(tensor.dtype,), finite=False)
        for m, member in enumerate(members)
        for name, tensor in member.sae.state_dict().items()
    }


def place_layouts(
    about: dict[str, Any], members: Sequence[Member], tensors: Mapping[str, Tensor]
) -> dict[str, Layout]:
    """Tokens held over from one buffer to the next, as many as there are, and the state of a generator."""
    d_in, state = members[0].sae.d_in, torch.Generator().get_state()
    layouts = {}
    for p in range(len(about["places"])):
        held = tensors.get(f"place.{p}.held", torch.empty(0, 0, dtype=torch.float32, device="cpu"))
        rows = len(held) if held.ndim else 0
        # [0, 0] before the first buffer was read.
        layouts[f"place.{p}.held"] = Layout(shape=(0, 0) if tuple(held.shape) == (0, 0) else (rows, d_in))
        layouts[f"place.{p}.generator"] = Layout(shape=tuple(state.shape), dtypes=(state.dtype,))
    return layouts
