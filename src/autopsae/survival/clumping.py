"""How much firings clump in groups of tokens, such as documents: by how much a sample is worth fewer tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from autopsae.ambient import matmul


class Fired(NamedTuple):
    """On how many tokens of each group each latent fired."""

    group: Int[Tensor, "tokens"]
    """The group of each token, from 0."""
    number: Int[Tensor, "latents groups"]
    """Number of tokens of each group on which each latent fired."""
    sizes: Int[Tensor, "groups"]
    """Number of tokens of each group."""


def firings(
    margins: Float[Tensor, "latents tokens"], groupings: Sequence[Int[Tensor, "tokens"]]
) -> tuple[Fired, ...]:
    """The firings under each way to group the tokens. margins: positive where a latent fires."""
    sizes = [torch.bincount(group) for group in groupings]
    # One product counts for all groupings: the margins are read once.
    members = [one_hot(group, len(of)) for group, of in zip(groupings, sizes, strict=True)]
    groups = torch.cat(members, dim=1).to(margins)
    number = torch.cat([matmul((rows > 0).to(groups), groups) for rows in margins.split(512)]).long()
    each = number.split([len(of) for of in sizes], dim=1)
    return tuple(Fired(*parts) for parts in zip(groupings, each, sizes, strict=True))


def design_effect(fired: Int[Tensor, "latents groups"], sizes: Int[Tensor, "groups"]) -> float:
    """The design effect, at least 1: by how much more the number of firings varies between the groups than it would
    if tokens were independent. All latents are taken together.
    """
    tokens = sizes.sum()
    share, of_all = sizes.double() / tokens, fired.sum(dim=1, keepdim=True)
    squares = (fired - of_all * share).square().sum()
    # Hypergeometric variance, as if tokens were independent: a group holds `share` of all tokens, and gets its
    # firings by chance. 1 - fired / tokens, because a latent fires at most once on a token.
    variance = (of_all * (1 - of_all.double() / tokens) * share * (1 - share)).sum()
    return max(1.0, float(squares / variance.clamp_min(1e-300)))


def most_clumped(margins: Float[Tensor, "latents sample"], guesses: Sequence[Int[Tensor, "sample"]]) -> Fired:
    """The firings under the guess, of those of `Groups`, for which their number varies most between groups.

    margins: of latents, positive where they fire.
    """
    every = firings(margins, guesses)
    return every[0] if len(every) == 1 else max(every, key=lambda fired: design_effect(fired.number, fired.sizes))
