"""Groups of a sample's tokens that are left out together in a jackknife, because tokens of one document are alike.

Where the document of each token is known, a group is some whole documents. Where it is not, there are two guesses:
stretches of the sample, as neighbours in a stream are mostly from one document; and clusters of near-duplicates, in
case the stream was shuffled. The guess under which firings clump more is taken.

A shuffled stream of few documents cannot be told from one of many documents whose tokens are of a few kinds, since
both are clusters of tokens. So where the order says nothing, documents of 512 tokens are assumed:
`Groups.least_effect`.
"""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.vectors import Vector, document_numbers

GROUPS = 16
"""Number of groups. The jackknife leaves each out once."""
NEAR = 0.8
"""Two tokens are near-duplicates if the cosine between them, minus the median of the sample, is over this."""

DOCUMENT = 512
"""Tokens of a document, as assumed where neither documents nor the order of the tokens says how many there are."""
CORRELATION = 0.1
"""The intraclass correlation of documents that is assumed then: the share of the variance of firings that lies
between documents. docs/forecast.md has what it is in layers of text, images, proteins and DNA."""

_ALIKE = 0.05
"""Neighbours whose similarity is over this are alike: that of independent tokens stays under it."""
_ORDERED = 4.0
"""The order tells documents if successive tokens are this many standard errors more alike than by chance."""
_ASKED = 1024  # tokens of which the neighbours are asked for
_DIRECTIONS = 64  # wider tokens are projected to so many random directions before they are compared
_ROWS = 1024  # tokens that are compared with all others at once
_COMPARED = 2**14  # in a larger sample no near-duplicates are looked for: the time grows with its square


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Which tokens of a sample are left out together, and what is assumed where nothing says so."""

    guesses: tuple[Int[Tensor, "sample"], ...]
    """The group of each token, in 0 ... GROUPS - 1: one guess, or two where documents are unknown."""
    least_effect: float = 1.0
    """The design effect that is assumed at least. 1 where documents are known, or the order of the tokens tells."""

    def reorder(self, order: Int[Tensor, "sample"]) -> "Groups":
        """The groups of the tokens in another order."""
        return replace(self, guesses=tuple(group[order] for group in self.guesses))


def sample_groups(
    y: Float[Tensor, "sample d_in"],
    documents: Vector | None,
    stream_tokens: int | None = None,
) -> Groups:
    """The groups of a sample's tokens.

    stream_tokens: number of tokens that the sample is spread over. Default: as many as it has.

    A sample that is all from one document counts as one whose documents are unknown. Raises InputError for
    documents that are not one whole number for each token.
    """
    if documents is not None:
        listed = torch.from_numpy(document_numbers(documents, len(y)))
        if bool((listed != listed[0]).any()):
            return Groups(guesses=(_share_out(listed).to(y.device),))
    stretches = torch.arange(len(y), device=y.device) * GROUPS // len(y)
    x = directions(y)
    least = 1.0 if _order_tells(x) else document_effect(x, stream_tokens or len(y))
    guesses = [stretches]
    if len(y) <= _COMPARED and len((clusters := near_duplicates(x)).unique()) > GROUPS:
        guesses.append(_share_out(clusters.cpu()).to(y.device))
    return Groups(guesses=tuple(guesses), least_effect=least)


def documents_of_sample(
    documents: Vector | None,
    tokens: int,
    places: Int[np.ndarray, "sample"],
) -> Int[Tensor, "sample"] | None:
    """The document of each token of a sample, looked up by its place in the stream. None if they are unknown.

    Raises InputError for documents that are not one for each of the stream's `tokens` tokens.
    """
    if documents is None:
        return None
    return torch.from_numpy(document_numbers(documents, tokens)[places])


def document_effect(x: Float[Tensor, "sample directions"], stream_tokens: int) -> float:
    """The design effect if the stream had documents of DOCUMENT tokens, 1 + CORRELATION (tokens of each document in
    the sample - 1). It is 1 if tokens are independent as far as can be seen (`neighbour_similarity`).

    x: `directions` of the sample.
    """
    of_each = len(x) * DOCUMENT / max(stream_tokens, DOCUMENT)
    if of_each <= 1:
        return 1.0
    correlation = min(CORRELATION, max(0.0, neighbour_similarity(x) - _ALIKE))
    return 1 + correlation * (of_each - 1)


def neighbour_similarity(x: Float[Tensor, "sample directions"]) -> float:
    """How alike a token and its nearest neighbour are in what the neighbour was not chosen by.

    The neighbour is the nearest in one half of the principal directions. The result is the mean cosine in the other
    half, with all directions of the same variance: about 0 for independent Gaussian tokens, and 1 for copies.
    """
    y = (x - x.mean(dim=0)).double()
    values, vectors = torch.linalg.eigh(y.T @ y)
    kept = values > 1e-6 * values[-1]
    if int(kept.sum()) < 2:
        return 0.0
    white = ((y @ vectors[:, kept]) / values[kept].sqrt()).float()
    chosen_by, other = (torch.nn.functional.normalize(white[:, half::2], dim=1) for half in (0, 1))
    asked = torch.arange(0, len(x), max(1, len(x) // _ASKED), device=x.device)
    cosine = matmul(chosen_by[asked], chosen_by.T)
    cosine[torch.arange(len(asked), device=x.device), asked] = -2  # not itself
    return float((other[asked] * other[cosine.argmax(dim=1)]).sum(dim=1).mean())


def _order_tells(x: Float[Tensor, "sample directions"]) -> bool:
    """True if successive tokens are more alike than chance makes them, as in a stream that was not shuffled."""
    y = (x - x.mean(dim=0)).double()
    alike = float((y[1:] * y[:-1]).sum())
    # The variance of an inner product of two independent tokens is the squared Frobenius norm of their covariance.
    return alike > _ORDERED * float((y.T @ y).norm()) / sqrt(len(y))


def _share_out(documents: Int[Tensor, "sample"]) -> Int[Tensor, "sample"]:
    """The group of each token: whole documents, shared out such that groups have about equal numbers of tokens."""
    _, document, sizes = torch.unique(documents, return_inverse=True, return_counts=True)
    # The largest documents first, each to the group that has the fewest tokens so far.
    held, group, tokens = [0] * min(GROUPS, len(sizes)), [0] * len(sizes), sizes.tolist()
    for number in sizes.argsort(descending=True, stable=True).tolist():
        group[number] = held.index(min(held))
        held[group[number]] += tokens[number]
    return torch.tensor(group, device="cpu")[document]


def directions(y: Float[Tensor, "sample d_in"]) -> Float[Tensor, "sample directions"]:
    """The direction of each token from the median of the sample, in at most 64 dimensions. Its length is 1."""
    y = y.double()
    x = y - y.median(dim=0).values  # one huge token drags the mean so far away that all others look alike
    if x.shape[1] > _DIRECTIONS:
        # Random directions keep cosines (Johnson and Lindenstrauss 1984). Any would do, so the seed is fixed.
        chance = torch.Generator().manual_seed(0)
        x = x @ torch.randn(x.shape[1], _DIRECTIONS, generator=chance, dtype=torch.float32, device="cpu").to(x)
    norms = x.norm(dim=1, keepdim=True)
    return (x / torch.where(norms > 0, norms, torch.inf)).float()


def near_duplicates(x: Float[Tensor, "sample directions"]) -> Int[Tensor, "sample"]:
    """The cluster of each token: tokens that are linked as nearest neighbours, if they are near-duplicates.

    A token without a near-duplicate is a cluster of its own. x: `directions` of the sample.
    """
    place = torch.arange(len(x), device=x.device)
    nearest = place.clone()
    for some in place.split(_ROWS):
        cosine = matmul(x[some], x.T)
        cosine[some - some[0], some] = -1  # not itself
        best, neighbour = cosine.max(dim=1)
        nearest[some] = torch.where(best > NEAR, neighbour, some)
    # Following nearest neighbours ends in a pair of tokens that are nearest to each other. Doubling the steps each
    # time, every token has reached it.
    end = nearest
    for _ in range(len(x).bit_length()):
        end = end[end]
    return torch.minimum(end, nearest[end])
