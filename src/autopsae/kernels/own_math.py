"""The functions of `math` as Python has them, where another library has replaced them."""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_math() -> Iterator[None]:
    """Within it, `math` has its own functions. nnsight, which dictionary_learning imports, puts Python functions in
    their place for the whole process. Numba knows the functions that it found when it was imported: without this, a
    loop that is compiled after nnsight was imported fails.
    """
    if not inspect.isfunction(math.fabs):
        yield
        return
    replaced = {name: value for name, value in vars(math).items() if inspect.isfunction(value)}
    for name, value in replaced.items():
        setattr(math, name, inspect.unwrap(value))
    try:
        yield
    finally:
        for name, value in replaced.items():
            setattr(math, name, value)
