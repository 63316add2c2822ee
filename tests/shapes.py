"""The checks of shapes and types in signatures: of the first calls of each test.

A check takes longer than a small function. A test that trains for hundreds of steps makes the same calls in each.
"""

import functools
from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import config

CALLS = 2000
"""As many checks are made in a test, of parameters and of results."""

_left = [CALLS]


def check(function: Any) -> Any:
    """The checker that jaxtyping applies to every function and class of the package."""
    checked = beartype(function)
    if isinstance(function, type):
        return checked
    return _counted(checked)


def _counted(checked: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(checked)
    def counted(*arguments: Any, **named: Any) -> Any:
        _left[0] -= 1
        if not _left[0]:
            config.update("jaxtyping_disable", True)
        return checked(*arguments, **named)

    return counted


def begin() -> None:
    """Check again, as at the start of a test."""
    _left[0] = CALLS
    config.update("jaxtyping_disable", False)
