"""Slurm, through submitit; with cluster=local its own processes on this machine, for a try."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.cluster.engine import DEATHS, Ended, Task, Work, attempt, too_many_deaths
from autopsae.extras import package_error
from autopsae.words import reason

JOBS = 32
"""Jobs that are submitted at once, unless told otherwise."""
_POLL = 0.2
"""Seconds between two looks at the jobs."""
_PATIENCE = 30.0
"""Seconds for which jobs that are cancelled are waited for: Slurm gives them as many to end."""


class Slurm:
    """A job for each task. options: of submitit (timeout_min, mem_gb, slurm_partition, ...); `cluster`, slurm or
    local; and `jobs`, how many are submitted at once.
    """

    def __init__(self, folder: Path, options: Mapping[str, str | int]) -> None:
        """folder: for submitit's files; all machines must see it. Raises InputError for unknown options."""
        try:
            import submitit
        except ImportError as error:
            raise package_error("--on slurm", "submitit", error, install="autopsae[slurm]") from error
        told = dict(options)
        self._jobs, cluster = int(told.pop("jobs", JOBS)), told.pop("cluster", "slurm")
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=str(cluster))
            self._executor.update_parameters(**told)
        except (RuntimeError, ValueError, TypeError, NameError, AssertionError) as error:
            raise InputError(f"--on slurm: expected a cluster and options of submitit ({reason(error)})") from error

    def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
        """As `Engine.run`."""
        import submitit

        waiting, going, deaths = list(range(len(tasks)))[::-1], dict[int, Any](), 0
        try:
            while waiting or going:
                while waiting and len(going) < self._jobs:
                    number = waiting.pop()
                    going[number] = self._executor.submit(attempt, work, tasks[number])
                ended = [number for number, job in going.items() if job.done()]
                for number in ended:
                    try:
                        said = going.pop(number).result()
                    except submitit.core.utils.UncompletedJobError as error:
                        # Its process died, or its node; a task that raised is another error, which stays one.
                        deaths += 1
                        if deaths >= DEATHS:
                            raise too_many_deaths("slurm") from error
                        waiting.append(number)
                        continue
                    deaths = 0
                    yield number, said
                if not ended:
                    time.sleep(_POLL)
        finally:
            for job in going.values():
                job.cancel()
            until = time.monotonic() + _PATIENCE
            while not all(job.done() for job in going.values()) and time.monotonic() < until:
                time.sleep(_POLL)
