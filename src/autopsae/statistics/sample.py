"""A uniform sample of a token stream, the same however the stream is cut or split.

Each token gets a pseudo-random key from its place in the stream, and the tokens with the smallest keys are kept.
So a sample needs no knowledge of the stream's length, merges exactly, and does not depend on the chunking.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.seeds import hash_seed, keys


@dataclass(frozen=True)
class Rows:
    """Where tokens lie in a file of which nobody knows the place in the stream."""

    file: str
    """A digest of the file."""
    first: int
    """The row of the first of the tokens."""


class Reservoir:
    """Keeps `size` tokens of those it is shown, each token of the stream being equally likely.

    size: tokens kept; seed: chooses the sample. `merge` needs parts that saw disjoint places of one stream.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        self._keys = np.empty(0, np.uint64)
        self._places = np.empty(0, np.int64)
        self._rows: Tensor | None = None

    def add(self, x: Float[Tensor, "tokens d_in"], start: int, *, rows: Rows | None = None) -> None:
        """Show it the tokens at places start, start + 1, ... of the stream. It keeps them as they come, in float32
        or float64. rows: where the stream has no order of its own, the rows of the file by which they are drawn.
        """
        places, purpose = np.arange(start, start + len(x)), "sample of the tokens"
        if rows is None:
            drawn = keys(places, hash_seed(self.seed, purpose))
        else:
            numbers = np.arange(rows.first, rows.first + len(x))
            drawn = keys(numbers, hash_seed(self.seed, f"{purpose} of {rows.file}"))
        if len(self._keys) == self.size:
            below = np.flatnonzero(drawn < self._keys.max())
            places, drawn, x = places[below], drawn[below], x[torch.from_numpy(below).to(x.device)]
        self._take(drawn, places, x)

    def merge(self, other: "Reservoir") -> "Reservoir":
        """The sample of both streams' tokens together."""
        if (self.size, self.seed) != (other.size, other.seed):
            raise InputError(
                f"merge: expected samples of one size and seed, got {(self.size, self.seed)} "
                f"and {(other.size, other.seed)}"
            )
        merged = Reservoir(self.size, seed=self.seed)
        for part in (self, other):
            if part._rows is not None:
                merged._take(part._keys, part._places, part._rows)
        return merged

    def tokens(self) -> Float[Tensor, "sample d_in"]:
        """The sample in float64, in the order of the stream."""
        if self._rows is None:
            raise InputError("expected at least one token to sample from, got none")
        return self._rows[torch.from_numpy(np.argsort(self._places)).to(self._rows.device)].double()

    def part(self, size: int) -> "Reservoir":
        """The sample of `size` tokens that a smaller reservoir would have kept of the same stream."""
        part = Reservoir(size, seed=self.seed)
        if self._rows is not None:
            smallest = np.argsort(self._keys)[:size]
            rows = self._rows[torch.from_numpy(smallest).to(self._rows.device)]
            part._take(self._keys[smallest], self._places[smallest], rows)
        return part

    def move(self, starts: Mapping[int, int]) -> "Reservoir":
        """The same sample where stretches of the stream begin at other places: {place where one began: where it
        begins now}. The places of each stretch are those from its beginning to the next one's.
        """
        moved = Reservoir(self.size, seed=self.seed)
        if self._rows is not None:
            moved._take(self._keys, self._places + shifts(self._places, starts), self._rows)
        return moved

    def state(self) -> "ReservoirState":
        """All that it holds, in the order of the stream."""
        if self._rows is None:
            raise InputError("expected at least one token to sample from, got none")
        order = np.argsort(self._places)
        rows = self._rows[torch.from_numpy(order).to(self._rows.device)]
        return ReservoirState(keys=self._keys[order], places=self._places[order], rows=rows)

    @staticmethod
    def of(state: "ReservoirState", size: int, *, seed: int) -> "Reservoir":
        """The reservoir that held this state."""
        reservoir = Reservoir(size, seed=seed)
        reservoir._take(state.keys, state.places, state.rows)
        return reservoir

    @property
    def places(self) -> Int[np.ndarray, "sample"]:
        """The places in the stream of the tokens of `tokens()`, in the same order. With them, what is known of each
        token of the stream, such as its document, is looked up for the sample.
        """
        return np.sort(self._places)

    def _take(self, keys: NDArray[Any], places: NDArray[Any], x: Tensor) -> None:
        if not len(keys):
            return
        room = self.size - len(self._keys)
        if self._rows is None or room > 0:
            self._rows = x.clone() if self._rows is None else torch.cat([self._rows, x])
            self._keys = np.concatenate([self._keys, keys])
            self._places = np.concatenate([self._places, places])
            if len(self._keys) > self.size:
                self._keep(np.argpartition(self._keys, self.size - 1)[: self.size])
            return
        # Full: the smallest keys of old and new together; newcomers overwrite the rows that leave, in place.
        smallest = np.argpartition(np.concatenate([self._keys, keys]), self.size - 1)[: self.size]
        entering = smallest[smallest >= self.size] - self.size
        leaving = np.setdiff1d(np.arange(self.size), smallest)
        self._keys[leaving], self._places[leaving] = keys[entering], places[entering]
        device = self._rows.device
        self._rows = self._rows.to(torch.promote_types(self._rows.dtype, x.dtype))
        self._rows[torch.from_numpy(leaving).to(device)] = x[torch.from_numpy(entering).to(x.device)].to(self._rows)

    def _keep(self, rows: NDArray[Any]) -> None:
        assert self._rows is not None
        self._keys, self._places = self._keys[rows], self._places[rows]
        self._rows = self._rows[torch.from_numpy(rows).to(self._rows.device)]


def shifts(places: NDArray[np.int64], starts: Mapping[int, int]) -> NDArray[np.int64]:
    """By how much each of these places moves with its stretch of the stream; starts: as for `Reservoir.move`."""
    before = np.array(sorted(starts), np.int64)
    now = np.array([starts[place] for place in sorted(starts)], np.int64)
    moved: NDArray[np.int64] = (now - before)[np.searchsorted(before, places, side="right") - 1]
    return moved


@dataclass(frozen=True, kw_only=True, eq=False)
class ReservoirState:
    """What a reservoir holds."""

    keys: UInt64[np.ndarray, "sample"]
    """The keys of the tokens."""
    places: Int[np.ndarray, "sample"]
    """Their places in the stream, in order."""
    rows: Float[Tensor, "sample d_in"]
    """The tokens, in float32 or float64."""


BLOCK = 512
"""Tokens of a sample that are judged as one batch."""


def spread(tokens: int, device: torch.device) -> Int[Tensor, "tokens"]:
    """The places of the sample so ordered that each block has tokens from all over it, as a shuffled batch has:
    BatchTopK takes blocks for batches.
    """
    stride = max(1, tokens // BLOCK)
    place = torch.arange(tokens, device=device)
    return torch.cat([place[first::stride] for first in range(stride)])
