"""Rows that can only be read forwards: compressed, or in blocks of a size of their own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.reading import input_errors

MOST_OPEN = 16
"""Streams that are kept open at most, of all files together."""


@dataclass(eq=False)
class Stream:
    """Where the reading of one layer stands."""

    of: Callable[[int], object]
    """What opened it."""
    place: int
    """Number of the next row."""
    batches: Iterator[Tensor]
    left: Tensor
    """Rows of the last batch that were not taken yet."""

    def take(self, start: int, stop: int) -> Tensor:
        """The rows start ... stop - 1, and go on from there."""
        rows = []
        while self.place < stop:
            if not len(self.left):
                self.left = next(self.batches)
            skipped, taken = max(0, start - self.place), min(stop - self.place, len(self.left))
            rows.append(self.left[skipped:taken])
            self.place, self.left = self.place + taken, self.left[taken:]
        return torch.cat([piece for piece in rows if len(piece)])


_open: list[Stream] = []  # the one read last stands at the end


def forward_only(
    path: Path, opened: Callable[[int], tuple[int, Iterator[Tensor]]]
) -> Callable[[int, int], Float[Tensor, "rows d_in"]]:
    """`read(start, stop)` of rows that can only be streamed. opened(start): (number of its first row, batches).

    A stream stays open between reads, so that a pass over all rows reads the file once, and several passes at
    once do not disturb each other. Reading further back opens another.
    """

    def read(start: int, stop: int) -> Tensor:
        with input_errors(path, "a readable file of activations", "was it written whole?"):
            ahead = [stream for stream in _open if stream.of is opened and stream.place <= start]
            if ahead:
                stream = max(ahead, key=lambda stream: stream.place)
                _open.remove(stream)
            else:
                stream = Stream(opened, *opened(start), torch.empty(0, dtype=torch.float32, device="cpu"))
            rows = stream.take(start, stop)
            _open.append(stream)
            del _open[:-MOST_OPEN]
            return rows

    return read
