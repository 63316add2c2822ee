"""The loop of `adam`."""

import numba
import numpy as np

from autopsae.kernels.numba_compile import parallel


@parallel(fastmath={"reassoc", "contract"})
def adam(rows, grads, firsts, seconds, rates, settings, unit, sparse, threads):  # type: ignore[no-untyped-def]
    """One step of Adam, row by row, at the rate of the row's member (none: at 0 the row is left alone).

    settings: 1 - beta1, beta2, 1 - beta2, 1 - beta1^t, sqrt(1 - beta2^t), eps. unit: the gradient is first made
    orthogonal to the row, and the row is brought to length 1 in the end. sparse: rows without a gradient are left
    alone.
    """
    n, d_in = rows.shape
    new1, old2, new2, correction1 = settings[0], settings[1], settings[2], settings[3]
    correction2, eps = settings[4], settings[5]
    span, each = (n + threads - 1) // threads, n // len(rates)
    tiny = np.finfo(rows.dtype).tiny
    for t in numba.prange(threads):
        for r in range(t * span, min(n, (t + 1) * span)):
            size = rates[r // each] / correction1
            p, g, m, v = rows[r], grads[r], firsts[r], seconds[r]
            touched = not sparse
            if sparse:
                for c in range(d_in):
                    touched |= g[c] != 0
            if size > 0 and touched:
                if unit:
                    along = rows.dtype.type(0)
                    for c in range(d_in):
                        along += g[c] * p[c]
                    for c in range(d_in):
                        g[c] -= along * p[c]
                for c in range(d_in):
                    m[c] += new1 * (g[c] - m[c])
                    v[c] = old2 * v[c] + new2 * g[c] * g[c]
                    p[c] -= size * m[c] / (np.sqrt(v[c]) / correction2 + eps)
            if unit and size > 0:
                square = rows.dtype.type(0)
                for c in range(d_in):
                    square += p[c] * p[c]
                length = max(np.sqrt(square), tiny)
                for c in range(d_in):
                    p[c] /= length
