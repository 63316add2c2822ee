"""What may be asked of a diagnosis."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any, get_args

from autopsae.arguments import check_whole
from autopsae.arrays import InputError
from autopsae.defaults import MOST_TOKENS, Repeated
from autopsae.sae.sparsity import Sparsity
from autopsae.survival.tails import LEAST_TAIL
from autopsae.words import show

"""Tokens on which death can be forecast, at most: more than there are."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of the diagnosis of every layer: arguments of `diagnose`, checked when it is made.

    Raises InputError unless d_sae, k <= d_sae, at_tokens <= 10^15, ranks, steps and seed < 2^63 are whole numbers,
    the last two at least 0, sample_tokens is None or a whole number of at least 40, alphas and ranks are lists in
    which each number stands once, lr is finite and at least 0, and `acceptable` is in [0, 1].
    """

    d_sae: int
    sparsity: Sparsity
    at_tokens: int
    alphas: Sequence[float]
    ranks: Sequence[int]
    acceptable: float
    lr: float
    steps: int
    seed: int
    sample_tokens: int | None = None
    """Tokens of the sample; None for as many as are usual and fit in memory."""

    def __post_init__(self) -> None:
        self.sparsity.check(self.d_sae)
        check_whole("d_sae", self.d_sae, least=1, most=2**31)
        check_whole("at_tokens", self.at_tokens, least=1, most=MOST_TOKENS)
        listed: dict[str, Any] = {"alphas": self.alphas, "ranks": self.ranks}
        for name, values in listed.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or len({*values}) < len(values):
                raise InputError(f"{name}: expected a list in which each number stands once, got {show(values)}")
        for alpha in self.alphas:
            _check_real("alphas", alpha)
        for rank in self.ranks:
            check_whole("ranks", rank, least=1, most=2**31)
        check_whole("steps", self.steps, least=0, most=MOST_TOKENS)
        check_sample(self.sample_tokens, self.seed)
        _check_real("lr", self.lr)
        if not (isfinite(self.lr) and self.lr >= 0):
            raise InputError(f"lr: expected a finite number of at least 0, got {self.lr}")
        _check_real("acceptable", self.acceptable)
        if not 0 <= self.acceptable <= 1:
            raise InputError(f"acceptable: expected a fraction in [0, 1], got {self.acceptable}; 1 % is 0.01")


def check_sample(sample_tokens: int | None, seed: int) -> None:
    """InputError for a sample that is too small for a forecast, and for a seed that cannot be."""
    check_whole("seed", seed, least=0, most=2**63 - 1)
    if sample_tokens is not None:
        check_whole("sample_tokens", sample_tokens, least=2 * LEAST_TAIL, most=2**31)


def check_repeated(repeated: str) -> None:
    """InputError unless `repeated` is one of its names."""
    if repeated not in get_args(Repeated):
        raise InputError(f"repeated: expected one of {', '.join(get_args(Repeated))}, got {repeated!r}")


def _check_real(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name}: expected a number, got {show(value)}")
