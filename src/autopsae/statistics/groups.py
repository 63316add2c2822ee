"""Groups of a sample's tokens that are left out together in a jackknife, because tokens of one document are alike.

Where the document of each token is known, a group is some whole documents. Where it is not, there are two guesses:
stretches of the sample, as neighbours in a stream are mostly from one document; and clusters of near-duplicates, in
case the stream was shuffled. The guess under which firings clump more is taken.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import InputError

GROUPS = 16
"""Number of groups. The jackknife leaves each out once."""
NEAR = 0.8
"""Two tokens are near-duplicates if the cosine between them, minus the mean of the sample, is over this."""

_DIRECTIONS = 64  # wider tokens are projected to so many random directions before they are compared
_ROWS = 1024  # tokens that are compared with all others at once


def sample_groups(
    y: Float[Tensor, "sample d_in"], documents: Int[Tensor, "sample"] | NDArray[Any] | None
) -> list[Int[Tensor, "sample"]]:
    """The group of each token, in 0 ... GROUPS - 1, or two guesses where documents are unknown.

    A sample that is all from one document counts as one whose documents are unknown. Raises InputError for
    documents that are not one whole number for each token.
    """
    if documents is not None:
        listed = torch.as_tensor(documents)
        if listed.shape != (len(y),) or listed.is_floating_point():
            raise InputError(
                f"documents: expected a whole number for each of {len(y):,} tokens, got {listed.dtype} of shape "
                f"{tuple(listed.shape)}; pass the number of the document that each token is from"
            )
        if bool((listed != listed[0]).any()):
            return [_share_out(listed).to(y.device)]
    stretches = torch.arange(len(y), device=y.device) * GROUPS // len(y)
    clusters = near_duplicates(y)
    return [stretches, _share_out(clusters.cpu()).to(y.device)] if len(clusters.unique()) > GROUPS else [stretches]


def _share_out(documents: Int[Tensor, "sample"]) -> Int[Tensor, "sample"]:
    """The group of each token: whole documents, shared out such that groups have about equal numbers of tokens."""
    _, document, sizes = torch.unique(documents, return_inverse=True, return_counts=True)
    # The largest documents first, each to the group that has the fewest tokens so far.
    held = [0] * min(GROUPS, len(sizes))
    group = torch.empty_like(sizes)
    for number in sizes.argsort(descending=True, stable=True).tolist():
        smallest = held.index(min(held))
        group[number] = smallest
        held[smallest] += int(sizes[number])
    return group[document]


def near_duplicates(y: Float[Tensor, "sample d_in"]) -> Int[Tensor, "sample"]:
    """The cluster of each token: tokens that are linked as nearest neighbours, if they are near-duplicates.

    A token without a near-duplicate is a cluster of its own.
    """
    x = y - y.mean(dim=0)
    if x.shape[1] > _DIRECTIONS:
        # Random directions keep cosines (Johnson and Lindenstrauss 1984). Any would do, so the seed is fixed.
        chance = torch.Generator().manual_seed(0)
        x = x @ torch.randn(x.shape[1], _DIRECTIONS, generator=chance).to(x)
    x = torch.nn.functional.normalize(x.float(), dim=1)
    place = torch.arange(len(x), device=x.device)
    nearest = place.clone()
    for some in place.split(_ROWS):
        cosine = x[some] @ x.T
        cosine[some - some[0], some] = -1  # not itself
        best, neighbour = cosine.max(dim=1)
        nearest[some] = torch.where(best > NEAR, neighbour, some)
    # Following nearest neighbours ends in a pair of tokens that are nearest to each other. Doubling the steps each
    # time, every token has reached it.
    end = nearest
    for _ in range(len(x).bit_length()):
        end = end[end]
    return torch.minimum(end, nearest[end])
