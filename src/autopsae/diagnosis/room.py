"""The memory that a diagnosis takes, known before it starts. A test measures it in a process of its own."""

from autopsae.arrays import CHUNK_TOKENS
from autopsae.diagnosis.ladder import ESCALATION
from autopsae.statistics.room import bytes_of_moments, matrices
from autopsae.statistics.sample import SAMPLE_TOKENS
from autopsae.survival.forecast import FOLLOWED

KEPT = 3
"""Matrices [d_in, d_in] that are kept: the covariances of the tokens, raw and normalised, and the directions."""
WORK = 3
"""At most at once beside them: the two maps of z-scoring and a map as it is applied, or the covariance of the
sample and its eigenvalues.
"""
SAMPLES = 9
"""Copies of the sample in float64, at most: as it was collected, in the stream's order, as remedies change it, and
those of its covariance.
"""
FOLLOWED_COPIES = 9
"""Matrices [latents followed, sample] in float32: margins and pre-activations of the three remedies that only
center, which are forecast together, and one sorted tail.
"""
CHUNKS = 8
"""Copies of a chunk while it is collected; the allocator keeps them for later, unless they are large."""
LARGE = 2**25
"""Bytes from which on glibc gives memory back to the system when it is freed."""


def bytes_of_diagnosis(d_in: int, *, d_sae: int, alphas: int = 0, ranks: int = 0) -> int:
    """What `diagnose` takes at most: while it collects, while it forecasts, or while it counts, whichever is most.

    alphas, ranks: how many exponents and ranks are asked for beyond those considered anyway.
    """
    whitened = len(ESCALATION) + 1 + alphas
    sample = 8 * SAMPLE_TOKENS * d_in
    weights = d_sae * d_in
    chunks = CHUNKS * min(LARGE, 8 * CHUNK_TOKENS * d_in)
    kept = chunks + matrices(KEPT + WORK + 2 * whitened, d_in)
    collected = bytes_of_moments(d_in, streams=2) + sample
    # The rows that were drawn, and their projections onto a subspace.
    followed = 4 * SAMPLE_TOKENS * min(d_sae, FOLLOWED)
    forecast = kept + SAMPLES * sample + FOLLOWED_COPIES * followed + 12 * weights
    # An encoder in float32 for each remedy: none, z-scoring, each whitening and subspace; three in float64 at work.
    encoders = 2 + whitened + 1 + ranks
    counted = kept + 2 * sample + (4 * encoders + 24) * weights
    return max(collected, forecast, counted)
