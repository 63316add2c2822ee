"""The order of the training tokens: shuffled, endless, the same for the same seed."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import Tokens, chunks


def shuffled(
    tokens: Tokens, batch_tokens: int, *, buffer_tokens: int, seed: int, device: torch.device | str | None = None
) -> Iterator[Float[Tensor, "batch d_in"]]:
    """Batches drawn at random from a buffer of raw tokens that is refilled from the stream, again and again.

    A buffer that holds the whole source shuffles all of it afresh each epoch; a smaller one mixes as many
    neighbouring documents as fit. What an epoch leaves over whole batches goes into the next one.

    Raises InputError as `chunks`.
    """
    generator = torch.Generator().manual_seed(seed)
    buffer_tokens = max(buffer_tokens, batch_tokens)
    held: Tensor | None = None
    while True:
        for buffer in chunks(tokens, buffer_tokens):
            pool = buffer if held is None else torch.cat([held, buffer])
            order = torch.randperm(len(pool), generator=generator)
            whole = len(pool) // batch_tokens * batch_tokens
            for start in range(0, whole, batch_tokens):
                yield pool[order[start : start + batch_tokens]].to(device)
            held = pool[order[whole:]]
