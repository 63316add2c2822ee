"""What a run or a sweep tells whoever watches it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopsae.progress import Progress
from autopsae.training.config import Record
from autopsae.training.logs import Logger


def _no_loggers(folder: Path, after: int) -> list[Logger]:
    return []


def _nobody(told: object) -> None:
    pass


def without_delay() -> AbstractContextManager[Callable[[], bool]]:
    """Steps in which no interruption is expected to wait: KeyboardInterrupt is raised where it comes."""
    return nullcontext(lambda: False)


@dataclass(frozen=True, kw_only=True)
class Observer:
    """Whoever watches a run or a sweep. Each part is a function; without one nothing is told."""

    loggers: Callable[[Path, int], list[Logger]] = _no_loggers
    """Asked for more loggers of a member, given its folder and the number of steps already done."""
    at_birth: Callable[[dict[str, dict[str, Any]]], None] = _nobody
    """Told what held-out tokens say of the SAEs that are trained at once, before their first step (as
    `numbers_of`), by the members' names."""
    on_records: Callable[[dict[str, Record]], None] = _nobody
    """Told the records of a step, by the members' names, once they are logged."""
    progress: Progress | None = None
    """Told ("training", steps done, all steps) after the records of a step. In a sweep in several parts, the steps
    of each part begin at 0."""
    delay: Callable[[], AbstractContextManager[Callable[[], bool]]] = without_delay
    """Makes a context in which steps are taken and interruptions wait. What it yields says whether one waits; then
    a checkpoint is written after the step, and Interrupted is raised."""
