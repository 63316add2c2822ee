"""Loops that sum over pairs and rows, compiled by Numba. Called by `sums` alone.

Loops over rows or pairs are parallel over `threads` equal spans of them, those by member (SAEs trained side by
side) over some spans of each. Sums over a row may be taken in any order.
"""

import numba
import numpy as np

from autopsae.kernels.numba_compile import compile_loop, parallel


@compile_loop(fastmath={"reassoc", "contract"})
def _subtract(out, values, latents, begin, end, W):  # type: ignore[no-untyped-def]
    """out -= the sum over pairs of value times the latent's row, four at a time: each waits for its row."""
    for p in range(begin, end - 3, 4):
        of_a, of_b, of_c, of_d = values[p], values[p + 1], values[p + 2], values[p + 3]
        a, b, c, d = W[latents[p]], W[latents[p + 1]], W[latents[p + 2]], W[latents[p + 3]]
        if of_a != 0 or of_b != 0 or of_c != 0 or of_d != 0:
            for j in range(len(out)):
                out[j] -= of_a * a[j] + of_b * b[j] + of_c * c[j] + of_d * d[j]
    for p in range(end - (end - begin) % 4, end):
        value, row = values[p], W[latents[p]]
        if value != 0:
            for j in range(len(out)):
                out[j] -= value * row[j]


@compile_loop(fastmath={"reassoc", "contract"})
def multiply_four(row, W, latents, first, products):  # type: ignore[no-untyped-def]
    """products: <row, the latent's row> of four latents from `first` on."""
    a, b, c, d = W[latents[first]], W[latents[first + 1]], W[latents[first + 2]], W[latents[first + 3]]
    of_a = of_b = of_c = of_d = products.dtype.type(0)
    for j in range(len(row)):
        of_a += row[j] * a[j]
        of_b += row[j] * b[j]
        of_c += row[j] * c[j]
        of_d += row[j] * d[j]
    products[first], products[first + 1], products[first + 2], products[first + 3] = of_a, of_b, of_c, of_d


@compile_loop(fastmath={"reassoc", "contract"})
def _multiply(row, W, latents, begin, end, products):  # type: ignore[no-untyped-def]
    """products: <row, the latent's row> of the pairs."""
    for p in range(begin, end - 3, 4):
        multiply_four(row, W, latents, p, products)
    for p in range(end - (end - begin) % 4, end):
        latent, total = W[latents[p]], products.dtype.type(0)
        for j in range(len(row)):
            total += row[j] * latent[j]
        products[p] = total


@parallel(fastmath={"reassoc", "contract"})
def dots(of_tokens, of_latents, latents, ends, products, threads):  # type: ignore[no-untyped-def]
    """products: <the token's row, the latent's row> of every pair, token by token."""
    tokens = len(of_tokens)
    span = (tokens + threads - 1) // threads
    for t in numba.prange(threads):
        for r in range(t * span, min(tokens, (t + 1) * span)):
            _multiply(of_tokens[r], of_latents, latents, ends[r], ends[r + 1], products)


@parallel(fastmath={"reassoc", "contract"})
def leave(target, values, latents, ends, W, left, error, sums, products, threads):  # type: ignore[no-untyped-def]
    """left = target - sum over a row's pairs of value times the latent's row of W; error [members, spans]: the sum
    of its squares; sums [members, spans, d_in]: of its rows; products: `dots` of left and W, while the rows are in
    the cache.
    """
    (members, rows, d_in), spans = target.shape, error.shape[1]
    span = (rows + spans - 1) // spans
    for task in numba.prange(members * spans):
        m, t = task // spans, task % spans
        total, columns = np.float64(0), sums[m, t]
        for r in range(t * span, min(rows, (t + 1) * span)):
            row, out, begin, end = target[m, r], left[m, r], ends[m * rows + r], ends[m * rows + r + 1]
            for c in range(d_in):  # out[:] = row takes as long as all that follows where d_in is small
                out[c] = row[c]
            _subtract(out, values, latents, begin, end, W)
            square = left.dtype.type(0)
            for c in range(d_in):
                square += out[c] * out[c]
                columns[c] += out[c]
            total += square
            _multiply(out, W, latents, begin, end, products)
        error[m, t] = total


@parallel(fastmath={"reassoc", "contract"})
def scatter(values, latents, ends, rows, members, sums, threads):  # type: ignore[no-untyped-def]
    """sums [spans, all latents, d_in]: for each latent, value times row, summed over the pairs of a span."""
    spans, latents_of_all, d_in = sums.shape
    each, n = len(rows) // members, latents_of_all // members
    span = (each + spans - 1) // spans
    for task in numba.prange(members * spans):
        m, t = task // spans, task % spans
        sums[t, m * n : (m + 1) * n] = 0
        for r in range(m * each + t * span, m * each + min(each, (t + 1) * span)):
            row = rows[r]
            for p in range(ends[r], ends[r + 1]):
                value, out = values[p], sums[t, latents[p]]
                if value != 0:
                    for c in range(d_in):
                        out[c] += value * row[c]


@compile_loop()
def mark(values, latents, marked):  # type: ignore[no-untyped-def]
    """marked[latent] becomes true where a value is over zero."""
    for p in range(len(values)):
        if values[p] > 0:
            marked[latents[p]] = True


@compile_loop()
def group(latents, counts, starts, order):  # type: ignore[no-untyped-def]
    """A stable counting sort: order lists the pairs by latent, given how many each has and where they begin."""
    place = starts.copy()
    for i in range(len(latents)):
        order[place[latents[i]]] = i
        place[latents[i]] += 1
