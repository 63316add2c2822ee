"""Gradients of weight matrices that are never written: of each latent, a sum of few tokens' rows.

A step of training reads and writes every weight and both its moments; to write a gradient of the same size and to
read it again would be a third more. So the backward pass leaves here what the gradient is made of, and the
optimizer makes a latent's gradient where it takes the latent's step (`adam.adam_from_sums`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.kernels import sums
from autopsae.kernels.pairs import Pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class OuterSum:
    """For each latent, the sum over the tokens that selected it of value times the token's row."""

    pairs: Pairs
    values: Float[Tensor, "pairs"]
    rows: Float[Tensor, "tokens d_in"]

    def write(self) -> Float[Tensor, "members d_sae d_in"]:
        """The sum as a matrix."""
        return self.pairs.per_latent(self.values, self.rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouped:
    """The pairs of several sums by latent, as they came within one."""

    latents: Int[Tensor, "pairs"]
    tokens: Int[Tensor, "pairs"]
    n_latents: int

    @cached_property
    def ends(self) -> Int[Tensor, "latents_and_one"]:
        """0, then where each latent's pairs end."""
        counts = torch.bincount(self.latents, minlength=self.n_latents)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @cached_property
    def order(self) -> Int[Tensor, "pairs"]:
        """The pairs sorted by latent."""
        return sums.group(self.latents, self.ends.diff())


class Gradients:
    """What the backward pass has left of each weight matrix, by the name of the matrix."""

    def __init__(self) -> None:
        self._sums: dict[str, list[OuterSum]] = {}
        self._grouped: dict[tuple[int, ...], tuple[list[OuterSum], Grouped]] = {}

    def add(self, name: str, one: OuterSum) -> None:
        """Add a sum to the gradient of a matrix."""
        self._sums.setdefault(name, []).append(one)

    def clear(self) -> None:
        """Before the next backward pass."""
        self._sums.clear()
        self._grouped.clear()

    def take(self, name: str) -> list[OuterSum]:
        """The sums of a matrix, which are gone from here; in the same order for every matrix."""
        return sorted(self._sums.pop(name, []), key=lambda one: len(one.values))

    def group(self, some: Sequence[OuterSum]) -> Grouped:
        """The pairs of these sums; matrices that share them share the work. The tokens of each sum follow those of
        the one before it.
        """
        # Keyed by identity: both matrices have the same objects. The list keeps them, so that no id is used again.
        key = tuple(id(one.pairs) for one in some)
        if key not in self._grouped:
            self._grouped[key] = [*some], _group(some)
        return self._grouped[key][1]


def _group(some: Sequence[OuterSum]) -> Grouped:
    tokens, start = [], 0
    for one in some:
        tokens.append(one.pairs.tokens + start if start else one.pairs.tokens)
        start += one.pairs.n_tokens
    latents = [one.pairs.latents for one in some]
    if len(some) == 1:
        return Grouped(latents=latents[0], tokens=tokens[0], n_latents=some[0].pairs.n_latents)
    return Grouped(latents=torch.cat(latents), tokens=torch.cat(tokens), n_latents=some[0].pairs.n_latents)


def join(some: Sequence[OuterSum]) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "tokens d_in"]]:
    """(values, rows) of several sums, as `Gradients.group` numbers their pairs and tokens."""
    if len(some) == 1:
        return some[0].values, some[0].rows
    return torch.cat([one.values for one in some]), torch.cat([one.rows for one in some])
