"""What Numba has no name for: a float seen as an integer and back, and the place of the lowest bit that is set."""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, overload


@intrinsic
def float_of(context, bits):  # type: ignore[no-untyped-def]
    """The float32 with these 32 bits."""
    return types.float32(types.uint32), lambda c, builder, s, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def zeros_below(context, word):  # type: ignore[no-untyped-def]
    """How many zeros are below the lowest 1 of a word of 64 bits that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


def widen(number):  # type: ignore[no-untyped-def]
    """A number as float32: bfloat16, which comes as its 16 bits, int8 or float32."""
    raise NotImplementedError


@overload(widen, inline="always")
def _widen(number):  # type: ignore[no-untyped-def]
    if number == types.uint16:
        return lambda number: float_of(np.uint32(number) << np.uint32(16))  # type: ignore[call-arg]
    return lambda number: np.float32(number)
