"""Loops over rows that no PyTorch operator does in one reading, compiled by Numba. Called by `kernels` alone.

Every loop is parallel over `threads` equal spans of rows or pairs, and gives the same answer for any number (but
`largest` in another order, and among equals others). A row is that of a product; the biases of its columns are
added while it is read.
"""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np

EACH, TOP = np.uint64(0x0101010101010101), np.uint64(56)
"""A row is compared in vector instructions, a byte per value; read eight at a time, most bytes are zero."""


def _compiled(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    def compile(function: Callable[..., Any]) -> Any:
        plain = inspect.unwrap(function)  # the tests check shapes by wrapping every function
        try:
            return numba.njit(cache=True, **flags)(plain)
        except RuntimeError:  # nowhere to write the cache: compile once per process
            return numba.njit(**flags)(plain)

    return compile


def _parallel(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiled twice: where the last argument, `threads`, is 1, no other thread is waited for, which takes longer
    than a small loop.
    """

    def compile(function: Callable[..., Any]) -> Any:
        plain = inspect.unwrap(function)
        # Numba's cache goes by the name alone, so the second needs one of its own.
        again = FunctionType(plain.__code__, plain.__globals__, plain.__name__)
        again.__qualname__ = f"{plain.__qualname__}_shared"
        alone, shared = _compiled(**flags)(plain), _compiled(parallel=True, **flags)(again)

        def run(*arguments: Any) -> None:
            (alone if arguments[-1] == 1 else shared)(*arguments)

        return run

    return compile


@_compiled(inline="always")
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


@_compiled(inline="always")
def _candidates(row, bias, over, flags, words, values, latents):  # type: ignore[no-untyped-def]
    """Gather what is not at or below `over` (so NaN too, which must not go unseen); how many there are."""
    found = 0
    for j in range(len(row)):
        flags[j] = not (row[j] + bias[j] <= over)
    for w in range(len(words)):
        if words[w]:
            for j in range(8 * w, min(8 * w + 8, len(row))):
                values[found], latents[found] = row[j] + bias[j], j
                found += flags[j]
    return found


@_parallel()
def largest(pre, bias, k, values, latents, positive, factor, less, threads):  # type: ignore[no-untyped-def]
    """The k largest of each row into values and latents [rows, k]; positive [threads, columns] is set where a
    column is. Where fewer than k are positive, the first that are not fill the rest.

    A row's k-th largest value, lowered (times `factor`, minus `less`), is the guess for the next row: only what is
    over the guess is looked at twice. The guess never falls under zero, as such values would not fire.
    """
    rows, n = pre.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        held, places = np.empty(n + 8, pre.dtype), np.empty(n + 8, np.int64)
        flags = np.zeros((n + 7) // 8 * 8, np.uint8)
        words = flags.view(np.uint64)
        guess = pre.dtype.type(0)
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, seen = pre[r], positive[t]
            for j in range(n):
                seen[j] |= row[j] + bias[j] > 0
            found = _candidates(row, bias, guess, flags, words, held, places)
            lower, further = factor, less
            while found < k and guess > 0:  # in ever larger steps: the row before may have been an outlier
                guess = pre.dtype.type(max(guess * lower - further, 0))
                if guess < 1e-30:
                    guess = pre.dtype.type(0)
                lower, further = lower * lower, further + further
                found = _candidates(row, bias, guess, flags, words, held, places)
            if found < k:
                for j in range(n):
                    if found < k and row[j] + bias[j] <= 0:
                        held[found], places[found] = row[j] + bias[j], j
                        found += 1
            _move_largest_to_front(held, places, found, k)
            for i in range(k, found):
                if held[i] != held[i]:  # NaN has no order, and must not go unseen
                    held[0], places[0] = held[i], places[i]
            smallest = held[0]
            for i in range(k):
                values[r, i], latents[r, i] = held[i], places[i]
                smallest = min(smallest, held[i])
            guess = pre.dtype.type(max(smallest * factor - less, 0))
            if not guess < np.inf:  # inf could not be lowered
                guess = pre.dtype.type(0)


@_parallel()
def count_above(pre, bias, thresholds, counts, positive, threads):  # type: ignore[no-untyped-def]
    """How many of each row are over their column's threshold; positive as in `largest`."""
    rows, n = pre.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        flags = np.zeros((n + 7) // 8 * 8, np.uint8)
        words = flags.view(np.uint64)
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, seen, found = pre[r], positive[t], np.uint64(0)
            for j in range(n):
                seen[j] |= row[j] + bias[j] > 0
                flags[j] = not (row[j] + bias[j] <= thresholds[j])
            for w in range(len(words)):
                found += words[w] * EACH >> TOP  # the sum of eight bytes that are 0 or 1
            counts[r] = found


@_parallel()
def gather_above(pre, bias, thresholds, starts, values, latents, threads):  # type: ignore[no-untyped-def]
    """The values that `count_above` counted and their columns; row r's begin at starts[r]."""
    rows, n = pre.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        flags = np.zeros((n + 7) // 8 * 8, np.uint8)
        words = flags.view(np.uint64)
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, place = pre[r], starts[r]
            for j in range(n):
                flags[j] = not (row[j] + bias[j] <= thresholds[j])
            for w in range(len(words)):
                if words[w]:
                    for j in range(8 * w, min(8 * w + 8, n)):
                        if flags[j]:
                            values[place], latents[place] = row[j] + bias[j], j
                            place += 1


@_parallel(fastmath={"reassoc", "contract"})
def dots(of_tokens, of_latents, tokens, latents, found, threads):  # type: ignore[no-untyped-def]
    """found[i] = <of_tokens[tokens[i]], of_latents[latents[i]]>."""
    pairs, d_in = len(tokens), of_tokens.shape[1]
    span = (pairs + threads - 1) // threads
    for t in numba.prange(threads):
        for i in range(t * span, min(pairs, (t + 1) * span)):
            token, latent = of_tokens[tokens[i]], of_latents[latents[i]]
            total = found.dtype.type(0)
            for j in range(d_in):
                total += token[j] * latent[j]
            found[i] = total


@_parallel(fastmath={"reassoc", "contract"})
def remove_parallel(gradient, rows, threads):  # type: ignore[no-untyped-def]
    """gradient - <gradient, row> row, row by row, in place."""
    n, d_in = rows.shape
    span = (n + threads - 1) // threads
    for t in numba.prange(threads):
        for r in range(t * span, min(n, (t + 1) * span)):
            g, row, along = gradient[r], rows[r], gradient.dtype.type(0)
            for j in range(d_in):
                along += g[j] * row[j]
            for j in range(d_in):
                g[j] -= along * row[j]


@_compiled()
def group(latents, counts, starts, order):  # type: ignore[no-untyped-def]
    """A stable counting sort: order lists the pairs by latent, given how many each has and where they begin."""
    place = starts.copy()
    for i in range(len(latents)):
        order[place[latents[i]]] = i
        place[latents[i]] += 1
