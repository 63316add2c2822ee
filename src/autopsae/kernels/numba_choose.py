"""Loops that choose from rows of pre-activations in one reading, compiled by Numba. Called by `kernels` alone.

Every loop is parallel over `threads` equal spans of rows, and gives the same answer for any number (but `largest`
in another order, and among equals others). A row is that of a product; the biases of its columns are added while it
is read. Members are SAEs trained side by side: each has as many rows, and biases of its own.
"""

import numba
import numpy as np

from autopsae.kernels.numba_compile import compile_loop, parallel

EACH, TOP = np.uint64(0x0101010101010101), np.uint64(56)
"""A row is compared in vector instructions, a byte per value; read eight at a time, most bytes are zero."""


@compile_loop()
def _move_largest_to_front(values, latents, n, k):  # type: ignore[no-untyped-def]
    """Hoare's selection: the k largest of the first n values come first, in any order."""
    low, high = 0, n - 1
    while low < high:
        pivot, i, j = values[(low + high) >> 1], low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                latents[i], latents[j] = latents[j], latents[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break


@compile_loop()
def _candidates(row, bias, over, flags, words, values, latents):  # type: ignore[no-untyped-def]
    """Gather what is not at or below `over` (so NaN too, which must not go unseen); how many there are."""
    count = 0
    for j in range(len(row)):
        flags[j] = not (row[j] + bias[j] <= over)
    for w in range(len(words)):
        if words[w]:
            for j in range(8 * w, min(8 * w + 8, len(row))):
                values[count], latents[count] = row[j] + bias[j], j
                count += flags[j]
    return count


@parallel()
def largest(pre, biases, k, values, latents, positive, factor, less, threads):  # type: ignore[no-untyped-def]
    """The k largest of each row into values and latents [rows, k]; positive [threads, members, columns] is set
    where a column is. Where fewer than k are positive, the first that are not fill the rest.

    A row's k-th largest value, lowered (times `factor`, minus `less`), is the guess for the next row: only what is
    over the guess is looked at twice. The guess never falls under zero, as such values would not fire.
    """
    rows, n = pre.shape
    span, each = (rows + threads - 1) // threads, max(1, rows // len(biases))
    for t in numba.prange(threads):
        held, places = np.empty(n + 8, pre.dtype), np.empty(n + 8, np.int64)
        flags = np.zeros((n + 7) // 8 * 8, np.uint8)
        words = flags.view(np.uint64)
        guess = pre.dtype.type(0)
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, bias, seen = pre[r], biases[r // each], positive[t, r // each]
            for j in range(n):
                seen[j] |= row[j] + bias[j] > 0
            count = _candidates(row, bias, guess, flags, words, held, places)
            lower, further = factor, less
            while count < k and guess > 0:  # in ever larger steps: the row before may have been an outlier
                guess = pre.dtype.type(max(guess * lower - further, 0))
                if guess < 1e-30:
                    guess = pre.dtype.type(0)
                lower, further = lower * lower, further + further
                count = _candidates(row, bias, guess, flags, words, held, places)
            if count < k:
                for j in range(n):
                    if count < k and row[j] + bias[j] <= 0:
                        held[count], places[count] = row[j] + bias[j], j
                        count += 1
            _move_largest_to_front(held, places, count, k)
            for i in range(k, count):
                if held[i] != held[i]:  # NaN has no order, and must not go unseen
                    held[0], places[0] = held[i], places[i]
            smallest = held[0]
            for i in range(k):
                values[r, i], latents[r, i] = held[i], places[i]
                smallest = min(smallest, held[i])
            guess = pre.dtype.type(max(smallest * factor - less, 0))
            if not guess < np.inf:  # inf could not be lowered
                guess = pre.dtype.type(0)


LANES = 256
"""Tokens whose largest values are found side by side; few enough for all of them to stay in the first cache."""


@compile_loop()
def _load(row, bias, latent, values, latents, is_nan):  # type: ignore[no-untyped-def]
    """Copy a span of a latent's pre-activations; whether any is positive."""
    some = np.int32(0)
    for i in range(len(row)):
        value = row[i] + bias
        values[i] = value
        some |= np.int32(value > 0)
        is_nan[i] |= np.int32(value != value)
    for i in range(LANES):
        latents[i] = latent
    return some


@compile_loop()
def _rise(held, held_latents, values, latents):  # type: ignore[no-untyped-def]
    """Keep the larger of two in `held`, and hand on the smaller: no branches, so many tokens at once."""
    for i in range(LANES):
        a, b, of_a, of_b = held[i], values[i], held_latents[i], latents[i]
        over = b >= a
        held[i] = b if over else a
        values[i] = a if over else b
        held_latents[i] = of_b if over else of_a
        latents[i] = of_a if over else of_b


@compile_loop()
def _rise_twice(held, of_held, next_held, of_next_held, values, latents):  # type: ignore[no-untyped-def]
    """`_rise` at two places in one reading."""
    for i in range(LANES):
        a, b, of_a, of_b = held[i], values[i], of_held[i], latents[i]
        over = b >= a
        held[i], of_held[i] = b if over else a, of_b if over else of_a
        b, of_b = a if over else b, of_a if over else of_b
        a, of_a = next_held[i], of_next_held[i]
        over = b >= a
        next_held[i], of_next_held[i] = b if over else a, of_b if over else of_a
        values[i], latents[i] = a if over else b, of_a if over else of_b


@compile_loop()
def _largest_of_span(pre, biases, begin, end, values, latents, positive):  # type: ignore[no-untyped-def]
    """`largest_by_latent` of one member's rows from begin to end."""
    k = values.shape[1]
    held, held_latents = np.empty((k, LANES), pre.dtype), np.empty((k, LANES), np.int32)
    new, of_new, is_nan = np.zeros(LANES, pre.dtype), np.empty(LANES, np.int32), np.empty(LANES, np.int32)
    for start in range(begin, end, LANES):
        width = min(LANES, end - start)
        held[:], is_nan[:] = -np.inf, 0
        for i in range(k):
            held_latents[i, :] = i
        for j in range(len(pre)):
            row = pre[j, start : start + width]
            positive[j] |= _load(row, biases[j], np.int32(j), new, of_new, is_nan)
            for i in range(0, k - 1, 2):
                _rise_twice(held[i], held_latents[i], held[i + 1], held_latents[i + 1], new, of_new)
            if k % 2:
                _rise(held[k - 1], held_latents[k - 1], new, of_new)
        for r in range(width):
            for i in range(k):
                values[start + r, i], latents[start + r, i] = held[i, r], held_latents[i, r]
            if is_nan[r]:  # it has no order, and must not go unseen
                values[start + r, :] = np.nan


@parallel()
def largest_by_latent(pre, biases, values, latents, positive, threads):  # type: ignore[no-untyped-def]
    """As `largest` for a small k, from pre [members, columns, rows]; positive [members, spans, columns]."""
    (members, _, rows), spans = pre.shape, positive.shape[1]
    span = (rows + spans - 1) // spans
    for task in numba.prange(members * spans):
        m, t = task // spans, task % spans
        end = min(rows, (t + 1) * span)
        _largest_of_span(pre[m], biases[m], t * span, end, values[m], latents[m], positive[m, t])


@parallel()
def count_above(pre, biases, thresholds, counts, positive, threads):  # type: ignore[no-untyped-def]
    """How many of each row are over their column's threshold; positive as in `largest`."""
    rows, n = pre.shape
    span, each = (rows + threads - 1) // threads, max(1, rows // len(biases))
    for t in numba.prange(threads):
        flags = np.zeros((n + 7) // 8 * 8, np.uint8)
        words = flags.view(np.uint64)
        for r in range(t * span, min(rows, (t + 1) * span)):
            m = r // each
            row, bias, over, seen, count = pre[r], biases[m], thresholds[m], positive[t, m], np.uint64(0)
            for j in range(n):
                seen[j] |= row[j] + bias[j] > 0
                flags[j] = not (row[j] + bias[j] <= over[j])
            for w in range(len(words)):
                count += words[w] * EACH >> TOP  # the sum of eight bytes that are 0 or 1
            counts[r] = count


@parallel()
def gather_above(pre, biases, thresholds, starts, values, latents, threads):  # type: ignore[no-untyped-def]
    """The values that `count_above` counted and their columns; row r's begin at starts[r]."""
    rows, n = pre.shape
    span, each = (rows + threads - 1) // threads, max(1, rows // len(biases))
    for t in numba.prange(threads):
        flags = np.zeros((n + 7) // 8 * 8, np.uint8)
        words = flags.view(np.uint64)
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, bias, over, place = pre[r], biases[r // each], thresholds[r // each], starts[r]
            for j in range(n):
                flags[j] = not (row[j] + bias[j] <= over[j])
            for w in range(len(words)):
                if words[w]:
                    for j in range(8 * w, min(8 * w + 8, n)):
                        if flags[j]:
                            values[place], latents[place] = row[j] + bias[j], j
                            place += 1
