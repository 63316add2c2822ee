"""The order of the training tokens: shuffled, endless, the same for the same seed, and resumable at any batch."""

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
    """Where in the shuffled stream the next batch begins: so many buffers into an epoch, so many batches into the
    pool that was made of the tokens held over and that buffer, in the order that the generator's state gives.
    """

    buffers: int
    batches: int
    held: Float[Tensor, "held d_in"]
    generator: UInt8[Tensor, "state"]
    read: Digest | None
    """Of the tokens of this epoch that the batches so far are from: a run that goes on here must read the same.
    None in a place that an earlier version saved, where it is not known."""
    epoch: Digest | None
    """Of the first epoch, which every later one is compared with; None before its end."""


class Shuffled:
    """Batches drawn at random from a buffer of raw tokens that is refilled from the stream, again and again.

    A buffer that holds the whole source shuffles all of it afresh each epoch; a smaller one mixes as many
    neighbouring documents as fit. What an epoch leaves over whole batches goes into the next one.

    Raises InputError as `chunks`, for a source with fewer tokens than a batch, for an epoch of other tokens than
    the first one, and where `place` was left in a stream of other tokens.
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
                # Only true where a run goes on in the middle of an epoch.
                if buffers == place.buffers + (place.batches > 0):
                    _check_read(place.read, read)
                if number < place.buffers:
                    continue
                pool = torch.cat([place.held.to(buffer), buffer]) if len(place.held) else buffer
                generator.set_state(place.generator)
                order = torch.randperm(len(pool), generator=generator)
                whole = len(pool) // self._batch_tokens
                for batch in range(place.batches, whole):
                    # Moved on before the batch is given: whoever saves after using it goes on with the next.
                    self.place = replace(place, batches=batch + 1, read=read)
                    drawn = order[batch * self._batch_tokens : (batch + 1) * self._batch_tokens]
                    yield pool[drawn].to(self._device)
                held = pool[order[whole * self._batch_tokens :]]
                self.place = replace(
                    place, buffers=buffers, batches=0, held=held, generator=generator.get_state(), read=read
                )
            if buffers < self.place.buffers + (self.place.batches > 0):
                _check_read(self.place.read, read)
            if self.place.epoch is not None:
                check_pass(self.place.epoch, read)
            self.place = replace(self.place, buffers=0, read=Digest(), epoch=read)

    def _epoch(self, number: int) -> Iterator[Tensor]:
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
    """InputError where a run goes on with other tokens than it was trained on before."""
    if before is None:
        return
    advice = "pass those, or begin another run in a new folder"
    check_same(before, now, expected="to resume on the activations that the run began with", advice=advice)
