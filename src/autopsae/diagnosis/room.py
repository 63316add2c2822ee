"""The memory that a diagnosis takes, known before it starts."""

from autopsae.diagnosis.ladder import ESCALATION
from autopsae.statistics.room import bytes_of_moments, matrices

KEPT = 2
"""The covariances of the tokens, as they are and normalised."""
WORK = 6
"""At most at once beside what is kept: the directions, an eigendecomposition or a map as it is applied, and the two
matrices of z-scoring.
"""


def bytes_of_diagnosis(d_in: int, *, d_sae: int, alphas: int = 0) -> int:
    """What `diagnose` takes at most: its matrices [d_in, d_in], two for each exponent of whitening, and the rows of
    the SAE with a copy in float64. alphas: exponents that are asked for beyond those considered anyway.
    """
    whitened = len(ESCALATION) + 1 + alphas
    squares = matrices(KEPT + WORK + 2 * whitened, d_in)
    return max(squares, bytes_of_moments(d_in, streams=2)) + 16 * d_sae * d_in
