"""run_groups(engine, work, groups, out, ...): the groups of a sweep as jobs of an engine."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autopsae.cluster.engine import Engine, Task, Work
from autopsae.cluster.manifest import Job, run_jobs
from autopsae.progress import Progress
from autopsae.run.driver import Interrupted
from autopsae.run.many import folders_of

FOLDER = "jobs"
"""In the folder of a sweep: the manifest of its jobs, and what they are asked for."""


def run_groups(
    engine: Callable[[], Engine],
    work: Work,
    groups: Mapping[int, Sequence[str]],
    out: Path,
    *,
    task: Task,
    request: Mapping[str, Any],
    again: str,
    progress: Progress | None = None,
) -> None:
    """Train the groups of a sweep that are not done, {number: names}, each by work(number=, names=, **task), which
    calls `train_group` in `out`. A group is done where each of its SAEs has a summary.

    again: how the user goes on after an interruption. engine, request, progress: as for `run_jobs`.

    Raises InputError as `run_jobs`, and Interrupted.
    """
    folder, jobs = out / FOLDER, dict[str, Job]()
    for number, names in groups.items():
        results = tuple(member / "summary.json" for member in folders_of(out, names).values())
        jobs[str(number)] = Job(task={**task, "number": number, "names": [*names]}, results=results)
    try:
        run_jobs(engine, work, jobs, folder, request=request, progress=progress)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted; what is done is in {out}; {again} to go on from the checkpoints there"
        ) from error
