"""Some tokens of many: one from each of as many equal stretches, at a random place in it.

A fixed stride would meet that of the contexts: of every tenth token of contexts of 100, one in ten is a first token
(an attention sink), where one in a hundred is one.
"""

import numpy as np
from jaxtyping import Int

from autopsae.seeds import hash_seed, keys


def spread(first: int, last: int, *, chosen: int, of: int) -> Int[np.ndarray, "places"]:
    """Those of the `chosen` places among 0 ... of - 1 that lie in first ... last - 1, in order; always the same."""
    # The stretches that may reach into this part; what does not lie in it is left out below.
    numbers = np.arange(max(0, first * chosen // of - 1), min(chosen, last * chosen // of + 2))
    starts, ends = numbers * of // chosen, (numbers + 1) * of // chosen
    within = keys(numbers, hash_seed(0, "spread tokens")) % (ends - starts).astype(np.uint64)
    places = starts + within.astype(np.int64)
    return places[(places >= first) & (places < last)]
