"""How loops are compiled: by Numba, kept on disk, and twice where they are parallel. x / 0 is inf or NaN, as in
NumPy, and so needs no branch.

A loop that another one calls is always inlined there (`forceinline`). Else the object files of both hold a copy of
it, optimised in different surroundings; which copy runs depends on the order in which they are loaded, and so on
what is on the disk already, and the last bits of a result with it.
"""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba

from autopsae.kernels.own_math import own_math


def compile_loop(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles a loop with numba, under `flags` of `numba.njit`."""

    def compile(function: Callable[..., Any]) -> Any:
        plain = inspect.unwrap(function)  # the tests check shapes by wrapping every function
        try:
            return numba.njit(cache=True, forceinline=True, error_model="numpy", **flags)(plain)
        except RuntimeError:  # nowhere to write the cache: compile once per process
            return numba.njit(forceinline=True, error_model="numpy", **flags)(plain)

    return compile


def parallel(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiled twice: where the last argument, `threads`, is 1, no other thread is waited for, which takes longer
    than a small loop.
    """

    def compile(function: Callable[..., Any]) -> Any:
        plain = inspect.unwrap(function)
        # Numba's cache goes by the name alone, so the second needs one of its own.
        again = FunctionType(plain.__code__, plain.__globals__, plain.__name__)
        again.__qualname__ = f"{plain.__qualname__}_shared"
        alone, shared = compile_loop(**flags)(plain), compile_loop(parallel=True, **flags)(again)

        def run(*arguments: Any) -> None:
            with own_math():
                (alone if arguments[-1] == 1 else shared)(*arguments)

        return run

    return compile
