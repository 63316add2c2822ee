"""Further loops of `screen`: all over a threshold, the largest of each group, and who is positive anywhere.

Scores, bounds, `seen` and `unsure` as in `numba_screen`.
"""

import numba
import numpy as np

from autopsae.kernels.numba_bits import widen
from autopsae.kernels.numba_choose import EACH, TOP
from autopsae.kernels.numba_compile import compile_loop, parallel
from autopsae.kernels.numba_screen import SPARE, bound, every_value, exact, gather


@compile_loop()
def _mark_above(row, bias, slack, size, limits, thresholds, seen, unsure, flags):  # type: ignore[no-untyped-def]
    """flags: which latents are over their threshold at their high."""
    for j in range(len(row)):
        value, error = bound(row[j], bias[j], slack[j], size, limits)
        seen[j] |= value > error
        unsure[j] |= value > -error
        flags[j] = not (value + error <= thresholds[j])


@parallel()
def count_above(scores, bias, slack, sizes, limits, thresholds, flags, counts, seen, unsure, threads):  # type: ignore[no-untyped-def]
    """flags [tokens, latents, in whole words]: which may be over their latent's threshold; counts: how many of each
    token.
    """
    rows, n = scores.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        for r in range(t * span, min(rows, (t + 1) * span)):
            if sizes[r] < np.inf:
                _mark_above(scores[r], bias, slack, sizes[r], limits, thresholds, seen[t], unsure[t], flags[r])
            else:
                flags[r, :n] = 1
            flags[r, n:] = 0
            words, count = flags[r].view(np.uint64), np.uint64(0)
            for w in range(len(words)):
                count += words[w] * EACH >> TOP  # the sum of eight bytes that are 0 or 1
            counts[r] = count


@parallel()
def gather_above(flags, starts, x, W, b_enc, sizes, thresholds, values, latents, kept, seen, threads):  # type: ignore[no-untyped-def]
    """Those of the flagged that are over their threshold, token by token: kept[r] of token r, from starts[r]."""
    rows, n = len(flags), len(b_enc)
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        places, exact_values = np.empty(n + SPARE, np.int32), np.empty(n + SPARE, np.float32)
        for r in range(t * span, min(rows, (t + 1) * span)):
            if sizes[r] < np.inf:
                count = gather(flags[r].view(np.uint64), places)
                exact(x[r], W, b_enc, places, count, exact_values)
            else:
                count = every_value(x[r], W, b_enc, places, exact_values, seen[t])
            end = starts[r]
            for i in range(count):
                if not (exact_values[i] <= thresholds[places[i]]):
                    values[end], latents[end] = exact_values[i], places[i]
                    end += 1
            kept[r] = end - starts[r]


@parallel()
def mark_positive(scores, bias, slack, sizes, limits, x, W, b_enc, seen, unsure, threads):  # type: ignore[no-untyped-def]
    """`seen` and `unsure` alone."""
    rows, n = scores.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        places, values = np.empty(n + SPARE, np.int32), np.empty(n + SPARE, np.float32)
        for r in range(t * span, min(rows, (t + 1) * span)):
            if sizes[r] < np.inf:
                row, surely, perhaps = scores[r], seen[t], unsure[t]
                for j in range(n):
                    value, error = bound(row[j], bias[j], slack[j], sizes[r], limits)
                    surely[j] |= value > error
                    perhaps[j] |= value > -error
            else:
                every_value(x[r], W, b_enc, places, values, seen[t])


@compile_loop()
def _bound_all(row, bias, slack, size, limits, lows, highs, seen, unsure):  # type: ignore[no-untyped-def]
    for j in range(len(row)):
        value, error = bound(row[j], bias[j], slack[j], size, limits)
        lows[j], highs[j] = value - error, value + error
        seen[j] |= value > error
        unsure[j] |= value > -error


@compile_loop()
def _candidates_of_groups(lows, highs, n, k, places):  # type: ignore[no-untyped-def]
    """The latents whose high reaches the largest low of their group; how many there are."""
    count, size = 0, n // k
    for g in range(k):
        best = lows[g * size]
        for j in range(g * size + 1, (g + 1) * size):
            best = max(best, lows[j])
        for j in range(g * size, (g + 1) * size):
            places[count] = j
            count += not (highs[j] < best)
    return count


@parallel()
def largest_of_groups(scores, bias, slack, sizes, limits, x, W, b_enc, k, values, latents, seen, unsure, threads):  # type: ignore[no-untyped-def]
    """The largest of each of k groups of neighbours, of equal ones the first: values and latents [tokens, k]."""
    rows, n = scores.shape
    span, size = (rows + threads - 1) // threads, n // k
    for t in numba.prange(threads):
        places, lows, highs = (
            np.empty(n + SPARE, np.int32),
            np.empty(n + SPARE, np.float32),
            np.empty(n, np.float32),
        )
        for r in range(t * span, min(rows, (t + 1) * span)):
            if sizes[r] < np.inf:
                _bound_all(scores[r], bias, slack, sizes[r], limits, lows, highs, seen[t], unsure[t])
                count = _candidates_of_groups(lows, highs, n, k, places)
                exact(x[r], W, b_enc, places, count, lows)
            else:
                count = every_value(x[r], W, b_enc, places, lows, seen[t])
            values[r] = -np.inf
            latents[r] = size * np.arange(k)
            for i in range(count):
                g = places[i] // size
                if lows[i] > values[r, g] or lows[i] != lows[i]:
                    values[r, g], latents[r, g] = lows[i], places[i]


@parallel()
def settle(scores, bias, slack, sizes, limits, x, W, b_enc, asked, positive, threads):  # type: ignore[no-untyped-def]
    """positive[i]: is the latent asked[i] positive on any token that has bounds? Token by token, as the scores lie;
    threads may settle the same latent, with the same answer.
    """
    rows = len(scores)
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        place, value_of = np.empty(1 + SPARE, np.int32), np.empty(1 + SPARE, np.float32)
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, size = scores[r], sizes[r]
            if not size < np.inf:
                continue
            for i in range(len(asked)):
                j = asked[i]
                value, error = bound(row[j], bias[j], slack[j], size, limits)
                if value > -error and not positive[i]:
                    place[0] = j
                    exact(x[r], W, b_enc, place, 1, value_of)
                    if value_of[0] > 0:
                        positive[i] = True


@parallel()
def norms(rows, rounded, scales, own, of_rounded, of_error, threads):  # type: ignore[no-untyped-def]
    """The norms of rows, of what they were rounded to (times their scale), and of the difference, in float64, whose
    range the squares do not leave.
    """
    n = len(rows)
    span = (n + threads - 1) // threads
    for t in numba.prange(threads):
        for r in range(t * span, min(n, (t + 1) * span)):
            own[r], of_rounded[r], of_error[r] = _norms(rows[r], rounded[r], scales[r])


@compile_loop(fastmath={"reassoc", "contract"})
def _norms(row, rounded, scale):  # type: ignore[no-untyped-def]
    own = of_rounded = of_error = np.float64(0)
    for c in range(len(row)):
        near = np.float64(scale * widen(rounded[c]))
        own += np.float64(row[c]) ** 2
        of_rounded += near**2
        of_error += (np.float64(row[c]) - near) ** 2
    return np.sqrt(own), np.sqrt(of_rounded), np.sqrt(of_error)
