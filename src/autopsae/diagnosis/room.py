"""The memory that a diagnosis takes, known and said before it starts, and the sample that fits into what is free.

A test measures it in a process of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from autopsae.activations.room import in_words
from autopsae.arrays import CHUNK_TOKENS, InputError, Tokens
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.diagnosis.ladder import ESCALATION
from autopsae.diagnosis.parameters import Asked
from autopsae.memory import SMALL, available_bytes, check_memory
from autopsae.passes import width_of
from autopsae.statistics.room import bytes_of_moments, matrices
from autopsae.statistics.wide import WIDE, reservoir_size
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
LEAST_SAMPLE = 1024
"""Tokens of a sample at least: one that is smaller would leave most forecasts open."""
LARGE = 2**25
"""Bytes from which on glibc gives memory back to the system when it is freed."""


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """How many tokens the sample of each layer has, and the memory that it goes with."""

    tokens: int
    """Tokens of the sample of a layer."""
    wide_tokens: int | None
    """Tokens that are kept of the widest layer for its rank, where these are more."""
    bytes: int
    """Memory that the whole diagnosis takes at most."""
    free: int | None
    """Memory that is free; None where the system does not tell."""
    at_once: int = 1
    """How many layers are judged side by side."""

    def at_most(self, layers: int, judged: int) -> "SampleSize":
        """The same sample, with as many as `layers` layers side by side: each beyond the first takes `judged` bytes
        more, of at most half of what is left.
        """
        left = 0 if self.free is None else max(0, self.free - self.bytes) // 2
        more = min(layers - 1, left // judged)
        return replace(self, bytes=self.bytes + more * judged, at_once=1 + more)

    def __str__(self) -> str:
        free = "" if self.free is None else f" ({in_words(self.free)} are free)"
        more = f" ({self.wide_tokens:,} of a wide one, for its rank)" if self.wide_tokens else ""
        sample = f"a sample of at most {self.tokens:,} tokens of each layer{more}"
        return f"{sample}; up to {in_words(self.bytes)} of memory{free}"


def fit_sample(
    needs: Callable[[int], int],
    asked: int | None,
    *,
    what: str,
    otherwise: str,
    widest: int | None,
    device: torch.device | str | None = None,
) -> SampleSize:
    """The size of the sample that was asked for, or else the largest of 4,096, 2,048 and 1,024 tokens with which a
    diagnosis fits into the memory that is free.

    needs: the bytes that a diagnosis takes with a sample of so many tokens; what, otherwise: as for
    `check_memory`; widest: d_in of the widest layer where that of wide layers is sampled; device: where it
    computes (default: in main memory). Raises InputError as `check_memory` where the sample does not fit, or the
    smallest does not.
    """
    device = torch.device(device or "cpu")
    try:
        free = available_bytes(device)
    except InputError:  # the system does not tell
        free = None
    size = asked or SAMPLE_TOKENS
    while asked is None and free is not None and size > LEAST_SAMPLE and needs(size) > max(free, SMALL):
        size //= 2
    check_memory(needs(size), device, what, otherwise)
    kept = reservoir_size(widest, size, wide=WIDE) if widest else size
    return SampleSize(tokens=size, wide_tokens=kept if kept > size else None, bytes=needs(size), free=free)


def bytes_of_diagnosis(
    d_in: int, *, d_sae: int, alphas: int = 0, ranks: int = 0, sample_tokens: int = SAMPLE_TOKENS
) -> int:
    """What `diagnose` takes at most: while it collects, while it forecasts, or while it counts, whichever is most.

    alphas, ranks: how many exponents and ranks are asked for beyond those considered anyway; sample_tokens: tokens
    of the sample.
    """
    whitened = len(ESCALATION) + 1 + alphas
    sample = 8 * sample_tokens * d_in
    weights = d_sae * d_in
    chunks = CHUNKS * min(LARGE, 8 * CHUNK_TOKENS * d_in)
    kept = chunks + matrices(KEPT + WORK + 2 * whitened, d_in)
    collected = bytes_of_moments(d_in, streams=2) + sample
    # The rows that were drawn, and their projections onto a subspace.
    followed = 4 * sample_tokens * min(d_sae, FOLLOWED)
    forecast = kept + SAMPLES * sample + FOLLOWED_COPIES * followed + 12 * weights
    # An encoder in float32 for each remedy: none, z-scoring, each whitening and subspace; three in float64 at work.
    encoders = 2 + whitened + 1 + ranks
    counted = kept + 2 * sample + (4 * encoders + 24) * weights
    return max(collected, forecast, counted)


def fit_layers(
    layers: Iterable[Tokens], asked: Asked, *, exact: bool, device: torch.device | str | None
) -> SampleSize | None:
    """The sample of layers that are diagnosed one after the other; None where a width is not known before a pass.

    exact: whether covariances are those of all tokens. Raises InputError as `fit_sample`.
    """
    layers = list(layers)
    widths = [width_of(tokens) for tokens in layers]
    if device is None and layers and isinstance(layers[0], Tensor):
        device = layers[0].device
    if not widths or not all(widths):  # not known, or zero, which is refused where tokens are read
        return None
    widest = max(d_in or 0 for d_in in widths)
    what = f"for tokens of d_in = {widest:,}, whose covariances take [d_in, d_in] numbers each"
    return fit_sample(
        partial(bytes_asked, asked, widest),
        asked.sample_tokens,
        what=what,
        otherwise="use a machine with more, or a narrower layer",
        widest=None if exact else widest,
        device=device,
    )


def bytes_asked(asked: Asked, d_in: int, sample_tokens: int) -> int:
    """`bytes_of_diagnosis` of what is asked."""
    alphas, ranks = len(asked.alphas), len(asked.ranks)
    return bytes_of_diagnosis(d_in, d_sae=asked.d_sae, alphas=alphas, ranks=ranks, sample_tokens=sample_tokens)
