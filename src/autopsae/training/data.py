"""The endless stream of shuffled training batches. A seed fixes their order, and a run can resume at any batch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from autopsae.arrays import InputError, NoTokens, Tokens, chunks
from autopsae.passes import Digest, check_pass, check_same
from autopsae.seeds import stream


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
        self._tokens, self._batch_tokens = tokens, batch_tokens
        self._dtype, self._device = dtype, device
        self._buffer_tokens = max(buffer_tokens, batch_tokens)
        state = stream(seed, "order of the tokens").get_state()
        self.place = place or Place(
            buffers=0, batches=0, held=torch.empty(0, 0), generator=state, read=Digest(), epoch=None
        )
        self._batches = self._draw()

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_in"]]:
        return self

    def __next__(self) -> Float[Tensor, "batch d_in"]:
        return next(self._batches)

    def _draw(self) -> Iterator[Tensor]:
        generator = torch.Generator()
        for epoch in count():
            read, buffers = Digest(), 0
            for number, buffer in enumerate(self._epoch(epoch)):
                place = self.place
                read, buffers = read + Digest.of(buffer), number + 1
                # A run that resumes in the middle of an epoch reads the source from its beginning. Here it has read
                # as far as before, so the digests can be compared. The current buffer counts once it is in use.
                if buffers == place.buffers + (place.batches > 0):
                    _check_read(place.read, read)
                if number < place.buffers:
                    continue
                pool = torch.cat([place.held.to(buffer), buffer]) if len(place.held) else buffer
                # The saved state gives a resumed run the same order of the pool.
                generator.set_state(place.generator)
                order = torch.randperm(len(pool), generator=generator)
                whole = len(pool) // self._batch_tokens
                for batch in range(place.batches, whole):
                    # Set before the batch is yielded, so that a checkpoint after its step goes on with the next.
                    self.place = replace(place, batches=batch + 1, read=read)
                    drawn = order[batch * self._batch_tokens : (batch + 1) * self._batch_tokens]
                    yield pool[drawn].to(self._device)
                held = pool[order[whole * self._batch_tokens :]]
                self.place = replace(
                    place, buffers=buffers, batches=0, held=held, generator=generator.get_state(), read=read
                )
            # The source ended before the saved place, so the comparison inside the loop was never reached.
            if buffers < self.place.buffers + (self.place.batches > 0):
                _check_read(self.place.read, read)
            if self.place.epoch is not None:
                check_pass(self.place.epoch, read)
            self.place = replace(self.place, buffers=0, read=Digest(), epoch=read)

    def _epoch(self, number: int) -> Iterator[Tensor]:
        """The buffers of epoch `number`, in the order of the source."""
        seen = 0
        try:
            for buffer in chunks(self._tokens, self._buffer_tokens, dtype=self._dtype):
                seen += len(buffer)
                yield buffer
        except NoTokens as error:
            if number == 0:
                raise
            raise InputError(
                f"the stream of tokens ended early: read a second time, it gave none ({error}); pass something "
                "that starts afresh each time it is iterated"
            ) from error
        if seen < self._batch_tokens:
            raise InputError(
                f"expected at least batch_tokens = {self._batch_tokens:,} tokens, the stream ended after {seen:,}; "
                "harvest more or take smaller batches"
            )


def _check_read(before: Digest | None, now: Digest) -> None:
    """Raises InputError if a resumed run reads other tokens than before."""
    if before is None:  # an earlier version saved no digest
        return
    advice = "pass those, or begin another run in a new folder"
    check_same(before, now, expected="to resume on the activations that the run began with", advice=advice)
