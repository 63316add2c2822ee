"""Threads: items that are read ahead, waited for in time, or worked on side by side."""

import atexit
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")
END: Any = object()
"""What a reader answers after the last item."""


class Reader:
    """Reads one item of an iterator, in a thread, each time it is asked; it does not run ahead.

    So an iterator that fills its memory anew for each item spoils no item that is in use.
    """

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._questions: SimpleQueue[bool] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        # A source that stalls cannot be stopped from outside: its thread ends with the process.
        self._thread: Thread | None = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Let it read the next item."""
        self._questions.put(True)

    def answer(self, timeout: float | None = None) -> Any:
        """The item that was asked for, or END. Raises what the iterator raised, and queue.Empty where the answer
        takes more than `timeout` seconds.
        """
        item, error = self._answers.get(timeout=timeout)
        if error is not None:
            raise error
        return item

    def end(self) -> None:
        """Let the thread end, after the item that it is reading."""
        self._questions.put(False)

    def stop(self) -> bool:
        """Let the thread end, wait for that, and close the iterator. False where it had been stopped before."""
        if self._thread is None:
            return False
        thread, self._thread = self._thread, None
        self.end()
        # Garbage may be collected in any thread, so also in this one, which cannot wait for itself.
        if thread is not current_thread():
            thread.join()
            if isinstance(self._items, Generator):
                self._items.close()
        return True

    def _serve(self) -> None:
        while self._questions.get():
            try:
                self._answers.put((next(self._items, END), None))
            except BaseException as error:
                self._answers.put((None, error))


def read_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The items in their order; the next one is read in a thread while this one is used.

    Only for sources that give each item memory of its own. At most one item waits to be used. An exception of the
    source is raised once, in the place of its item. However the iteration ends, its thread has ended with it, once
    the item that is being read has been read.
    """
    reader = Reader(iter(items))
    # A thread that still runs while the interpreter is taken down could crash it.
    atexit.register(reader.stop)
    reader.ask()
    try:
        while (item := reader.answer()) is not END:
            reader.ask()
            yield item
    finally:
        if reader.stop():
            atexit.unregister(reader.stop)


def answer_within(seconds: float, act: Callable[[], Made]) -> Made:
    """What `act` returns, which runs in a thread of its own. Raises what it raises, and queue.Empty where it takes
    longer: it cannot be stopped from outside, and its thread ends with the process.
    """
    answers: SimpleQueue[tuple[Made | None, BaseException | None]] = SimpleQueue()

    def serve() -> None:
        try:
            answers.put((act(), None))
        except BaseException as error:
            answers.put((None, error))

    Thread(target=serve, daemon=True).start()
    made, error = answers.get(timeout=seconds)
    if error is not None:
        raise error
    return made  # type: ignore[return-value]


def side_by_side(make: Callable[[Item], Made], items: Iterable[Item], workers: int) -> Generator[Made, None, None]:
    """make(item) for each item, in their order, for `workers` items at once, each with its share of the threads
    that PyTorch uses.

    For work of many operations that are too small for all threads, and that share no state. An item is taken when
    a worker is free for it, and let go when its result is taken. An exception of `make` is raised in the place of
    its item. Where the iteration ends early, work that has begun is waited for.
    """
    if workers == 1:
        yield from map(make, items)
        return
    threads = torch.get_num_threads()
    share = max(1, threads // workers)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
    going: deque[Future[Made]] = deque()
    try:
        for item in items:
            going.append(pool.submit(make, item))
            del item
            if len(going) == workers:
                yield going.popleft().result()
        while going:
            yield going.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # that of its mathematical library is one for all threads
