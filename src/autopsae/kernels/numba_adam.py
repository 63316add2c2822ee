"""The loops of `adam`."""

import numba
import numpy as np

from autopsae.kernels.numba_compile import compile_loop, parallel

FAST = {"reassoc", "contract"}


@compile_loop(fastmath=FAST)
def _move(p, g, m, v, size, settings, unit):  # type: ignore[no-untyped-def]
    """A step of one row p along g. settings: 1 - beta1, beta2, 1 - beta2, sqrt(1 - beta2^t), eps."""
    new1, old2, new2, correction2, eps = settings[0], settings[1], settings[2], settings[3], settings[4]
    if unit:
        along = p.dtype.type(0)
        for c in range(len(p)):
            along += g[c] * p[c]
        for c in range(len(p)):
            g[c] -= along * p[c]
    for c in range(len(p)):
        m[c] += new1 * (g[c] - m[c])
        v[c] = old2 * v[c] + new2 * g[c] * g[c]
        p[c] -= size * m[c] / (np.sqrt(v[c]) / correction2 + eps)


@compile_loop(fastmath=FAST)
def _to_unit(p):  # type: ignore[no-untyped-def]
    square = p.dtype.type(0)
    for c in range(len(p)):
        square += p[c] * p[c]
    length = max(np.sqrt(square), np.finfo(p.dtype).tiny)
    for c in range(len(p)):
        p[c] /= length


@compile_loop()
def _is_touched(g):  # type: ignore[no-untyped-def]
    touched = False
    for c in range(len(g)):
        touched |= g[c] != 0
    return touched


@compile_loop()
def _step(p, g, m, v, size, settings, unit, sparse):  # type: ignore[no-untyped-def]
    """One row. unit: its gradient is first made orthogonal to it, and it is brought to length 1 in the end. sparse:
    it is left alone without a gradient.
    """
    if not sparse or _is_touched(g):
        _move(p, g, m, v, size, settings, unit)
    if unit:
        _to_unit(p)


@parallel()
def adam(rows, grads, firsts, seconds, sizes, settings, unit, sparse, threads):  # type: ignore[no-untyped-def]
    """One step of Adam, row by row, at the size of the row's member: its rate / (1 - beta1^t); at 0 the row is left
    alone.

    settings: as in `_move`; unit, sparse: as in `_step`.
    """
    n, each = len(rows), len(rows) // len(sizes)
    span = (n + threads - 1) // threads
    for t in numba.prange(threads):
        for r in range(t * span, min(n, (t + 1) * span)):
            size = sizes[r // each]
            if size > 0:
                _step(rows[r], grads[r], firsts[r], seconds[r], size, settings, unit, sparse)


@compile_loop(fastmath=FAST)
def _add_rows(g, values, order, tokens, begin, end, of_tokens):  # type: ignore[no-untyped-def]
    """g += the pairs' values times their tokens' rows, four at a time: each waits for its row."""
    for p in range(begin, end - 3, 4):
        i, j, k, l = order[p], order[p + 1], order[p + 2], order[p + 3]  # noqa: E741
        of_i, of_j, of_k, of_l = values[i], values[j], values[k], values[l]
        row_i, row_j = of_tokens[tokens[i]], of_tokens[tokens[j]]
        row_k, row_l = of_tokens[tokens[k]], of_tokens[tokens[l]]
        for c in range(len(g)):
            g[c] += of_i * row_i[c] + of_j * row_j[c] + of_k * row_k[c] + of_l * row_l[c]
    for p in range(end - (end - begin) % 4, end):
        i = order[p]
        row, value = of_tokens[tokens[i]], values[i]
        for c in range(len(g)):
            g[c] += value * row[c]


@parallel()
def adam_from_sum(rows, grads, firsts, seconds, sizes, settings, unit, sparse, pairs, of_tokens, bounds, threads):  # type: ignore[no-untyped-def]
    """As `adam`, where a row's gradient is that of `grads` (none: no rows) and the sum over the row's pairs, from
    order[ends[r]] to order[ends[r + 1]], of value times the token's row. pairs: (values, order, tokens, ends);
    bounds: the rows of each thread.
    """
    values, order, tokens, ends = pairs
    each, d_in = len(rows) // len(sizes), rows.shape[1]
    for t in numba.prange(threads):
        g = np.empty(d_in, rows.dtype)
        for r in range(bounds[t], bounds[t + 1]):
            size = sizes[r // each]
            if size > 0:
                for c in range(d_in):  # g[:] = 0 takes longer
                    g[c] = grads[r, c] if len(grads) else 0
                _add_rows(g, values, order, tokens, ends[r], ends[r + 1], of_tokens)
                _step(rows[r], g, firsts[r], seconds[r], size, settings, unit, sparse)
