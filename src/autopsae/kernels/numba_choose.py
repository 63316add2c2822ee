"""Loops that choose from rows of pre-activations in one reading, compiled by Numba. Called by `kernels` alone.

Every loop is parallel over `threads` equal spans of rows, and gives the same answer for any number (but `largest`
in another order, and among equals others). A row is that of a product; the biases of its columns are added while it
is read. Members are SAEs trained side by side: each has as many rows, and biases of its own.
"""

import numba
import numpy as np

from autopsae.kernels.numba_bits import zeros_below
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
EACH_WAY = {"nsz"}
"""Where zeros of both signs are equal, the larger and the smaller of two are an instruction each."""


@compile_loop()
def _load(pre, biases, latent, start, width, new):  # type: ignore[no-untyped-def]
    """Copy a span of four latents' pre-activations; of those past the last latent -inf."""
    for o in range(4):
        if latent + o < len(pre):
            row, bias, out = pre[latent + o, start : start + width], biases[latent + o], new[o]
            for i in range(width):
                out[i] = row[i] + bias
        else:
            new[o, :] = -np.inf


@compile_loop(fastmath=EACH_WAY)
def _rise(held, a, b, c, d, width):  # type: ignore[no-untyped-def]
    """Keep the largest of five in `held`, and hand on the others: no branches, so many tokens at once."""
    for i in range(width):
        most, w, x, y, z = held[i], a[i], b[i], c[i], d[i]
        most, w = w if w > most else most, most if w > most else w
        most, x = x if x > most else most, most if x > most else x
        most, y = y if y > most else most, most if y > most else y
        held[i] = z if z > most else most
        a[i], b[i], c[i], d[i] = w, x, y, most if z > most else z


@compile_loop(fastmath=EACH_WAY)
def _rise_twice(first, second, a, b, c, d, width):  # type: ignore[no-untyped-def]
    """`_rise` at two places in one reading."""
    for i in range(width):
        w, x, y, z = a[i], b[i], c[i], d[i]
        most = first[i]
        most, w = w if w > most else most, most if w > most else w
        most, x = x if x > most else most, most if x > most else x
        most, y = y if y > most else most, most if y > most else y
        most, z = z if z > most else most, most if z > most else z
        first[i], most = most, second[i]
        most, w = w if w > most else most, most if w > most else w
        most, x = x if x > most else most, most if x > most else x
        most, y = y if y > most else most, most if y > most else y
        second[i] = z if z > most else most
        a[i], b[i], c[i], d[i] = w, x, y, most if z > most else z


@compile_loop()
def _flag(row, bias, least, bit, words):  # type: ignore[no-untyped-def]
    """Set the bit of a latent where it is not under `least` (NaN too, which must not go unseen); whether any of its
    pre-activations is positive.
    """
    some = np.int32(0)
    for i in range(len(row)):
        value = row[i] + bias
        words[i] |= np.uint32(0) if value < least[i] else bit
        some |= np.int32(value > 0)
    return some


@compile_loop()
def _gather(words, values_of_all, biases, values, latents):  # type: ignore[no-untyped-def]
    """The flagged latents of a token and their values, as many as there is room for; how many are flagged."""
    count, k = 0, len(values)
    for w in range(len(words)):
        word = np.uint64(words[w])
        while word:
            j = 32 * w + np.int64(zeros_below(word))  # type: ignore[call-arg]
            if count < k:  # type: ignore[unreachable]
                values[count], latents[count] = values_of_all[j] + biases[j], j
            count += 1
            word &= word - np.uint64(1)
    return count


@compile_loop()
def _gather_some(values_of_all, biases, least, values, latents):  # type: ignore[no-untyped-def]
    """As `_gather` where more than k are flagged: those over `least`, and the first that are equal to it. NaN comes
    before all, and is everywhere then.
    """
    k, is_nan, over = len(values), False, 0
    for j in range(len(biases)):
        value = values_of_all[j] + biases[j]
        is_nan |= value != value
        over += value > least
    equal, count = max(k - over, 0), 0
    for j in range(len(biases)):
        value = values_of_all[j] + biases[j]
        is_equal = value == least and equal > 0
        equal -= is_equal
        if (value > least or is_equal or value != value) and count < k:
            values[count], latents[count] = value, j
            count += 1
    if is_nan:
        values[:] = np.nan


@compile_loop()
def _largest_of_span(pre, biases, begin, end, values, latents, positive):  # type: ignore[no-untyped-def]
    """`largest_by_latent` of one member's rows from begin to end: first the k-th largest value of every token, then
    the latents that reach it.
    """
    n, k = len(pre), values.shape[1]
    held, new = np.empty((k, LANES), pre.dtype), np.empty((4, LANES), pre.dtype)
    words = np.empty(((n + 31) // 32, LANES), np.uint32)
    for start in range(begin, end, LANES):
        width = min(LANES, end - start)
        held[:], words[:] = -np.inf, 0
        for j in range(0, n, 4):
            _load(pre, biases, j, start, width, new)
            for i in range(0, k - 1, 2):
                _rise_twice(held[i], held[i + 1], new[0], new[1], new[2], new[3], width)
            if k % 2:
                _rise(held[k - 1], new[0], new[1], new[2], new[3], width)
        for j in range(n):
            row, bit = pre[j, start : start + width], np.uint32(1) << np.uint32(j & 31)
            positive[j] |= _flag(row, biases[j], held[k - 1], bit, words[j >> 5])
        for r in range(width):
            token, out, of_out = pre[:, start + r], values[start + r], latents[start + r]
            if _gather(words[:, r], token, biases, out, of_out) > k:
                _gather_some(token, biases, held[k - 1, r], out, of_out)


@parallel()
def largest_by_latent(pre, biases, values, latents, positive, threads):  # type: ignore[no-untyped-def]
    """As `largest` for a small k, from pre [members, columns, rows]; positive [members, spans, columns]. A row's
    latents come in their order.
    """
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
