"""manifest.json of a folder of work: what was asked, and which jobs are done. So work goes on where it stopped."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.cluster.engine import Engine, Task, Work
from autopsae.disk import LOCK, hold_lock
from autopsae.files import changes
from autopsae.kinds import anything, fields, flag, mapping_of
from autopsae.progress import Progress
from autopsae.saved import as_json, load_object, save_object
from autopsae.words import list_names

FORMAT = "autopsae-manifest"
MANIFEST = "manifest.json"
_KIND = fields({"request": mapping_of(anything), "done": mapping_of(flag)})


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task, and what says that it is done."""

    task: Task
    """The arguments of the work."""
    results: tuple[Path, ...]
    """The files that are there once the task is done."""


def run_jobs(
    engine: Callable[[], Engine],
    work: Work,
    jobs: Mapping[str, Job],
    folder: Path,
    *,
    request: Mapping[str, Any],
    look: Callable[[Job], None] | None = None,
    ended: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Run all jobs that are not done, and keep in `folder`/manifest.json which are.

    engine: opened only where something is left to do; request: what is asked for, which must be what the folder
    was begun with; look: told each job once that is known, before it is asked which are done: it may remove results
    that are of no use any more; ended: told the name of each job as it ends, first of those that are done;
    progress: told how many are done, as "jobs".

    Raises InputError where another process works in the folder, for another request, and, once all others are done,
    for jobs whose input cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / LOCK, what=folder):
        done = _begin(folder, request, jobs, look)
        failed = dict[str, str]()

        def tell(name: str) -> None:
            if ended:
                ended(name)
            if progress:
                progress("jobs", sum(done.values()), len(jobs))

        for name in [name for name, is_done in done.items() if is_done]:
            tell(name)
        left = [name for name, is_done in done.items() if not is_done]
        if left:
            with closing(engine().run(work, [jobs[name].task for name in left])) as running:
                for number, said in running:
                    name = left[number]
                    if said is not None:
                        failed[name] = said
                        continue
                    done[name] = True
                    _save(folder, request, done)
                    tell(name)
    if failed:
        first, *others = failed
        more = f" (and {len(others)} more: {list_names(others)})" if others else ""
        raise InputError(f"{failed[first]}{more}; what is done is in {folder}")


def _begin(
    folder: Path, request: Mapping[str, Any], jobs: Mapping[str, Job], look: Callable[[Job], None] | None
) -> dict[str, bool]:
    """Which jobs are done: their results are there, and those in `folder` under a manifest of the same request."""
    path = folder / MANIFEST
    if path.is_file():
        there = load_object(path, format=FORMAT, kind=_KIND)["request"]
        if changed := changes(there, as_json(request)):
            raise InputError(
                f"{folder}: expected work with the settings that it was begun with: {changed}; pass another folder"
            )
    elif any(path.exists() for job in jobs.values() for path in job.results if path.is_relative_to(folder)):
        raise InputError(f"{folder}: expected a new folder, or one with its {MANIFEST}; pass another folder")
    if look:
        for job in jobs.values():
            look(job)
    done = {name: all(path.is_file() for path in job.results) for name, job in jobs.items()}
    _save(folder, request, done)
    return done


def _save(folder: Path, request: Mapping[str, Any], done: Mapping[str, bool]) -> None:
    save_object(folder / MANIFEST, format=FORMAT, content={"request": request, "done": dict(done)})
