"""What an engine is: something that runs tasks in other processes, and runs one again whose process dies.

A task is a function and a mapping of plain arguments; its result is a file, written whole or not at all. So a task
may be run twice, and nothing is lost or counted twice when a process dies.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from autopsae.arrays import InputError
from autopsae.words import show

Task = Mapping[str, Any]
"""Arguments, of types that JSON has."""
Work = Callable[..., None]
"""A function of a module, called as work(**task)."""

Ended = Generator[tuple[int, str | None], None, None]
"""For each task that ends: its number, and why its input cannot be used, or None."""

DEATHS = 10
"""Processes that may die one after the other, without a task that ends between them."""


@runtime_checkable
class Engine(Protocol):
    """Runs tasks somewhere."""

    def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
        """Run all tasks, and yield (its number, why its input cannot be used, or None) as each ends. Where the
        generator is closed before, or an exception is raised in it, the processes are told to end: SIGTERM or
        SIGINT, so that a training saves a checkpoint (`cli.interrupts.job_signals`).

        Raises InputError where the engine cannot be reached, and where processes die again and again; any other
        exception of a task as it is, or as the engine tells it.
        """
        ...


def attempt(work: Work, task: Task) -> str | None:
    """Run a task, in a process of the engine. Returns why its input cannot be used: between processes a message
    travels better than an exception.
    """
    try:
        work(**task)
    except InputError as error:
        return str(error)
    return None


def too_many_deaths(engine: str) -> InputError:
    """The error where processes die again and again."""
    return InputError(
        f"{engine}: expected processes that end, but {DEATHS} of them died one after the other; is there enough "
        "memory for as many at once? what is done is kept: run the same again, it goes on"
    )


def open_engine(on: str, folder: Path) -> Engine:
    """The engine that `--on` names: local:N, slurm[:OPTIONS] or ray[:ADDRESS]. folder: for the files of an engine.

    Raises InputError for any other name, and where its package is missing.
    """
    name, _, rest = on.partition(":")
    if name == "local":
        from autopsae.cluster.local import Local

        if not rest.isdecimal() or int(rest) < 1:
            raise InputError(f"--on {on}: expected local:N for N processes at once, such as local:4")
        return Local(int(rest))
    if name == "slurm":
        from autopsae.cluster.slurm import Slurm

        return Slurm(folder / "jobs", read_options(rest))
    if name == "ray":
        from autopsae.cluster.ray import Ray

        return Ray(rest or None)
    raise InputError(f"--on: expected local:N, slurm[:OPTIONS] or ray[:ADDRESS], got {show(on, 60)}")


def read_options(words: str) -> dict[str, str | int]:
    """Options as NAME=VALUE joined by commas; whole numbers are numbers."""
    options = dict[str, str | int]()
    for word in filter(None, words.split(",")):
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InputError(f"--on slurm: expected NAME=VALUE joined by commas, got {show(word, 60)}")
        options[name] = int(value) if value.lstrip("-").isdecimal() else value
    return options
