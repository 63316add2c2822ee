"""Which loops there are for some tensors, and how many threads they are worth."""

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from autopsae.kernels.own_math import own_math

SUMMED = (torch.float32, torch.float64)
COMPARED = (*SUMMED, torch.bfloat16)
SMALL = 1 << 19
"""Values over which a loop takes longer than waiting for other threads."""


def choose_loops(*tensors: Tensor) -> ModuleType | None:
    """The compiled loops that choose, where they take such tensors."""
    loops = load_loops() if fit(tensors, COMPARED) else None
    return loops.choose if loops else None


def sum_loops(*tensors: Tensor) -> ModuleType | None:
    """The compiled loops that sum, where they take such tensors."""
    loops = load_loops() if fit(tensors, SUMMED) else None
    return loops.sums if loops else None


def step_loops(*tensors: Tensor) -> ModuleType | None:
    """The compiled loop of an optimizer's step, where it takes such tensors."""
    loops = load_loops() if fit(tensors, SUMMED) else None
    return loops.adam if loops else None


def row_loops(*tensors: Tensor) -> ModuleType | None:
    """The compiled loops over rows of tokens, where they take such tensors."""
    loops = load_loops() if fit(tensors, SUMMED) else None
    return loops.rows if loops else None


class Loops(NamedTuple):
    """The compiled loops, a module each."""

    choose: ModuleType
    sums: ModuleType
    adam: ModuleType
    screen: ModuleType
    screen_above: ModuleType
    rows: ModuleType
    concepts: ModuleType


@cache
def load_loops() -> Loops | None:
    """The compiled loops, or None without Numba."""
    try:
        with own_math():
            from autopsae.kernels import (
                numba_adam,
                numba_choose,
                numba_concepts,
                numba_rows,
                numba_screen,
                numba_screen_above,
                numba_sums,
            )
    except ImportError:
        return None
    loops = (numba_choose, numba_sums, numba_adam, numba_screen, numba_screen_above, numba_rows, numba_concepts)
    return Loops(*loops)


def fit(tensors: Sequence[Tensor], dtypes: tuple[torch.dtype, ...]) -> bool:
    """Can the loops read them where they are?"""
    return all(t.device.type == "cpu" and t.dtype in dtypes and t.is_contiguous() for t in tensors)


def threads_for(values: int) -> int:
    """Threads for a loop over so many values: one where the others would come too late."""
    return torch.get_num_threads() if values > SMALL else 1


def spans(members: int, values: int) -> int:
    """Into how many spans each member's rows are cut, so that every thread has work."""
    threads = threads_for(values)
    return 1 if members >= threads else -(-threads // members)
