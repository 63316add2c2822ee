"""What the verbs share: progress bars on standard error, and checks that are due before the work, not after."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text
from rich.theme import Theme

from autopsae.arrays import InputError, check_device
from autopsae.progress import Progress
from autopsae.urls import check_target, url_of
from autopsae.words import printable


def take_device(device: str | None) -> str | None:
    """The device as given, or InputError where nothing can be computed on it: known before the work, not after."""
    check_device(device, torch.float64)
    return device


def check_places(*files: Path | None, folder: Path | None = None) -> None:
    """InputError for an output that could not be written after all the work: a file, or files in a folder."""
    for path in (*files, folder):
        if path is None:
            continue
        if url := url_of(path):
            check_target(url)
            continue
        blocked = path.is_dir() if path is not folder else path.is_file()
        place = path.parent if path is not folder else path
        upwards = (place.absolute(), *place.absolute().parents)
        place = next((folder for folder in upwards if folder.exists()), place)  # a drive may not be there
        if blocked or not place.is_dir() or not os.access(place, os.W_OK):
            raise InputError(f"{path}: cannot be written there; name a file in a folder that can be written")


_THEME = Theme({"progress.elapsed": "none"})  # rich's yellow is not read on a white terminal
_BAR = 16  # columns of the bar: what is done shall stand in a line of 80


class _Description(ProgressColumn):
    """As it stands: a layer's name may hold what rich would take for markup, or worse. Then per cent, rate and time
    left.
    """

    def render(self, task: Task) -> Text:
        done = f", {task.percentage:.0f}%" if task.total else ""
        rate = f", {task.speed:,.0f} a second" if task.speed else ""
        left = f", {timedelta(seconds=round(task.time_remaining))} left" if task.time_remaining else ""
        return Text(printable(task.description) + done + rate + left, overflow="fold")


@contextmanager
def progress_bar(description: str, *, is_shown: bool = True) -> Iterator[tuple[Bar, TaskID]]:
    """A bar on standard error and its task, until the context ends; its total is told later. is_shown: False for a
    bar, and notes above it, that nobody sees.
    """
    columns = (BarColumn(bar_width=_BAR), TimeElapsedColumn(), _Description())
    with Bar(*columns, console=Console(stderr=True, quiet=not is_shown, theme=_THEME)) as bar:
        yield bar, bar.add_task(description, total=None)


def progress_on(bar: Bar, task: TaskID) -> Progress:
    """Progress that is shown on a bar: the stage, and how many tokens are done, or steps of a training."""

    def show(stage: str, done: int, total: int | None) -> None:
        of_what = {"training": "steps", "jobs": "done"}.get(stage, "tokens")
        bar.update(task, completed=done, total=total, description=f"{stage}: {done:,} {of_what}")

    return show
