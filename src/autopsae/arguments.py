"""Numbers that callers give: whole where they count something.

The rule, everywhere: Python's and NumPy's integers are whole numbers and become `int`; truth values and floats are
refused, 16.0 too, as one that was meant for another argument would go unseen.
"""

import os
from collections.abc import Callable
from functools import wraps
from inspect import signature
from math import inf
from numbers import Integral
from typing import ParamSpec, TypeVar

from autopsae.arrays import InputError
from autopsae.words import printable, show

P = ParamSpec("P")
R = TypeVar("R")


def is_whole(value: object) -> bool:
    """Whether `value` is an integer and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole(name: str, value: object) -> int:
    """`value` as an int. Raises InputError, naming the argument, unless it is a whole number."""
    if not is_whole(value):
        raise InputError(f"{name}: expected a whole number, got {show(value)}; pass an int")
    return int(value)  # type: ignore[call-overload, no-any-return]


def check_whole(name: str, value: object, *, least: int, most: int) -> None:
    """InputError unless `value` is a whole number in [least, most]."""
    if not (is_whole(value) and least <= int(value) <= most):  # type: ignore[call-overload]
        raise InputError(f"{name}: expected a whole number from {least:,} to {most:,}, got {show(value)}")


def number_told(variable: str, default: float, unit: str) -> float:
    """The number over 0 that a variable of the environment says, `default` where it is not set. unit: what it is a
    number of. Raises InputError for anything else.
    """
    told = os.environ.get(variable, "")
    try:
        value = float(told) if told else default
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise InputError(f"{variable}: expected a number of {unit} over 0, got {printable(told, 40)}")
    return value


def check_k(k: int, d_sae: int) -> None:
    """InputError unless both are whole numbers and 1 <= k <= d_sae."""
    check_whole("d_sae", d_sae, least=1, most=2**31)
    if not is_whole(k):
        raise InputError(f"k: expected a whole number from 1 to d_sae = {d_sae:,}, got {show(k)}")
    if not 1 <= k <= d_sae:
        raise InputError(f"expected 1 <= k <= d_sae = {d_sae:,}, got k = {k:,}; lower k or raise d_sae")


def whole_arguments(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function whose arguments of these names are whole numbers, or None where it takes that: it gets
    them as ints, and whoever calls it with another value gets an InputError.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function)

        @wraps(function)
        def call_with_whole(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = parameters.bind(*args, **kwargs)
            for name in names:
                if bound.arguments.get(name) is not None:
                    bound.arguments[name] = whole(name, bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return call_with_whole

    return decorate


def whole_fields(owner: object, *names: str) -> None:
    """The same for the fields of a frozen dataclass, from its __post_init__."""
    for name in names:
        if (value := getattr(owner, name)) is not None:
            object.__setattr__(owner, name, whole(f"{type(owner).__name__}.{name}", value))
