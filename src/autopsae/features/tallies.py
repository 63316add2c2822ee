"""What the chosen latent of each concept did on each test document: what a bootstrap over documents draws from."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from autopsae.features.codes import Codes, gather_columns
from autopsae.features.counts import leave_out_tokens
from autopsae.features.labels import Labels, runs_of
from autopsae.features.split import TEST

TALLIES = ("both", "fired", "positives", "hit", "domains")
"""On each document: tokens on which the latent fires and that have the concept; on which it fires; that have
the concept; domains in which it fires; all domains.
"""

Tallies = Int[np.ndarray, "concepts documents five"]


def tally_documents(
    codes: Codes,
    labels: Labels,
    splits: Int[np.ndarray, "tokens"],
    *,
    latents: Int[np.ndarray, "concepts"],
    limits: Float[np.ndarray, "concepts"],
    largest: Float[np.ndarray, "d_sae"],
) -> Tallies:
    """TALLIES of each concept on each test document, in the order of the source. One pass over the codes.

    latents: the latent of each concept, which fires where code / largest exceeds its limit.
    """
    columns = gather_columns(leave_out_tokens(codes, labels), np.unique(latents))
    starts, _ = runs_of(labels.documents)
    is_test = splits[starts] == TEST
    place = np.cumsum(is_test) - 1  # of each document among those for the test
    tallies = np.zeros((len(labels.concepts), int(is_test.sum()), len(TALLIES)), np.int32)

    def tally(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of these tokens each test document has."""
        run = np.searchsorted(starts, tokens, side="right") - 1
        return np.bincount(place[run[is_test[run]]], minlength=tallies.shape[1])

    for c in range(len(labels.concepts)):
        tokens, values = columns[int(latents[c])]
        unit = float(largest[latents[c]]) or 1.0  # a latent that never fires has no values to divide
        scaled = values.astype(np.float64) / unit
        fires, has = tokens[scaled > limits[c]], np.flatnonzero(labels.mask(c))
        tallies[c, :, 0] = tally(np.intersect1d(fires, has, assume_unique=True))
        tallies[c, :, 1], tallies[c, :, 2] = tally(fires), tally(has)
        if labels.by_domain[c]:
            mine = labels.numbers == c
            first, last = labels.firsts[mine], labels.lasts[mine]
            is_hit = np.searchsorted(fires, last) > np.searchsorted(fires, first)
            tallies[c, :, 3], tallies[c, :, 4] = tally(first[is_hit]), tally(first)
    return tallies


def f1_of(
    tallies: Float[np.ndarray, "... concepts five"], by_domain: NDArray[np.bool_]
) -> Float[np.ndarray, "... concepts"]:
    """The F1 of each concept from tallies that are summed over documents."""
    both, fired, positives, hit, domains = np.moveaxis(tallies, -1, 0)
    precision = both / np.maximum(fired, 1)
    recall = np.where(by_domain, hit / np.maximum(domains, 1), both / np.maximum(positives, 1))
    total = precision + recall
    f1: NDArray[np.float64] = 2 * precision * recall / np.where(total > 0, total, 1)
    return f1
