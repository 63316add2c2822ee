"""What may be asked of a diagnosis."""

from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import Any, get_args

from autopsae.arguments import check_whole
from autopsae.arrays import InputError
from autopsae.defaults import Repeated
from autopsae.words import show

MOST_TOKENS = 10**15
"""Tokens on which death can be forecast, at most: more than there are."""


def check_parameters(
    d_sae: int,
    acceptable: float,
    *,
    at_tokens: int,
    alphas: Sequence[float],
    ranks: Sequence[int],
    lr: float,
    steps: int,
    seed: int,
) -> None:
    """InputError, before the tokens are read, unless d_sae, k <= d_sae, at_tokens <= 10^15, ranks, steps and
    seed < 2^63 are whole numbers, the last two at least 0, alphas and ranks are lists in which each number stands
    once, lr is finite and at least 0, and `acceptable` is in [0, 1].
    """
    check_whole("d_sae", d_sae, least=1, most=2**31)
    check_whole("at_tokens", at_tokens, least=1, most=MOST_TOKENS)
    listed: dict[str, Any] = {"alphas": alphas, "ranks": ranks}
    for name, values in listed.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or len({*values}) < len(values):
            raise InputError(f"{name}: expected a list in which each number stands once, got {show(values)}")
    for alpha in alphas:
        _check_real("alphas", alpha)
    for rank in ranks:
        check_whole("ranks", rank, least=1, most=2**31)
    check_whole("steps", steps, least=0, most=MOST_TOKENS)
    check_whole("seed", seed, least=0, most=2**63 - 1)
    _check_real("lr", lr)
    if not (isfinite(lr) and lr >= 0):
        raise InputError(f"lr: expected a finite number of at least 0, got {lr}")
    _check_real("acceptable", acceptable)
    if not 0 <= acceptable <= 1:
        raise InputError(f"acceptable: expected a fraction in [0, 1], got {acceptable}; 1 % is 0.01")


def check_repeated(repeated: str) -> None:
    """InputError unless `repeated` is one of its names."""
    if repeated not in get_args(Repeated):
        raise InputError(f"repeated: expected one of {', '.join(get_args(Repeated))}, got {repeated!r}")


def _check_real(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name}: expected a number, got {show(value)}")
