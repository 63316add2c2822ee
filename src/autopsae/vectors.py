"""Vectors that callers give: a truth value, or the number of a document, for each row.

The rule, everywhere: a NumPy array, a tensor or a list of booleans is a mask, and so is one of integers that are
all 0 or 1, which as an index would take rows 0 and 1 again and again. The number of a document is an integer; a
float is refused, as rounding would put tokens of two documents into one.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.words import reason, show

Vector = Sequence[Any] | NDArray[Any] | Tensor
"""A value for each row, as a caller may give it."""


def as_array(name: str, given: Any) -> NDArray[Any]:
    """What a caller gave as a NumPy array, which may share its memory. Raises InputError for what is no array, and
    for a masked one, whose hidden values would count.
    """
    if isinstance(given, np.ma.MaskedArray):
        raise InputError(f"{name}: expected a plain array, got a masked one; give numpy.asarray of what is meant")
    try:
        return given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"{name}: expected an array, got {show(given)} ({reason(error)}); pass an array, a tensor or a list"
        ) from error


def truth_values(
    name: str, given: Any, rows: int | None = None, *, unit: str = "tokens"
) -> Bool[np.ndarray, "rows"]:
    """A mask as an array of booleans. rows: how long it must be, None where that is not known yet; unit: what a row
    is, for the message.

    Raises InputError for a vector of another length, and for what is no vector of booleans or of integers 0 and 1.
    """
    values = as_array(name, given)
    # Integers alone have other values to name; texts and floats are told by their type.
    other = values[(values != 0) & (values != 1)][:1].tolist() if values.dtype.kind in "iu" else []
    fits = values.ndim == 1 and values.dtype.kind in "biu" and rows in (None, len(values))
    if not fits or other:
        each = "each row" if rows is None else f"each of {rows:,} {unit}"
        such = f" with the value {other[0]}" if other else ""
        raise InputError(
            f"{name}: expected a truth value for {each}, got {_describe(values)}{such}; pass booleans, or integers "
            "that are 0 or 1"
        )
    return values.astype(bool, copy=False)


def document_numbers(given: Any, tokens: int | None = None) -> Int[np.ndarray, "tokens"]:
    """The number of each token's document as int64. tokens: how many there must be, None where that is not
    known yet.

    Raises InputError for what is no vector of integers, for another number of them, and for one beyond int64.
    """
    numbers = as_array("documents", given)
    fits = numbers.ndim == 1 and numbers.dtype.kind in "iu" and tokens in (None, len(numbers))
    if not fits or (numbers.dtype.kind == "u" and len(numbers) and numbers.max() >= 2**63):
        each = "each token" if tokens is None else f"each of {tokens:,} tokens"
        raise InputError(
            f"documents: expected a whole number for {each}, got {_describe(numbers)}; pass the number of the "
            "document that each token is from"
        )
    return numbers.astype(np.int64, copy=False)


def items_of(name: str, given: Any, what: str) -> list[Any]:
    """The items of a sequence. what: what they are, for the message. Raises InputError for a text and for a single
    item.
    """
    try:
        if isinstance(given, Iterable) and not isinstance(given, str | bytes):
            return [*given]
    except TypeError:  # an array or a tensor of no dimension
        pass
    raise InputError(f"{name}: expected a sequence of {what}, got {show(given)}; pass a tuple of them")


def _describe(values: NDArray[Any]) -> str:
    return f"{values.dtype} of shape {values.shape}"
