"""Ray: a cluster that runs already, by its address, or one of this machine that is started for the work."""

import signal
from collections.abc import Sequence
from threading import current_thread, main_thread
from typing import Any

from autopsae.arrays import InputError
from autopsae.cluster.engine import DEATHS, Ended, Task, Work, attempt, too_many_deaths
from autopsae.extras import package_error
from autopsae.words import reason

_PATIENCE = 60.0
"""Seconds in which a task that is told to end may save a checkpoint."""


class Ray:
    """A core for each task. address: of the cluster; None for RAY_ADDRESS, or else one of this machine's cores."""

    def __init__(self, address: str | None = None) -> None:
        """Raises InputError where the cluster cannot be reached."""
        try:
            import ray
        except ImportError as error:
            raise package_error("--on ray", "ray", error, install="autopsae[ray]") from error
        self._ray: Any = ray
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            before = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
            except Exception as error:  # Ray raises Exception itself where a node does not start in time
                raise InputError(
                    f"--on ray: expected a cluster at {address or 'this machine'} ({reason(error)}); start it with "
                    "`ray start --head`"
                ) from error
            finally:
                # Ray would end this process on SIGTERM, with another exit code and before jobs are told.
                if current_thread() is main_thread():
                    signal.signal(signal.SIGTERM, before)

    def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
        """As `Engine.run`. Ray itself runs a task again whose process or node dies."""
        ray, died = self._ray, self._ray.exceptions
        remote = ray.remote(num_cpus=1, max_retries=DEATHS)(attempt)
        going, deaths = {remote.remote(work, dict(task)): number for number, task in enumerate(tasks)}, 0
        try:
            while going:
                [ended], _ = ray.wait([*going], num_returns=1)
                number = going.pop(ended)
                try:
                    said = ray.get(ended)
                except (died.WorkerCrashedError, died.NodeDiedError, died.OutOfMemoryError) as error:
                    raise too_many_deaths("ray") from error
                except died.TaskCancelledError as error:
                    # Of a process that was told to end, as one of a node that is taken away may be.
                    deaths += 1
                    if deaths >= DEATHS:
                        raise too_many_deaths("ray") from error
                    going[remote.remote(work, dict(tasks[number]))] = number
                    continue
                deaths = 0
                yield number, said
        finally:
            self._cancel([*going])
            if self._is_ours:
                ray.shutdown()

    def _cancel(self, going: Sequence[Any]) -> None:
        """Tell tasks to end, and kill those that do not."""
        for force in (False, True):
            for task in going:
                self._ray.cancel(task, force=force)
            if going:
                _, going = self._ray.wait([*going], num_returns=len(going), timeout=_PATIENCE)
