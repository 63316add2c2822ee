"""The slow, obvious versions: whole matrices, float64, loops."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[Any]


def layer_norm(x: Array) -> Array:
    return np.asarray((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True))


def gamma(x: Array) -> float:
    return float(np.linalg.norm(x.mean(axis=0)) / np.linalg.norm(x.std(axis=0)))


def effective_rank(x: Array) -> float:
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    return float(np.exp(stats.entropy(singular**2)))


def geometric_median(x: Array) -> Array:
    """A general-purpose minimiser on the summed distance and its gradient."""

    def objective(m: Array) -> tuple[float, Array]:
        away = m - x
        r = np.maximum(np.linalg.norm(away, axis=1), 1e-300)
        return float(r.sum()), (away / r[:, None]).sum(axis=0)

    start = np.median(x, axis=0)
    found = optimize.minimize(
        objective, start, jac=True, method="BFGS", options={"gtol": 1e-12 * len(x), "maxiter": 2000}
    )
    return np.asarray(found.x)


def fates(pre: Array, k: int) -> tuple[Array, Array]:
    """(ever positive, ever fired) per latent, by a loop over tokens that sorts each one's pre-activations."""
    positive, fired = np.zeros(pre.shape[1], bool), np.zeros(pre.shape[1], bool)
    for row in pre:
        positive |= row > 0
        for latent in np.argsort(-row, kind="stable")[:k]:
            fired[latent] |= row[latent] > 0
    return positive, fired
