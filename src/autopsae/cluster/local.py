"""Processes of this machine."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from threading import Thread

import torch

from autopsae.cluster.engine import DEATHS, Ended, Task, Work, attempt, too_many_deaths

# A fork would share locks that threads of this process hold.
_CONTEXT = multiprocessing.get_context("spawn")


class Local:
    """So many processes at once, which share the cores."""

    def __init__(self, processes: int) -> None:
        self._processes = processes

    def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
        """As `Engine.run`. No process outlives this one: where it dies, they end as if they were told to."""
        waiting, deaths = [*range(len(tasks))][::-1], 0
        going = dict[Future[str | None], tuple[int, ProcessPoolExecutor]]()
        # Pools of one process each: where that dies, the others go on.
        idle, pools = list[ProcessPoolExecutor](), list[ProcessPoolExecutor]()
        told, telling = _CONTEXT.Pipe(duplex=False)
        with told, telling:
            try:
                while waiting or going:
                    while waiting and len(going) < self._processes:
                        if not idle:
                            idle.append(self._open_pool(told))
                            pools.append(idle[-1])
                        number, pool = waiting.pop(), idle.pop()
                        with _block_signals():
                            going[pool.submit(attempt, work, tasks[number])] = number, pool
                    for ended in wait(going, return_when=FIRST_COMPLETED).done:
                        number, pool = going.pop(ended)
                        try:
                            said = ended.result()
                        except BrokenProcessPool as error:
                            deaths += 1
                            if deaths >= DEATHS:
                                raise too_many_deaths("local") from error
                            waiting.append(number)
                            continue
                        idle.append(pool)
                        deaths = 0
                        yield number, said
            except BaseException:
                telling.close()
                raise
            finally:
                for pool in pools:
                    pool.shutdown()

    def _open_pool(self, told: "Connection[None, None]") -> ProcessPoolExecutor:
        threads = max(1, (os.cpu_count() or 1) // self._processes)
        return ProcessPoolExecutor(1, mp_context=_CONTEXT, initializer=_begin, initargs=(threads, told))


@contextmanager
def _block_signals() -> Iterator[None]:
    """Processes that are started in this context never hear of Ctrl-C, nor of a terminal that is closed. The
    terminal tells all processes; this one tells its own, once it has handled the signal.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(threads: int, told: "Connection[None, None]") -> None:
    """The start of a process. told: a pipe on which nothing comes; it ends where the process shall end."""
    torch.set_num_threads(threads)
    Thread(target=_end_when_told, args=(told,), daemon=True).start()


def _end_when_told(told: "Connection[None, None]") -> None:
    with suppress(EOFError, OSError):
        told.recv()
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)  # the first one may have ended the task alone
