"""The paper's closed forms: death at birth from outlier severity alone (Sec. 4.2, App. B)."""

from dataclasses import dataclass
from math import inf
from numbers import Integral
from statistics import NormalDist
from typing import Any

from autopsae.arrays import InputError

_NORMAL = NormalDist()


def reach(tokens: int) -> float:
    """C = Phi^-1(1 - 1/N), how many standard deviations the best of N Gaussian tokens reaches; 0 for N = 1 or 2."""
    return max(0.0, _NORMAL.inv_cdf(1 - 1 / tokens)) if tokens > 1 else 0.0


def dead_by_relu(gamma: float, tokens: int) -> float:
    """Fraction of latents that no token makes positive: Phi(-C / gamma); tends to 1/2 for large gamma."""
    return _NORMAL.cdf(-_ratio(reach(tokens), gamma))


def dead_by_topk(gamma: float, tokens: int, *, d_sae: int, k: int) -> float:
    """Fraction of latents that never fire: Phi(t_k - C / gamma), t_k = Phi^-1(1 - k / d_sae); includes the
    dead-by-ReLU; tends to 1 - k / d_sae. Good for gamma over 3, too low below.

    Raises InputError for k outside 1 ... d_sae.
    """
    check_k(k, d_sae)
    t_k = _NORMAL.inv_cdf(1 - k / d_sae) if k < d_sae else -inf
    return _NORMAL.cdf(t_k - _ratio(reach(tokens), gamma))


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The paper's closed forms for one gamma, d_sae, k and number of tokens, as fractions of the latents."""

    relu: float
    """Latents that no token makes positive."""
    dead: float
    """Latents that never fire; includes `relu`."""

    @staticmethod
    def of(gamma: float, tokens: int, *, d_sae: int, k: int) -> "Prediction":
        """Both forms."""
        return Prediction(relu=dead_by_relu(gamma, tokens), dead=dead_by_topk(gamma, tokens, d_sae=d_sae, k=k))


def check_whole(name: str, value: object, *, least: int, most: int) -> None:
    """InputError unless `value` is a whole number in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise InputError(f"{name}: expected a whole number from {least:,} to {most:,}, got {value!r}")


def check_k(k: Any, d_sae: int) -> None:
    """InputError unless both are whole numbers and 1 <= k <= d_sae."""
    check_whole("d_sae", d_sae, least=1, most=2**31)
    if isinstance(k, bool) or not isinstance(k, Integral):
        raise InputError(f"k: expected a whole number from 1 to d_sae = {d_sae:,}, got {k!r}")
    if not 1 <= int(k) <= d_sae:
        raise InputError(f"expected 1 <= k <= d_sae = {d_sae:,}, got k = {k:,}; lower k or raise d_sae")


def _ratio(reach: float, gamma: float) -> float:
    """reach / gamma with its limit at gamma = 0."""
    return reach / gamma if gamma > 0 else inf
