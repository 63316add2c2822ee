"""`drive` trains a group of entries together. Each entry gets a folder; the group has one checkpoint."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError, Tokens
from autopsae.disk import DiskFull
from autopsae.run.finished import is_present
from autopsae.run.folder import Entry, Folder, Plan
from autopsae.run.observer import Observer
from autopsae.training.config import Record
from autopsae.training.loop import Training
from autopsae.training.one import Diverged
from autopsae.words import list_names as several


class Interrupted(KeyboardInterrupt):
    """Training was interrupted. The message says after which step, and names the checkpoint that was saved."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Entries that are trained together, and the paths that they write to."""

    entries: Sequence[Entry]
    """An SAE each, with its settings, its data and its name."""
    folders: Sequence[Path]
    """The folder of each entry."""
    checkpoint: Path
    """The path of the checkpoint of the whole group."""
    goes_on: bool
    """What happens when the loss of a member is not finite. True (a sweep): its summary says so, and the others go
    on. False: Diverged is raised, no summary is written, and the last checkpoint stays."""


def drive(
    group: Group,
    training: Tokens,
    held_out: Tokens,
    *,
    plan: Plan,
    observer: Observer,
    done: Mapping[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Train the entries of a group to the last step, and write their folders. If the group's checkpoint exists,
    training goes on from it. Returns {name of an entry: its summary}.

    done: the summaries of members that had ended before an interrupted run was resumed; they are not changed.

    Raises InputError if the checkpoint is from other settings or data; InputError, Diverged and DiskFull, with a
    message that names the last checkpoint; and Interrupted.
    """
    try:
        return _Drive(group, training, held_out, plan, observer, dict(done)).to_the_end()
    except DiskFull as error:
        raise DiskFull(f"{error}{checkpoint_left(group.checkpoint, 'last good')}") from error


class _Drive:
    """The state of a group in training. m is the index of a member in the group."""

    def __init__(
        self,
        group: Group,
        tokens: Tokens,
        held_out: Tokens,
        plan: Plan,
        observer: Observer,
        summaries: dict[str, dict[str, Any]],
    ) -> None:
        self._group, self._plan, self._observer, self._summaries = group, plan, observer, summaries
        self._names = [entry.name for entry in group.entries]
        self._training = Training([entry.member for entry in group.entries], tokens)
        pairs = zip(group.folders, group.entries, strict=True)
        self._folders = [Folder(out, entry, tokens, held_out) for out, entry in pairs]

    def to_the_end(self) -> dict[str, dict[str, Any]]:
        """Run from birth (or from the checkpoint) to the last step, and return the summaries by name."""
        checkpoint, training = self._group.checkpoint, self._training
        with ExitStack() as stack:
            for folder in self._folders:
                stack.enter_context(folder)
            self._begin(resumed=is_present(checkpoint))
            between_steps = stack.enter_context(_save_if_interrupted(training, checkpoint))
            with say_where(training, checkpoint), self._observer.delay() as interrupted:
                self._take_steps(interrupted)
                between_steps(True)
            for m in range(len(self._folders)):
                self._finish(m)
        return self._summaries

    def _begin(self, *, resumed: bool) -> None:
        """Do everything that comes before the first step, or before the next step of a resumed run."""
        checkpoint, training = self._group.checkpoint, self._training
        for folder in self._folders:
            folder.be_born(resumed=resumed)
        births = [folder.birth for folder in self._folders]
        self._observer.at_birth(dict(zip(self._names, births, strict=True)))
        if resumed:
            training.load(checkpoint)
        ended = {*training.diverged, *training.stopped}
        _check_ended(checkpoint, [self._names[m] for m in ended], self._summaries)
        for m, folder in enumerate(self._folders):
            # A member that had ended before the checkpoint has no more records. So its log is not opened again.
            if m not in ended:
                folder.log(self._plan, self._observer.loggers(folder.out, training.step), after=training.step)

    def _take_steps(self, interrupted: Callable[[], bool]) -> None:
        """Take steps until the last one, or until an interruption."""
        training = self._training
        # The loop runs once per step, not once per record, because an interruption cannot wait for the next record.
        for step_records in training.each_step():
            records = step_records or {}
            # Records are written and measured before the checkpoint is saved. If the process is killed in between,
            # the resumed run goes back to the checkpoint and writes them again; none is missing.
            reached = [m for m, record in records.items() if self._folders[m].take(record)]
            if records:
                self._tell(records)
            if training.diverged and not self._group.goes_on:
                raise Diverged(*training.diverged.values())
            # Members that end get their summaries before the next checkpoint, which no longer has them: only a
            # summary says how many steps a member took.
            for m in [*reached, *training.diverged]:
                self._finish(m)
            training.stop(reached)
            if interrupted():
                break
            if self._plan.saves(training.step):
                training.save(self._group.checkpoint)

    def _tell(self, records: Mapping[int, Record]) -> None:
        """Tell the observer the records of a step, and how many steps are done."""
        observer, training = self._observer, self._training
        observer.on_records({self._names[m]: record for m, record in records.items()})
        if observer.progress:
            observer.progress("training", training.step, training.config.steps)

    def _finish(self, m: int) -> None:
        """Write the summary of a member, unless it is already written."""
        name, training = self._names[m], self._training
        if name in self._summaries:
            return
        steps = training.steps_of(m)
        assert steps is not None  # _check_ended
        self._summaries[name] = self._folders[m].finish(
            steps, diverged=training.diverged.get(m), last_resampling=training.last_resampling(m)
        )


@contextmanager
def _save_if_interrupted(training: Training, checkpoint: Path) -> Iterator[Callable[[bool], None]]:
    """On KeyboardInterrupt between two steps, write a checkpoint and raise Interrupted.

    Yields a function to be called with True when no step is running. Within a step, some weights may be updated and
    others not, so no checkpoint can be written then.
    """
    between = False

    def tell(value: bool) -> None:
        nonlocal between
        between = value

    try:
        yield tell
    except KeyboardInterrupt as error:
        if not between:
            raise
        training.save(checkpoint)
        raise Interrupted(
            f"interrupted after {training.step:,} of {training.config.steps:,} steps; the checkpoint is "
            f"{checkpoint}; resume (run the same with --resume) to go on from it"
        ) from error


@contextmanager
def say_where(training: Training, checkpoint: Path) -> Iterator[None]:
    """Add to each error of training the step at which it came, and the checkpoint from which to resume."""
    try:
        yield
    except (Diverged, InputError) as error:
        where = "" if isinstance(error, Diverged) else f"step {training.step}: "
        raise type(error)(f"{where}{error}{checkpoint_left(checkpoint, 'last good')}") from error


def checkpoint_left(checkpoint: Path, which: str) -> str:
    """The end of an error message: the checkpoint to resume from, or "" if there is none."""
    if not checkpoint.exists():
        return ""
    return f"; the {which} checkpoint is {checkpoint}, from which the run can be resumed"


def _check_ended(checkpoint: Path, names: Sequence[str], summaries: Collection[str]) -> None:
    """Raises InputError if a member that had ended before the checkpoint has no summary. names: those members."""
    if lost := [name for name in names if name not in summaries]:
        raise InputError(
            f"{checkpoint}: expected the summary.json of members that had ended before it was written, but "
            f"{several(lost)} has none; put it back, or remove this checkpoint to train its SAEs from the start"
        )
