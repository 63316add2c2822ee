"""Laws of reading ahead and of work side by side: the same items in the same order, errors once and in their place,
no thread left.
"""

import gc
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from autopsae.threads import END, Reader, read_ahead, side_by_side

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = {*threading.enumerate()}
    yield
    assert not {*threading.enumerate()} - before


def failing(error: BaseException) -> Iterator[int]:
    yield 1
    yield 2
    raise error


@pytest.mark.parametrize("items", [[], [None], [1, 2, 3], range(100)])
def test_the_items_come_in_their_order(items: list[int]) -> None:
    assert list(read_ahead(items)) == list(items)


def test_one_item_is_read_while_the_one_before_it_is_used_and_no_more() -> None:
    read, used = list[int](), threading.Event()

    def source() -> Iterator[int]:
        for number in range(5):
            read.append(number)
            if number == 1:
                used.set()
            yield number

    items = read_ahead(source())
    assert next(items) == 0
    assert used.wait(5)  # the second is read although nobody asked for it
    time.sleep(0.02)
    assert read == [0, 1]
    items.close()


@pytest.mark.parametrize("error", [ValueError("gone"), KeyboardInterrupt(), SystemExit(3), StopAsyncIteration()])
def test_an_error_or_an_interruption_in_the_thread_is_raised_once_in_the_place_of_its_item(
    error: BaseException,
) -> None:
    items = read_ahead(failing(error))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(type(error)) as raised:
        next(items)
    assert raised.value is error
    assert list(items) == []


def test_an_interruption_of_who_waits_ends_the_thread() -> None:
    items = read_ahead(range(10))
    assert next(items) == 0
    with pytest.raises(KeyboardInterrupt):
        items.throw(KeyboardInterrupt())


def test_who_goes_away_ends_the_thread_and_closes_the_source() -> None:
    closed = list[str]()

    def source() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.append(threading.current_thread().name)

    items = read_ahead(source())
    next(items)
    del items
    gc.collect()
    assert len(closed) == 1
    assert next(iter(read_ahead(read_ahead([7])))) == 7


def test_a_reader_can_be_stopped_from_its_own_thread_where_garbage_may_be_collected() -> None:
    readers = list[Reader]()

    def source() -> Iterator[bool]:
        yield readers[0].stop()

    readers.append(Reader(source()))
    readers[0].ask()
    assert readers[0].answer() is True
    assert not readers[0].stop()
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.001)


def test_after_the_last_item_a_reader_says_so_again() -> None:
    reader = Reader(iter([1]))
    for expected in (1, END, END):
        reader.ask()
        assert reader.answer() is expected
    assert reader.stop()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_work_side_by_side_gives_its_results_in_the_order_of_the_items(workers: int) -> None:
    def make(number: int) -> int:
        time.sleep(0.01 if number % 3 else 0)
        return number * number

    assert list(side_by_side(make, range(12), workers)) == [number * number for number in range(12)]
    assert list(side_by_side(make, [], workers)) == []


def test_so_many_items_as_workers_are_worked_on_at_once_and_no_more_are_taken() -> None:
    taken: list[int] = []
    both = threading.Barrier(2, timeout=60)

    def items() -> Iterator[int]:
        for number in range(6):
            taken.append(number)
            yield number

    def make(number: int) -> int:
        both.wait()
        return number

    made = side_by_side(make, items(), 2)
    for number in range(6):
        assert next(made) == number
        assert len(taken) <= number + 2


def test_each_worker_has_its_share_of_the_threads_and_they_are_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        assert list(side_by_side(lambda _: torch.get_num_threads(), range(4), 2)) == [2] * 4
        assert torch.get_num_threads() == 5
        assert list(side_by_side(lambda _: torch.get_num_threads(), range(4), 1)) == [5] * 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_of_work_side_by_side_comes_in_the_place_of_its_item(workers: int) -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    made, got = side_by_side(make, range(6), workers), list[int]()
    with pytest.raises(ValueError, match="two"):
        got.extend(made)
    assert got == [0, 1]
