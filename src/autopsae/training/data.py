"""The endless stream of shuffled training batches. A seed fixes their order, and a run can resume at any batch."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeVar
from weakref import finalize

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from autopsae.arrays import InputError, NoTokens, Tokens, chunks, from_files
from autopsae.passes import Digest, check_pass, check_same
from autopsae.seeds import stream
from autopsae.threads import read_ahead
from autopsae.transfers import is_gpu, rows_for

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """The position of the next batch in the shuffled stream, from which the same batches follow again.

    An epoch is read buffer by buffer. The *pool* is the current buffer plus the tokens that the pool before it left
    over; batches are taken from the pool in a random order.
    """

    buffers: int
    """Number of buffers of this epoch that are used up. The next one is the current buffer."""
    batches: int
    """Number of batches that were taken from the pool."""
    held: Float[Tensor, "held d_in"]
    """Tokens that the pool before this one left over, because they did not fill a batch."""
    generator: UInt8[Tensor, "state"]
    """State of the random generator from which the order of the pool is drawn."""
    read: Digest | None
    """Digest of the tokens of this epoch that were read so far. A run that resumes here must read the same tokens.
    None in a place that an earlier version saved, which has no digest."""
    epoch: Digest | None
    """Digest of the first epoch. Every later epoch must have the same. None before the first epoch has ended."""


class Shuffled:
    """An endless iterator of training batches. It reads the tokens buffer by buffer and shuffles each buffer.

    If the buffer holds the whole source, each epoch is a new random order of all tokens. A smaller buffer mixes
    only tokens that are near each other in the source. Tokens that do not fill a batch join the next buffer, also
    from one epoch to the next. `place` is the position of the next batch.

    Iterating raises InputError if the source has fewer tokens than a batch, if an epoch has other tokens than the
    first one, if `place` is from a stream of other tokens, and as `chunks` for the tokens.

    Beside a GPU, files and matrices in main memory are read in threads: the next buffer while this one is used, and
    the rows of the next batch while the device computes. The batches are the same.
    """

    def __init__(
        self,
        tokens: Tokens,
        batch_tokens: int,
        *,
        buffer_tokens: int,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        place: Place | None = None,
    ) -> None:
        """tokens: raw, [tokens, d_in], or a re-iterable of such matrices. batch_tokens: the size of a batch.
        buffer_tokens: the size of the buffer, raised to `batch_tokens` if it is smaller. place: where to go on;
        None for the beginning.
        """
        state = stream(seed, "order of the tokens").get_state()
        held = torch.empty(0, 0, dtype=torch.float32, device="cpu")
        begin = Place(buffers=0, batches=0, held=held, generator=state, read=Digest(), epoch=None)
        self.place = place or begin
        self._device = device
        drawing = _Drawing(
            tokens=tokens,
            batch_tokens=batch_tokens,
            buffer_tokens=max(buffer_tokens, batch_tokens),
            dtype=dtype,
            device=device,
        )
        self._batches = drawing.ahead(drawing.batches(self.place))
        # Closed with this object, or at the latest before the interpreter is taken down.
        finalize(self, self._batches.close)

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_in"]]:
        return self

    def __next__(self) -> Float[Tensor, "batch d_in"]:
        # Moved on before the batch is given: whoever saves after using it goes on with the next.
        batch, self.place = next(self._batches)
        return batch.to(self._device, non_blocking=is_gpu(self._device))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawing:
    """How batches are drawn. It does not know the `Shuffled` that it draws for, so that a thread that reads ahead
    keeps none alive, and ends with it.
    """

    tokens: Tokens
    batch_tokens: int
    buffer_tokens: int
    dtype: torch.dtype
    device: torch.device | str | None

    def ahead(self, items: Generator[Item, None, None]) -> Generator[Item, None, None]:
        """The items, read in a thread beside a GPU, where the source may be read in one."""
        ours = from_files(self.tokens) or isinstance(self.tokens, (Tensor, np.ndarray))
        return read_ahead(items) if ours and is_gpu(self.device) else items

    def batches(self, place: Place) -> Generator[tuple[Tensor, Place], None, None]:
        """Each batch from `place` on, with the place after it; in pinned memory if it is to go to a GPU."""
        generator = torch.Generator()
        for epoch in count():
            read, buffers = Digest(), 0
            for number, (buffer, digest) in enumerate(self.ahead(self._buffers(epoch))):
                read, buffers = read + digest, number + 1
                # A run that resumes in the middle of an epoch reads the source from its beginning. Here it has read
                # as far as before, so the digests can be compared. The current buffer counts once it is in use.
                if buffers == place.buffers + (place.batches > 0):
                    _check_read(place.read, read)
                if number < place.buffers:
                    continue
                pool = torch.cat([place.held.to(buffer), buffer]) if len(place.held) else buffer
                # The saved state gives a resumed run the same order of the pool.
                generator.set_state(place.generator)
                order = torch.randperm(len(pool), generator=generator, device="cpu")
                whole = len(pool) // self.batch_tokens
                for batch in range(place.batches, whole):
                    drawn = order[batch * self.batch_tokens : (batch + 1) * self.batch_tokens]
                    yield rows_for(pool, drawn, self.device), replace(place, batches=batch + 1, read=read)
                held = pool[order[whole * self.batch_tokens :]]
                place = replace(
                    place, buffers=buffers, batches=0, held=held, generator=generator.get_state(), read=read
                )
            # The source ended before the saved place, so the comparison inside the loop was never reached.
            if buffers < place.buffers + (place.batches > 0):
                _check_read(place.read, read)
            if place.epoch is not None:
                check_pass(place.epoch, read)
            place = replace(place, buffers=0, read=Digest(), epoch=read)

    def _buffers(self, epoch: int) -> Generator[tuple[Tensor, Digest], None, None]:
        """The buffers of a pass over the tokens, with their digests."""
        seen = 0
        try:
            for buffer in chunks(self.tokens, self.buffer_tokens, dtype=self.dtype):
                seen += len(buffer)
                yield buffer, Digest.of(buffer)
        except NoTokens as error:
            if epoch == 0:
                raise
            raise InputError(
                f"the stream of tokens ended early: read a second time, it gave none ({error}); pass something "
                "that starts afresh each time it is iterated"
            ) from error
        if seen < self.batch_tokens:
            raise InputError(
                f"expected at least batch_tokens = {self.batch_tokens:,} tokens, the stream ended after {seen:,}; "
                "harvest more or take smaller batches"
            )


def _check_read(before: Digest | None, now: Digest) -> None:
    """Raises InputError if a resumed run reads other tokens than before."""
    if before is None:  # an earlier version saved no digest
        return
    advice = "pass those, or begin another run in a new folder"
    check_same(before, now, expected="to resume on the activations that the run began with", advice=advice)
