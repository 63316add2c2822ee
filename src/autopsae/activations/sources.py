"""Somebody else's iterator: at which item it failed, and a limit on the wait for the next one."""

from collections.abc import Callable, Iterable, Iterator
from queue import Empty
from typing import Any, TypeVar

from autopsae.arrays import InputError
from autopsae.threads import END, Reader
from autopsae.words import printable

Item = TypeVar("Item")


def watch(items: Iterable[Item], what: str, timeout: float | None = None) -> Iterator[Item]:
    """The items in order; what: what one is called in messages, such as "batch".

    timeout: seconds to wait for an item. With it the source runs in a thread of its own, which asks for one item at
    a time and only when that is wanted, so that a source that fills its memory anew does not run ahead. A source
    that stalls cannot be stopped from outside: its thread is left behind and ends with the process.

    Raises InputError for what cannot be iterated, for an exception of the source's own, and for an item that does
    not come in time; the message says which item it was.
    """
    if timeout is not None and not timeout > 0:
        raise InputError(
            f"timeout: expected a positive number of seconds, got {timeout}; leave it out for no limit"
        )
    try:
        iterator = iter(items)
    except TypeError as error:
        raise InputError(f"expected a list or another source of {what}es, got {type(items).__name__}") from error
    reader = None if timeout is None else Reader(iterator)

    def ask() -> Any:
        if reader is None:
            return next(iterator, END)
        reader.ask()
        return reader.answer(timeout)

    number = 0
    try:
        while (item := _answer(ask, f"{what} {number}", timeout)) is not END:
            yield item
            number += 1
    finally:
        if reader is not None:
            reader.end()


def _answer(ask: Callable[[], Any], which: str, timeout: float | None) -> Any:
    try:
        return ask()
    except InputError:
        raise
    except Empty as error:
        raise InputError(
            f"{which}: expected it within {timeout:g} seconds, got nothing; see why its source stalls, or allow "
            "more"
        ) from error
    except Exception as error:
        raise InputError(
            f"{which}: its source raised {one_line(error)}; mend the source and run the same again"
        ) from error


def one_line(error: BaseException) -> str:
    """The class of an exception and the first line of what it says, cut: it may quote a whole damaged file."""
    said = str(error).strip().splitlines()
    return printable(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__, 300)
