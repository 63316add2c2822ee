"""Processes of this machine."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from autopsae.cluster.engine import DEATHS, Task, Work, attempt, too_many_deaths


class Local:
    """So many processes at once, which share the cores."""

    def __init__(self, processes: int) -> None:
        self._processes = processes

    def run(self, work: Work, tasks: Sequence[Task]) -> Iterator[tuple[int, str | None]]:
        """As `Engine.run`."""
        waiting, deaths = set(range(len(tasks))), 0
        threads = max(1, (os.cpu_count() or 1) // self._processes)
        while waiting:
            pool = ProcessPoolExecutor(
                max_workers=min(self._processes, len(waiting)),
                # A fork would share locks that threads of this process hold.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=torch.set_num_threads,
                initargs=(threads,),
            )
            try:
                futures = {pool.submit(attempt, work, tasks[number]): number for number in sorted(waiting)}
                for future in as_completed(futures):
                    said = future.result()
                    waiting.remove(futures[future])
                    deaths = 0
                    yield futures[future], said
            except BrokenProcessPool as error:
                # One process that dies breaks the pool: all that had not ended is run again in a new one.
                deaths += 1
                if deaths >= DEATHS:
                    raise too_many_deaths("local") from error
            finally:
                pool.shutdown(cancel_futures=True)
