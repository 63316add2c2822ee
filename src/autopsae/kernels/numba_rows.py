"""Loops over rows of tokens, compiled by Numba, in float64 also of float32 tokens. Called by `statistics`.

PyTorch's operators would each read and write a float64 matrix that the cache does not hold; here a row stays in
registers and in the first cache until all that is asked of it is done.
"""

import numba
import numpy as np

from autopsae.kernels.numba_compile import parallel


@parallel(fastmath={"reassoc", "contract"})
def sum_columns(x, sums, threads):  # type: ignore[no-untyped-def]
    """sums [threads, d_in]: of the rows."""
    rows, d_in = x.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        total = sums[t]
        for r in range(t * span, min(rows, (t + 1) * span)):
            row = x[r]
            for c in range(d_in):
                total[c] += row[c]


@parallel(fastmath={"reassoc", "contract"})
def center(x, mean, deviations, sums, threads):  # type: ignore[no-untyped-def]
    """deviations = x - mean, rounded to their type; sums [threads, 3, d_in]: of the second, third and fourth powers
    of the deviations before they are rounded.
    """
    rows, d_in = x.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        second, third, fourth = sums[t, 0], sums[t, 1], sums[t, 2]
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, out = x[r], deviations[r]
            for c in range(d_in):
                away = row[c] - mean[c]
                square = away * away
                out[c] = away
                second[c] += square
                third[c] += square * away
                fourth[c] += square * square


@parallel(fastmath={"reassoc", "contract"})
def normalize(x, eps, normed, threads):  # type: ignore[no-untyped-def]
    """normed: each row minus its mean, over its standard deviation; zero where that is no more than eps times the
    largest number.
    """
    rows, d_in = x.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, out = x[r], normed[r]
            total = np.float64(0)
            for c in range(d_in):
                total += row[c]
            mean, squares = total / d_in, np.float64(0)
            for c in range(d_in):
                away = row[c] - mean
                out[c] = away
                squares += away * away
            rms = np.sqrt(squares / d_in)
            # No number is larger than the norm. Only a row that may be constant is searched for its largest number.
            if not rms > eps * np.sqrt(squares + d_in * mean * mean):
                largest = np.float64(0)
                for c in range(d_in):
                    largest = max(largest, np.float64(abs(row[c])))
                rms = rms if rms > eps * largest else np.inf
            for c in range(d_in):
                out[c] /= rms


@parallel(fastmath={"reassoc", "contract"})
def distances(x, point, unit, shortest, longest, lengths, sums, threads):  # type: ignore[no-untyped-def]
    """lengths: ||unit x - point|| of every row; sums [threads, d_in]: of the unit vectors from the point to those
    rows whose length is between shortest and longest.
    """
    rows, d_in = x.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        total = sums[t]
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, squares = x[r], np.float64(0)
            for c in range(d_in):
                away = unit * row[c] - point[c]
                squares += away * away
            length = np.sqrt(squares)
            lengths[r] = length
            if length > shortest and length < longest:
                inverse = 1 / length
                for c in range(d_in):
                    total[c] += (unit * row[c] - point[c]) * inverse


@parallel()
def multiply_bits(x, factors, hashes, threads):  # type: ignore[no-untyped-def]
    """hashes: for each row, the sum modulo 2^64 of the bits of its float64 numbers times the factors. The upper
    half of the bits is first mixed into the lower half.
    """
    rows, d_in = x.shape
    span = (rows + threads - 1) // threads
    for t in numba.prange(threads):
        wide = np.empty(d_in, np.float64)
        bits = wide.view(np.int64)
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, total = x[r], np.int64(0)
            for c in range(d_in):
                wide[c] = row[c] + 0.0  # -0.0 + 0.0 is 0.0
            for c in range(d_in):
                total += (bits[c] ^ (bits[c] >> 32)) * factors[c]
            hashes[r] = total
