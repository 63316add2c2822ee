"""Laws of somebody else's iterator: its items in order, its failures by item, no wait beyond what was asked."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from autopsae.activations.sources import one_line, watch
from autopsae.arrays import InputError


def failing(error: BaseException) -> Iterator[int]:
    yield 1
    raise error


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_the_items_come_in_order_also_from_a_thread(timeout: float | None) -> None:
    assert list(watch(range(5), "batch", timeout)) == [0, 1, 2, 3, 4]
    assert list(watch([], "batch", timeout)) == []
    assert list(watch([None, 1], "batch", timeout)) == [None, 1]


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_an_exception_of_the_source_names_the_item(timeout: float | None) -> None:
    message = r"^batch 1: its source raised OSError: gone; mend the source and run the same again$"
    with pytest.raises(InputError, match=message):
        list(watch(failing(OSError("gone\nand more")), "batch", timeout))
    with pytest.raises(InputError, match=r"^mine$"):
        list(watch(failing(InputError("mine")), "batch", timeout))


@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_it(timeout: float | None, error: type[BaseException]) -> None:
    with pytest.raises(error):
        list(watch(failing(error()), "batch", timeout))


def test_what_cannot_be_iterated_is_refused() -> None:
    class Closed:
        def __iter__(self) -> Iterator[int]:
            raise TypeError

    with pytest.raises(InputError, match="expected a list or another source of batches, got Closed"):
        list(watch(Closed(), "batch"))
    with pytest.raises(InputError, match=r"timeout: expected a positive number of seconds, got 0.0; leave it out"):
        list(watch([1], "batch", 0.0))


def test_a_source_that_stalls_ends_with_one_line_where_a_limit_is_asked_for() -> None:
    go = threading.Event()

    def stalling() -> Iterator[int]:
        yield 1
        go.wait()

    started = time.monotonic()
    with pytest.raises(
        InputError, match=r"^batch 1: expected it within 0.05 seconds, got nothing; see why its source"
    ):
        list(watch(stalling(), "batch", 0.05))
    assert time.monotonic() - started < 5
    go.set()


def test_a_thread_does_not_run_ahead_of_who_asks_and_ends_with_them() -> None:
    """A source that fills its memory anew would spoil the item in use."""
    memory = torch.zeros(3)

    def refilling() -> Iterator[torch.Tensor]:
        for number in range(4):
            yield memory.fill_(number)

    others, seen = threading.enumerate(), list[Any]()
    for item in watch(refilling(), "batch", 10.0):
        time.sleep(0.01)
        seen.append(item.tolist())
    assert seen == [[float(number)] * 3 for number in range(4)]
    for _ in watch(refilling(), "batch", 10.0):
        break
    time.sleep(0.05)
    assert not {*threading.enumerate()} - {*others}


def test_what_an_exception_says_is_cut() -> None:
    assert one_line(KeyError("a\nb")) == r"KeyError: 'a\nb'"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(ValueError("n" * 5000)) == "ValueError: " + "n" * 285 + "..."
