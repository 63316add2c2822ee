"""The memory that square matrices [d_in, d_in] take, nearly all that a wide layer needs: known beforehand."""

from autopsae.arrays import CHUNK_TOKENS
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.statistics.wide import is_wide, reservoir_size

_NUMBER = 8
"""Bytes of a float64."""
_FLOAT32 = 4
COUNTS = 12 * 2**20
"""Bytes of the counts of norms and of copies, at most."""
_CHUNKS = 8
"""Copies of a chunk of tokens, at most, that are there at once."""


def matrices(count: int, d_in: int) -> int:
    """Bytes of `count` matrices [d_in, d_in] in float64."""
    return count * _NUMBER * d_in**2


def bytes_of_moments(d_in: int, *, streams: int) -> int:
    """What `Moments` of some streams take at most while the moments of a chunk are added to them.

    One matrix for each stream is kept. While a part is added to one of them, the part's product and the sum are
    there too. Chunks of tokens come on top.
    """
    return matrices(streams + 2, d_in) + _NUMBER * _CHUNKS * CHUNK_TOKENS * d_in


def bytes_of_spectrum(d_in: int) -> int:
    """What `Spectrum.of` takes: the directions, and the two matrices of LAPACK's divide and conquer; the same in
    order.
    """
    return matrices(4, d_in)


def bytes_of_collector(
    d_in: int, block: int, *, sample_tokens: int = SAMPLE_TOKENS, wide: int | None = None
) -> int:
    """What a `Collector` holds of a layer between blocks of so many float32 tokens, and these: two matrices where
    the layer is not wide, the sample and the counts of norms and of copies.
    """
    kept = reservoir_size(d_in, sample_tokens, wide=wide)
    return (0 if is_wide(d_in, wide) else matrices(2, d_in)) + _FLOAT32 * (kept + block) * d_in + COUNTS
