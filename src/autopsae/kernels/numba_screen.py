"""Loops of `screen`, compiled by Numba: exact choices from inexact scores. Called by `screen` alone.

`scores` [tokens, latents] are those of an inexact product, `bias` is added to them (b_enc, made finite). The value
of a pair, which is x . w + b_enc in float32 by `exact`, lies within
    slack[latent] * size[token] + relative * |score| + SUM * |score + bias| + tiny
of score + bias: between its *low* and its *high* (docs/exact-selection.md has the proof). A size that is not finite
says that there is no such bound for this token, and that all its values have to be computed.

`seen` [threads, latents] becomes true where a latent is surely positive, `unsure` where it may be.
"""

import numba
import numpy as np

from autopsae.kernels.numba_bits import float_of, widen, zeros_below
from autopsae.kernels.numba_compile import compile_loop, parallel
from autopsae.kernels.numba_sums import multiply_four

SUM = np.float32(2.0**-21)
"""Of the two sums with the bias, which are rounded: twice 2^-24, and some to spare."""
HUGE = np.float32(1e30)
SPARE = 8
"""Places that a buffer has beyond the latents, for `exact`."""
FINE = np.int32(1 << 14)
"""Two floats whose bits differ by less are within 2^-9 of each other: near enough for a floor."""


@compile_loop()
def bound(score, bias, slack, size, limits):  # type: ignore[no-untyped-def]
    """(score + bias, how far the exact value may be from it). limits: (relative, tiny)."""
    score = widen(score)
    value = score + bias
    return value, size * slack + limits[0] * abs(score) + SUM * abs(value) + limits[1]


@compile_loop(fastmath={"reassoc", "contract"})
def exact(x, W, bias, places, n, values):  # type: ignore[no-untyped-def]
    """values[i] = x . W[places[i]] + bias, for n latents; both buffers have room for SPARE more.

    The only place where a selected value is computed, and always by four rows, so that it does not depend on what
    it was selected by (the tests look whether a compiler has made it so).
    """
    if n == 0:
        return
    for i in range(n, n + 3):
        places[i] = places[n - 1]
    for i in range(0, n, 4):
        multiply_four(x, W, places, i, values)
    for i in range(n):
        values[i] += bias[places[i]]


@compile_loop()
def _mark(row, bias, slack, size, limits, guess, seen, unsure, flags):  # type: ignore[no-untyped-def]
    """flags: which latents reach `guess` at their high (NaN too, which must not go unseen)."""
    for j in range(len(row)):
        value, error = bound(row[j], bias[j], slack[j], size, limits)
        seen[j] |= value > error
        unsure[j] |= value > -error
        flags[j] = not (value + error < guess)


@compile_loop()
def gather(words, places):  # type: ignore[no-untyped-def]
    """The places of the flags that are set, a byte each, read eight at a time; how many there are."""
    count = 0
    for w in range(len(words)):
        word = words[w]
        while word:
            places[count] = 8 * w + (zeros_below(word) >> np.uint64(3))  # type: ignore[call-arg]
            count += 1  # type: ignore[unreachable]
            word &= word - np.uint64(1)
    return count


@compile_loop()
def _bound(row, bias, slack, size, limits, places, count, lows, highs):  # type: ignore[no-untyped-def]
    """The low and the high of some latents."""
    for i in range(count):
        j = places[i]
        value, error = bound(row[j], bias[j], slack[j], size, limits)
        lows[i], highs[i] = value - error, value + error


@compile_loop()
def _count_from(keys, n, key):  # type: ignore[no-untyped-def]
    count = np.int32(0)
    for i in range(n):
        count += np.int32(keys[i] >= key)
    return count


@compile_loop()
def _kth(values, n, k, fine):  # type: ignore[no-untyped-def]
    """The bits of a value >= 0 that at least k of the n values reach, the largest such but for `fine`; 0 where
    fewer are positive. By bisection: counting is one vector instruction for many values, and has no branch.
    """
    keys, low, high = values.view(np.int32), np.int32(0), np.int32(0)
    for i in range(n):
        high = max(high, keys[i])
    high += 1
    if _count_from(keys, n, np.int32(1)) < k:
        return low
    while high - low > fine:
        middle = np.int32(low + ((high - low) >> 1))
        count = _count_from(keys, n, middle)
        if count == k and fine > 1:
            return middle
        if count >= k:
            low = middle
        else:
            high = middle
    return low


@compile_loop()
def _candidates(row, bias, slack, size, limits, k, ratio, seen, unsure, room):  # type: ignore[no-untyped-def]
    """(how many latents may be among the k largest that are positive, the ratio for the next token): those whose
    high reaches the k-th largest low. Only latents over a guess are looked at, and it is lowered until no other can
    be among them. What the k-th largest of a token was to its size is, somewhat lowered, the guess for the next.
    """
    flags, places, lows, highs = room
    words, lower, guess = flags.view(np.uint64), np.float32(0.7), np.float32(ratio * size)
    if not guess < HUGE:  # inf could not be lowered
        guess = np.float32(0)
    while True:
        _mark(row, bias, slack, size, limits, guess, seen, unsure, flags)
        count = gather(words, places)
        _bound(row, bias, slack, size, limits, places, count, lows, highs)
        floor = np.float32(0)
        if count >= k:
            floor = float_of(np.uint32(_kth(lows, count, k, FINE)))  # type: ignore[call-arg]
        if floor >= guess:
            break
        # In ever larger steps: the token before may have been an outlier.
        guess = floor if count >= k else np.float32(guess * lower if guess > 1e-30 else 0)
        lower *= lower
    some = 0
    for i in range(count):
        places[some] = places[i]
        some += not (highs[i] < floor)
    return some, np.float32(0.93) * floor / size if size > 0 else np.float32(0)


@compile_loop()
def _room(n):  # type: ignore[no-untyped-def]
    """(flags in whole words, places, lows, highs) for the latents of a token."""
    lows, highs = np.empty(n + SPARE, np.float32), np.empty(n + SPARE, np.float32)
    return np.zeros((n + 7) // 8 * 8, np.uint8), np.empty(n + SPARE, np.int32), lows, highs


@compile_loop()
def _choose(values, places, n, k, out_values, out_latents):  # type: ignore[no-untyped-def]
    """The k largest positive of n values in the order of their latents, the first of equal ones; how many there
    are. NaN has no order, and must not go unseen: it comes first.
    """
    least = max(_kth(values, n, k, np.int32(1)), np.int32(1))
    keys = values.view(np.int32)
    equal = np.int32(k) - _count_from(keys, n, least + np.int32(1))
    count = 0
    for i in range(n):
        tie = keys[i] == least and equal > 0
        equal -= tie
        if count < k:
            out_values[count], out_latents[count] = values[i], places[i]
        count += keys[i] > least or tie
    for i in range(n):
        if values[i] != values[i]:
            out_values[0] = values[i]
            if count == 0:
                out_latents[0], count = places[i], 1
    return min(count, k)


@compile_loop()
def _fill(x, W, bias, count, k, out_values, out_latents, places, values):  # type: ignore[no-untyped-def]
    """Where fewer than k are positive, the first that are not fill the rest."""
    some, next_, j = count, 0, 0
    while some < k:
        if next_ < count and out_latents[next_] == j:
            next_ += 1
        else:
            places[some] = j
            some += 1
        j += 1
    exact(x, W, bias, places[count:], k - count, values)
    for i in range(count, k):
        out_values[i], out_latents[i] = values[i - count], places[i]


@compile_loop()
def every_value(x, W, bias, places, values, seen):  # type: ignore[no-untyped-def]
    """Every value of a token that has no bounds."""
    n = len(bias)
    for j in range(n):
        places[j] = j
    exact(x, W, bias, places, n, values)
    for j in range(n):
        seen[j] |= values[j] > 0
    return n


@parallel()
def largest(scores, bias, slack, sizes, limits, x, W, b_enc, k, values, latents, seen, unsure, threads):  # type: ignore[no-untyped-def]
    """The k largest of each token into values and latents [tokens, k], in the order of the latents."""
    rows, n = scores.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        room, ratio = _room(n), np.float32(0)
        _, places, lows, _ = room
        for r in range(t * span, min(rows, (t + 1) * span)):
            if sizes[r] < np.inf:
                row, size = scores[r], sizes[r]
                count, ratio = _candidates(row, bias, slack, size, limits, k, ratio, seen[t], unsure[t], room)
                exact(x[r], W, b_enc, places, count, lows)
            else:
                count = every_value(x[r], W, b_enc, places, lows, seen[t])
            some = _choose(lows, places, count, k, values[r], latents[r])
            if some < k:
                _fill(x[r], W, b_enc, some, k, values[r], latents[r], places, lows)


@parallel()
def reach(scores, bias, slack, sizes, limits, x, W, b_enc, k, asked, fired, seen, unsure, threads):  # type: ignore[no-untyped-def]
    """fired [threads, latents] becomes true where a latent that is `asked` for is positive and among the k largest
    of a token. Exact values are computed only where one of these may be.
    """
    rows, n = scores.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        room, ratio = _room(n), np.float32(0)
        _, places, lows, _ = room
        values, latents = np.empty(k, np.float32), np.empty(k, np.int64)
        for r in range(t * span, min(rows, (t + 1) * span)):
            if sizes[r] < np.inf:
                row, size = scores[r], sizes[r]
                count, ratio = _candidates(row, bias, slack, size, limits, k, ratio, seen[t], unsure[t], room)
                some = False
                for i in range(count):
                    some |= asked[places[i]]
                if not some:
                    continue
                exact(x[r], W, b_enc, places, count, lows)
            else:
                count = every_value(x[r], W, b_enc, places, lows, seen[t])
            for i in range(_choose(lows, places, count, k, values, latents)):
                fired[t, latents[i]] |= values[i] > 0
