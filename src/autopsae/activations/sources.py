"""Somebody else's iterator: at which item it failed, and a limit on the wait for the next one."""

from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from autopsae.arrays import InputError

Item = TypeVar("Item")
_END: Any = object()


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
    ask = _InThread(iterator, timeout) if timeout is not None else lambda: next(iterator, _END)
    number = 0
    try:
        while (item := _answer(ask, f"{what} {number}", timeout)) is not _END:
            yield item
            number += 1
    finally:
        if isinstance(ask, _InThread):
            ask.end()


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


class _InThread:
    """The next item of an iterator, asked for in a thread; Empty where it does not come in time."""

    def __init__(self, iterator: Iterator[Any], timeout: float) -> None:
        self._iterator, self._timeout = iterator, timeout
        self._questions: SimpleQueue[bool] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        Thread(target=self._serve, daemon=True).start()

    def __call__(self) -> Any:
        self._questions.put(True)
        item, error = self._answers.get(timeout=self._timeout)
        if error is not None:
            raise error
        return item

    def end(self) -> None:
        self._questions.put(False)

    def _serve(self) -> None:
        while self._questions.get():
            try:
                self._answers.put((next(self._iterator, _END), None))
            except BaseException as error:
                self._answers.put((None, error))


def one_line(error: BaseException) -> str:
    """The class of an exception and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
