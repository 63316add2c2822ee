"""Stray tokens (attention sinks, registers): those of over ten times the median norm, and streams without them.

A few of them can hold nearly all of the squared norm, and so nearly all of any squared error.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import Mapped, Tokens

STRAY = 10.0
"""A token is stray if its norm exceeds this many times the median norm of the tokens that are not zero."""


def typical_norm(x: Float[Tensor, "tokens d_in"]) -> float:
    """The median norm of the rows that are not zero; 1 where all are."""
    norms = torch.linalg.vector_norm(x, dim=1)
    return float(norms[norms > 0].median()) if bool((norms > 0).any()) else 1.0


def shorten(x: Float[Tensor, "tokens d_in"], limit: float) -> Float[Tensor, "tokens d_in"]:
    """The tokens, those of a norm over `limit` brought to it along their own direction."""
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x * (limit / norms).clamp_max(1) if float(norms.max()) > limit else x


def leave_out(tokens: Tokens, limit: float) -> Mapped:
    """The tokens whose norm is at most `limit`."""
    return Mapped(tokens, lambda x: x[torch.linalg.vector_norm(x, dim=1) <= limit])


def weigh_down(tokens: Tokens, limit: float, point: Float[Tensor, "d_in"]) -> Mapped:
    """All tokens, those of over `limit` drawn towards `point` until they are `limit` away from it.

    To a TopK SAE without encoder bias whose b_dec is `point` this is a weight (limit / ||x - point||)^2 on their
    squared errors: its codes and errors grow in proportion to x - point.
    """

    def draw_in(x: Tensor) -> Tensor:
        away = x - point.to(x)
        stray = torch.linalg.vector_norm(x, dim=1, keepdim=True) > limit
        distance = torch.linalg.vector_norm(away, dim=1, keepdim=True)
        return torch.where(stray, point.to(x) + away * (limit / distance).clamp_max(1), x)

    return Mapped(tokens, draw_in)
