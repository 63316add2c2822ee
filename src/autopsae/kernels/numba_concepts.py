"""Loops that count latents against concepts, compiled by Numba. Called by `concepts` alone.

Each thread owns a span of the latents and reads all pairs, so that no two threads write to one count. A count is
that of the highest threshold that a code exceeds; `concepts` sums them up over the thresholds.
"""

import numba
import numpy as np

from autopsae.kernels.numba_compile import parallel


@parallel()
def levels(values, latents, maxima, thresholds, reached, threads):  # type: ignore[no-untyped-def]
    """reached: for each pair, how many of the rising thresholds its code over its latent's maximum exceeds, less
    one.
    """
    pairs = len(values)
    span = (pairs + threads - 1) // threads
    for t in numba.prange(threads):
        for p in range(t * span, min(pairs, (t + 1) * span)):
            scaled = np.float64(values[p]) / np.float64(maxima[latents[p]])
            level = -1
            for threshold in thresholds:
                if scaled > threshold:
                    level += 1
            reached[p] = level


@parallel()
def count_tokens(latents, reached, ends, concepts, concept_ends, splits, fired, both, threads):  # type: ignore[no-untyped-def]
    """fired [splits, d_sae, levels]: tokens by latent and level; both [splits, d_sae, levels, concepts]: those of
    them that have the concept.
    """
    d_sae = fired.shape[1]
    span = (d_sae + threads - 1) // threads
    for t in numba.prange(threads):
        low, high = t * span, min(d_sae, (t + 1) * span)
        for r in range(len(splits)):
            s, first, last = splits[r], concept_ends[r], concept_ends[r + 1]
            for p in range(ends[r], ends[r + 1]):
                latent, level = latents[p], reached[p]
                if level < 0 or latent < low or latent >= high:
                    continue
                fired[s, latent, level] += 1
                for c in range(first, last):  # they lie side by side in `both`
                    both[s, latent, level, concepts[c]] += 1


@parallel()
def count_domains(latents, reached, ends, firsts, lasts, concepts, splits, hit, threads):  # type: ignore[no-untyped-def]
    """hit [splits, d_sae, levels, concepts]: domains (tokens firsts ... lasts - 1) by the highest level that the
    latent reaches on any of their tokens.
    """
    d_sae = hit.shape[1]
    span = (d_sae + threads - 1) // threads
    for t in numba.prange(threads):
        low, high = t * span, min(d_sae, (t + 1) * span)
        domain_of = np.full(d_sae, -1, np.int64)  # the domain in which the latent fired last
        best = np.zeros(d_sae, np.int8)
        for d in range(len(firsts)):
            s, c = splits[d], concepts[d]
            for p in range(ends[firsts[d]], ends[lasts[d]]):
                latent, level = latents[p], reached[p]
                if level < 0 or latent < low or latent >= high:
                    continue
                if domain_of[latent] == d:
                    if level <= best[latent]:
                        continue
                    hit[s, latent, best[latent], c] -= 1  # it is counted at the higher level instead
                domain_of[latent], best[latent] = d, level
                hit[s, latent, level, c] += 1
