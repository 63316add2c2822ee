"""What a pass of statistics costs, counted from its sizes."""

from autopsae.costs import Work
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.statistics.wide import WIDE, is_wide, reservoir_size

_STREAMS = 2
"""The activations as they are, and after per-token LayerNorm."""


def work_of_statistics(
    d_in: int, tokens: int, *, sample_tokens: int = SAMPLE_TOKENS, wide: int | None = WIDE, stored: int = 0
) -> Work:
    """What `collect` takes of each resource on `tokens` tokens of a layer.

    A layer that is not wide has two products [d_in, tokens] x [tokens, d_in], in float64 of the tokens as they are
    and in float32 after LayerNorm: 2 tokens d_in^2 operations each, of which BLAS computes one half. A wide layer
    has them, both in float64, of its sample only. All else is proportional to tokens x d_in.

    wide: as for `collect`; stored: bytes of a number in the store that is read; 0 for tokens in memory.
    """
    numbers = float(tokens) * d_in
    if is_wide(d_in, wide):
        kept = min(tokens, reservoir_size(d_in, sample_tokens, wide=wide))
        products = Work(float64=_STREAMS * 2.0 * kept * d_in**2)
    else:
        products = Work(float64=2 * numbers * d_in, float32=2 * numbers * d_in)
    return products + Work(counted=numbers, stored=stored * numbers)
