"""Which tokens are trained on and which are held out, and how many there are of either."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.activations.spread import spread
from autopsae.activations.store import Activations
from autopsae.arguments import whole
from autopsae.arrays import InputError, Tokens, chunks, from_files
from autopsae.passes import known_tokens, source_documents

SHARE = 10
"""One token in so many is held out."""

MOST = 100_000
"""Tokens that are held out at most: the number on which the paper counts the dead."""

ON_THE_WAY = 4096
"""Held-out tokens at most that are measured on before training is over, as measurements cost time."""


@dataclass(frozen=True)
class Counted:
    """Tokens whose number was counted before; iterated as often as wanted."""

    source: Tokens
    tokens: int

    @property
    def from_files(self) -> bool:
        """As that of its source."""
        return from_files(self.source)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.source)


class Spread:
    """Some of the tokens, spread over all, or the others; iterated as often as wanted."""

    def __init__(self, source: Tokens, places: Sequence[int], *, tokens: int, others: bool = False) -> None:
        """places: of the tokens, in order; others: yield those elsewhere; tokens: how many are yielded."""
        self._source, self._places, self._others = source, torch.as_tensor(places, device="cpu"), others
        self.tokens = tokens
        self.from_files = from_files(source)

    @property
    def documents(self) -> Any:
        """The number of the document of each yielded token, where the source tells; None where it does not."""
        numbers = source_documents(self._source)
        if numbers is None:
            return None
        chosen = np.isin(np.arange(len(numbers)), self._places.numpy(), invert=self._others)
        return np.asarray(numbers)[chosen]

    def __iter__(self) -> Iterator[Float[Tensor, "some d_in"]]:
        begin = yielded = 0
        # float64 holds every float exactly; what reads these tokens takes the type that it needs.
        for x in chunks(self._source, dtype=torch.float64):
            first, last = torch.searchsorted(
                self._places, torch.tensor([begin, begin + len(x)], device="cpu")
            ).tolist()
            chosen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            chosen[self._places[first:last] - begin] = True
            some = x[~chosen if self._others else chosen]
            yield some
            begin, yielded = begin + len(x), yielded + len(some)
        if yielded != self.tokens:
            raise InputError(
                "expected a source of as many tokens as its attribute `tokens` or an earlier pass said, got "
                f"{begin:,}, of which {yielded:,} instead of {self.tokens:,} are to be read; mend `tokens`, or "
                "save them to a file"
            )


@overload
def hold_out(tokens: Activations, held_out: int | None = None) -> tuple[Activations, Activations]: ...


@overload
def hold_out(
    tokens: Tokens, held_out: int | None = None
) -> tuple[Activations, Activations] | tuple[Spread, Spread]: ...


def hold_out(
    tokens: Tokens, held_out: int | None = None
) -> tuple[Activations, Activations] | tuple[Spread, Spread]:
    """(the tokens to train on, those to hold out, spread over all). held_out: how many; None for a tenth of them,
    at most 100,000.

    Raises InputError unless some tokens are left on both sides, and as `chunks`. Where only a pass over the tokens
    tells how many there are, one is made.
    """
    total = count_tokens(tokens)
    n = min(MOST, max(1, total // SHARE)) if held_out is None else whole("held_out", held_out)
    if isinstance(tokens, Activations):
        return tokens.split(n)
    if not 1 <= n < total:
        raise InputError(f"expected 1 to {total - 1:,} tokens to hold out of {total:,}, got {n:,}; harvest more")
    places = _spread(n, total)
    return Spread(tokens, places, tokens=total - n, others=True), Spread(tokens, places, tokens=n)


def at_most(tokens: Tokens, most: int) -> Tokens:
    """The tokens, or `most` of them, spread over all. Raises InputError as `chunks`."""
    total = count_tokens(tokens)
    return tokens if total <= most else Spread(tokens, _spread(most, total), tokens=most)


def count_tokens(tokens: Tokens) -> int:
    """How many tokens there are, by a pass over them where nothing else tells. Raises InputError as `chunks`."""
    known = known_tokens(tokens)
    return sum(len(x) for x in chunks(tokens)) if known is None else known


def _spread(n: int, total: int) -> Sequence[int]:
    """Places of n tokens among `total`, as `Activations.take` chooses them."""
    places: list[int] = spread(0, total, chosen=n, of=total).tolist()
    return places
