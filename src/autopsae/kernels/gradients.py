"""Gradients of weight matrices that are never written: of each latent, a sum of few tokens' rows.

A step of training reads and writes every weight and both its moments; to write a gradient of the same size and to
read it again would be a third more. So the backward pass leaves here what the gradient is made of, and the
optimizer makes a latent's gradient where it takes the latent's step (`adam.adam_from_sum`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

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


class Gradients:
    """What the backward pass has left of each weight matrix, by the name of the matrix."""

    def __init__(self) -> None:
        self._sums: dict[str, list[OuterSum]] = {}
        self._joined: dict[tuple[int, ...], tuple[list[OuterSum], Pairs]] = {}

    def add(self, name: str, one: OuterSum) -> None:
        """Add a sum to the gradient of a matrix."""
        self._sums.setdefault(name, []).append(one)

    def clear(self) -> None:
        """Before the next backward pass."""
        self._sums.clear()
        self._joined.clear()

    def take(self, name: str) -> list[OuterSum]:
        """The sums of a matrix, which are gone from here; in the same order for every matrix."""
        return sorted(self._sums.pop(name, []), key=lambda one: len(one.values))

    def join(self, some: Sequence[OuterSum]) -> OuterSum:
        """All sums of a matrix as one, for `adam_from_sum`; matrices whose sums have the same pairs share how these
        are sorted. The tokens of each sum follow those of the one before it, all members of one first: so it cannot
        be written member by member.
        """
        if len(some) == 1:
            return some[0]
        # Keyed by identity: both matrices have the same objects. The list keeps them, so that no id is used again.
        key = tuple(id(one.pairs) for one in some)
        if key not in self._joined:
            self._joined[key] = [*some], _join_pairs([one.pairs for one in some])
        values, rows = torch.cat([one.values for one in some]), torch.cat([one.rows for one in some])
        return OuterSum(pairs=self._joined[key][1], values=values, rows=rows)


def _join_pairs(some: Sequence[Pairs]) -> Pairs:
    latents, counts = (
        torch.cat(part) for part in zip(*((p.latents, p.per_token_counts) for p in some), strict=True)
    )
    return Pairs(latents=latents, per_token_counts=counts, d_sae=some[0].d_sae, members=some[0].members)
