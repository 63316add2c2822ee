"""Random streams. Each use of a seed has a stream of its own, hashed from the seed and the purpose of the stream.

A user who writes `torch.manual_seed(0); tokens = torch.randn(...)` and then passes seed 0 here would otherwise get
an SAE whose rows are the noise of the tokens, since both are the first normal numbers of one stream.
"""

from hashlib import sha256
from operator import index
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt64

from autopsae.arrays import InputError


def hash_seed(seed: Any, purpose: str) -> int:
    """A 63-bit number for one purpose of a seed, SHA-256(purpose, seed): different purposes have unrelated numbers.

    seed: any whole number. Raises InputError for anything else.
    """
    try:
        whole = index(seed)
    except TypeError as error:
        raise InputError(f"seed: expected a whole number such as 0, got {seed!r}") from error
    digest = sha256(f"autopsae, {purpose}, {whole}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def keys(places: Int[np.ndarray, "places"], number: int) -> UInt64[np.ndarray, "places"]:
    """A 64-bit hash of each place, another one for each `number`: the output function of SplitMix64 (Steele, Lea
    and Flood 2014).
    """
    golden, mixed = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1342543DE82EF95)
    with np.errstate(over="ignore"):
        z = places.astype(np.uint64) * golden + np.uint64(number) * mixed
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def check_generator(generator: Any) -> None:
    """InputError for what is no generator of torch, such as a seed."""
    if not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator: expected a torch.Generator such as torch.Generator().manual_seed(0), got {generator!r}"
        )


def stream(source: Any, purpose: str) -> torch.Generator:
    """A generator for one purpose. It is on the CPU, so that what is drawn does not depend on the device.

    source: a seed, or a generator of the user, from which one 63-bit number is drawn as the seed. So the generator
    moves on by one draw, whatever is drawn from the stream, and two calls with it have different streams.

    Raises InputError for a seed that is no whole number.
    """
    if isinstance(source, torch.Generator):
        source = int(torch.randint(2**63 - 1, (), generator=source, device=source.device))
    return torch.Generator().manual_seed(hash_seed(source, purpose))
