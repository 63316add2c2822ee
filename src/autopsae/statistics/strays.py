"""Stray tokens (attention sinks, registers): those of over ten times the median norm, and streams without them.

A few of them can hold nearly all of the squared norm, and so nearly all of any squared error.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import Tokens, chunks

STRAY = 10.0
"""A token is stray if its norm exceeds this many times the median norm."""


class LeftOut:
    """The tokens whose norm is at most `limit`."""

    def __init__(self, tokens: Tokens, limit: float) -> None:
        self._tokens, self._limit = tokens, limit

    def __iter__(self) -> Iterator[Float[Tensor, "some d_in"]]:
        for x in chunks(self._tokens):
            yield x[torch.linalg.vector_norm(x, dim=1) <= self._limit]


class WeighedDown:
    """All tokens, those of over `limit` drawn towards `point` until they are `limit` away from it.

    To a TopK SAE without encoder bias whose b_dec is `point` this is a weight (limit / ||x - point||)^2 on their
    squared errors: its codes and errors grow in proportion to x - point.
    """

    def __init__(self, tokens: Tokens, limit: float, point: Float[Tensor, "d_in"]) -> None:
        self._tokens, self._limit, self._point = tokens, limit, point

    def __iter__(self) -> Iterator[Float[Tensor, "chunk d_in"]]:
        for x in chunks(self._tokens):
            point = self._point.to(x)
            away = x - point
            stray = torch.linalg.vector_norm(x, dim=1, keepdim=True) > self._limit
            distance = torch.linalg.vector_norm(away, dim=1, keepdim=True)
            yield torch.where(stray, point + away * (self._limit / distance).clamp_max(1), x)
