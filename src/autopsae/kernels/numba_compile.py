"""How loops are compiled: by Numba, kept on disk, and twice where they are parallel. x / 0 is inf or NaN, as in
NumPy, and so needs no branch.

A loop that another one calls is always inlined there (`forceinline`). Else the object files of both hold a copy of
it, optimised in different surroundings; which copy runs depends on the order in which they are loaded, and so on
what is on the disk already, and the last bits of a result with it.
"""

import inspect
from collections.abc import Callable
from threading import Lock
from types import FunctionType
from typing import Any

import numba

from autopsae.kernels.own_math import own_math

_SHARED = Lock()
"""Held by a loop that runs on several threads: Numba ends the process where two such loops run at once."""


def compile_loop(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles a loop with numba, under `flags` of `numba.njit`. Other threads of Python go on
    while it runs.
    """
    flags = {"nogil": True, "forceinline": True, "error_model": "numpy", **flags}

    def compile(function: Callable[..., Any]) -> Any:
        plain = inspect.unwrap(function)  # the tests check shapes by wrapping every function
        try:
            return numba.njit(cache=True, **flags)(plain)
        except RuntimeError:  # nowhere to write the cache: compile once per process
            return numba.njit(**flags)(plain)

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
            if arguments[-1] == 1:
                with own_math():
                    alone(*arguments)
            else:
                with own_math(), _SHARED:
                    shared(*arguments)

        return run

    return compile
