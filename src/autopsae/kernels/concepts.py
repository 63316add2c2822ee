"""Counts of latents against concepts from pairs of a token and a latent: compiled loops, or NumPy without Numba."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from autopsae.kernels import dispatch
from autopsae.kernels.dispatch import threads_for


def levels(
    values: Float[np.ndarray, "pairs"],
    latents: Int[np.ndarray, "pairs"],
    maxima: Float[np.ndarray, "d_sae"],
    thresholds: Float[np.ndarray, "levels"],
) -> Int[np.ndarray, "pairs"]:
    """For each pair, how many of the rising thresholds value / maximum exceeds, minus one; computed in float64."""
    loops = dispatch.load_loops()
    if loops is None:
        scaled = values.astype(np.float64) / maxima[latents].astype(np.float64)
        reached: NDArray[np.int8] = (np.searchsorted(thresholds, scaled, side="left") - 1).astype(np.int8)
        return reached
    reached = np.empty(len(values), np.int8)
    loops.concepts.levels(values, latents, maxima, thresholds, reached, threads_for(len(values)))
    return reached


def count_tokens(
    latents: Int[np.ndarray, "pairs"],
    reached: Int[np.ndarray, "pairs"],
    ends: Int[np.ndarray, "tokens_and_one"],
    concepts: Int[np.ndarray, "labels"],
    concept_ends: Int[np.ndarray, "tokens_and_one"],
    splits: Int[np.ndarray, "tokens"],
    fired: Int[np.ndarray, "splits d_sae levels"],
    both: Int[np.ndarray, "splits d_sae levels concepts"],
) -> None:
    """Add to `fired` the tokens of each split by latent and by the level that the latent reaches, and to `both`
    those of them that have each concept.

    reached: as `levels`; -1 is left out. ends, concept_ends: 0, then where the pairs and the concepts of each token
    end.
    """
    loops = dispatch.load_loops()
    if loops is not None:
        threads = _threads(len(latents))
        loops.concepts.count_tokens(latents, reached, ends, concepts, concept_ends, splits, fired, both, threads)
        return
    token = np.repeat(np.arange(len(splits)), np.diff(ends))
    fires = reached >= 0
    token, latents, reached = token[fires], latents[fires], reached[fires]
    np.add.at(fired, (splits[token], latents, reached), 1)
    # Each pair is repeated for every concept of its token.
    each = np.diff(concept_ends)[token]
    of_concept = places_from(concept_ends[:-1][token], each)
    pair = np.repeat(np.arange(len(token)), each)
    np.add.at(both, (splits[token[pair]], latents[pair], reached[pair], concepts[of_concept]), 1)


def count_domains(
    latents: Int[np.ndarray, "pairs"],
    reached: Int[np.ndarray, "pairs"],
    ends: Int[np.ndarray, "tokens_and_one"],
    firsts: Int[np.ndarray, "domains"],
    lasts: Int[np.ndarray, "domains"],
    concepts: Int[np.ndarray, "domains"],
    splits: Int[np.ndarray, "domains"],
    hit: Int[np.ndarray, "splits d_sae levels concepts"],
) -> None:
    """Add to `hit` the domains by latent and by the highest level that the latent reaches on any of their tokens.

    A domain is the tokens firsts ... lasts - 1, counted as `ends` counts them, and has one concept and one split.
    """
    loops = dispatch.load_loops()
    if loops is not None:
        threads = _threads(len(latents))
        loops.concepts.count_domains(latents, reached, ends, firsts, lasts, concepts, splits, hit, threads)
        return
    each = ends[lasts] - ends[firsts]
    pair = places_from(ends[firsts], each)
    domain = np.repeat(np.arange(len(firsts)), each)
    fires = reached[pair] >= 0
    pair, domain = pair[fires], domain[fires]
    order = np.lexsort((reached[pair], latents[pair], domain))
    pair, domain = pair[order], domain[order]
    # The last of each run of one domain and one latent has the highest level.
    is_last = np.ones(len(pair), bool)
    is_last[:-1] = (domain[1:] != domain[:-1]) | (latents[pair[1:]] != latents[pair[:-1]])
    pair, domain = pair[is_last], domain[is_last]
    np.add.at(hit, (splits[domain], latents[pair], reached[pair], concepts[domain]), 1)


def places_from(firsts: Int[np.ndarray, "runs"], lengths: Int[np.ndarray, "runs"]) -> Int[np.ndarray, "places"]:
    """first, first + 1, ... of each run, as many as its length says, run after run."""
    ends = np.cumsum(lengths)
    from_ends: NDArray[np.int64] = np.repeat(firsts - ends + lengths, lengths)
    return np.arange(ends[-1] if len(ends) else 0) + from_ends


def _threads(pairs: int) -> int:
    # Every thread reads all pairs, so that a few of them gain little from a second one.
    return threads_for(8 * pairs)
