"""The paper's closed forms: death at birth from outlier severity alone (Sec. 4.2, App. B)."""

from dataclasses import dataclass
from math import inf
from statistics import NormalDist

from autopsae.arguments import check_k, check_whole, whole_arguments
from autopsae.arrays import InputError
from autopsae.defaults import MOST_TOKENS
from autopsae.sae.sparsity import Sparsity
from autopsae.tables import Result

_NORMAL = NormalDist()


def reach(tokens: int) -> float:
    """C = Phi^-1(1 - 1/N), how many standard deviations the best of N Gaussian tokens reaches; 0 for N = 1 or 2."""
    return max(0.0, _NORMAL.inv_cdf(1 - 1 / tokens)) if tokens > 1 else 0.0


@whole_arguments("tokens")
def predicted_dead_by_relu(gamma: float, tokens: int) -> float:
    """Fraction of latents that no token makes positive: Phi(-C / gamma); tends to 1/2 for large gamma.

    Raises InputError for a gamma under 0 or NaN, and for `tokens` outside 1 ... 10^15.
    """
    _check(gamma, tokens)
    return _NORMAL.cdf(-_ratio(reach(tokens), gamma))


@whole_arguments("tokens", "d_sae", "k")
def predicted_dead(gamma: float, tokens: int, *, d_sae: int, k: int) -> float:
    """Fraction of latents that never fire: Phi(t_k - C / gamma), t_k = Phi^-1(1 - k / d_sae); includes the
    dead-by-ReLU; tends to 1 - k / d_sae. Good for gamma over 3, too low below.

    Raises InputError for k outside 1 ... d_sae, a gamma under 0 or NaN, and `tokens` outside 1 ... 10^15.
    """
    check_k(k, d_sae)
    _check(gamma, tokens)
    t_k = _NORMAL.inv_cdf(1 - k / d_sae) if k < d_sae else -inf
    return _NORMAL.cdf(t_k - _ratio(reach(tokens), gamma))


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction(Result):
    """The paper's closed forms for one gamma, d_sae, sparsity and number of tokens, as fractions of the latents."""

    dead_by_relu: float
    """Latents that no token makes positive."""
    dead: float | None
    """Latents that never fire; includes the dead-by-ReLU. None where the paper has no formula for the sparsity."""

    @staticmethod
    def of(gamma: float, tokens: int, *, d_sae: int, sparsity: Sparsity) -> "Prediction":
        """Both forms. A sparsity under which being positive is enough has the first as its second."""
        by_relu, share = predicted_dead_by_relu(gamma, tokens), sparsity.share_selected(d_sae)
        if share is None:
            return Prediction(dead_by_relu=by_relu, dead=None)
        if share == 1 and sparsity.l0 is None:
            return Prediction(dead_by_relu=by_relu, dead=by_relu)
        dead = predicted_dead(gamma, tokens, d_sae=d_sae, k=round(share * d_sae))
        return Prediction(dead_by_relu=by_relu, dead=dead)

    def __str__(self) -> str:
        dead = "no formula for all dead" if self.dead is None else f"{self.dead:.1%} dead"
        return f"by the paper's closed forms: {dead}, {self.dead_by_relu:.1%} dead-by-ReLU"


def _check(gamma: float, tokens: int) -> None:
    check_whole("tokens", tokens, least=1, most=MOST_TOKENS)
    if not gamma >= 0:
        raise InputError(f"gamma: expected a number of at least 0, got {gamma:g}")


def _ratio(reach: float, gamma: float) -> float:
    """reach / gamma with its limit at gamma = 0."""
    return reach / gamma if gamma > 0 else inf
