"""How much firings clump in groups of tokens, such as documents: by how much a sample is worth fewer tokens."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def firings(
    margins: Float[Tensor, "latents tokens"], group: Int[Tensor, "tokens"]
) -> tuple[Int[Tensor, "latents groups"], Int[Tensor, "groups"]]:
    """(number of tokens of each group on which each latent fired, number of tokens of each group)."""
    sizes = torch.bincount(group)
    groups = torch.nn.functional.one_hot(group, len(sizes)).to(margins)
    return torch.cat([(rows > 0).to(groups) @ groups for rows in margins.split(512)]).long(), sizes


def design_effect(fired: Int[Tensor, "latents groups"], sizes: Int[Tensor, "groups"]) -> float:
    """The design effect, at least 1: by how much more the number of firings varies between the groups than it would
    if tokens were independent. All latents are taken together.
    """
    tokens = sizes.sum()
    share, of_all = sizes.double() / tokens, fired.sum(dim=1, keepdim=True)
    squares = (fired - of_all * share).square().sum()
    # Hypergeometric variance, as if tokens were independent: a group holds `share` of all tokens, and gets its
    # firings by chance. 1 - fired / tokens, because a latent fires at most once on a token.
    variance = (of_all * (1 - of_all / tokens) * share * (1 - share)).sum()
    return max(1.0, float(squares / variance.clamp_min(1e-300)))


def most_clumped(
    margins: Float[Tensor, "latents sample"], guesses: Sequence[Int[Tensor, "sample"]]
) -> Int[Tensor, "sample"]:
    """The guess, of those of `Groups`, under which the number of firings varies most between groups.

    margins: of latents, positive where they fire.
    """
    if len(guesses) == 1:
        return guesses[0]
    return max(guesses, key=lambda group: design_effect(*firings(margins, group)))
