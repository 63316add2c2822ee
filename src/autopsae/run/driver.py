"""The one way from activations to folders: entries trained at once, each into its folder, with one checkpoint."""

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
from autopsae.training.loop import Diverged, Training
from autopsae.words import list_names as several


class Interrupted(KeyboardInterrupt):
    """Training was interrupted. The message says after which step, and names the checkpoint that was written."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Entries that are trained at once, and where they write."""

    entries: Sequence[Entry]
    folders: Sequence[Path]
    """The folder of each entry."""
    checkpoint: Path
    """The checkpoint of all."""
    goes_on: bool
    """What becomes of a member whose loss is not finite. True: its summary says so, and the others go on, as in a
    sweep. False: Diverged is raised, no summary is written, and the last checkpoint stays."""


def drive(
    group: Group,
    training: Tokens,
    held_out: Tokens,
    *,
    plan: Plan,
    observer: Observer,
    done: Mapping[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Train the entries of a group to their end, or from its checkpoint on, and write their folders. Returns the
    summary of each by its name. done: summaries of members that ended before a break, which stay as they are.

    Raises InputError where what is resumed began otherwise; InputError, Diverged and DiskFull with the checkpoint
    that is left; and Interrupted.
    """
    try:
        return _Drive(group, training, held_out, plan, observer, dict(done)).to_the_end()
    except DiskFull as error:
        raise DiskFull(f"{error}{checkpoint_left(group.checkpoint, 'last good')}") from error


class _Drive:
    """A group on its way. Members are called by their place in it."""

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
        """All of it; the summaries by name."""
        checkpoint, training = self._group.checkpoint, self._training
        with ExitStack() as stack:
            for folder in self._folders:
                stack.enter_context(folder)
            self._begin(resumed=is_present(checkpoint))
            between_steps = stack.enter_context(_save_if_interrupted(training, checkpoint))
            with _say_where(training, checkpoint), self._observer.delay() as interrupted:
                self._take_steps(interrupted)
                between_steps(True)
            for m in range(len(self._folders)):
                self._finish(m)
        return self._summaries

    def _begin(self, *, resumed: bool) -> None:
        """Everything before the first step, or before the next one where a checkpoint is there."""
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
            # One that had ended when the checkpoint was written has no records after that, and gets none.
            if m not in ended:
                folder.log(self._plan, self._observer.loggers(folder.out, training.step), after=training.step)

    def _take_steps(self, interrupted: Callable[[], bool]) -> None:
        """Until the last one, or an interruption."""
        training = self._training
        # After every step, as an interruption cannot wait for the next records.
        for step_records in training.each_step():
            records = step_records or {}
            # Measured before it is saved: what a kill leaves out is then done again.
            reached = [m for m, record in records.items() if self._folders[m].take(record)]
            if records:
                self._observer.progress({self._names[m]: record for m, record in records.items()})
            if training.diverged and not self._group.goes_on:
                raise Diverged(*training.diverged.values())
            # Before a checkpoint goes on without them: only their summaries tell how many steps they took.
            for m in [*reached, *training.diverged]:
                self._finish(m)
            training.stop(reached)
            if interrupted():
                break
            if self._plan.saves(training.step):
                training.save(self._group.checkpoint)

    def _finish(self, m: int) -> None:
        """Write what became of a member, unless that is done: of one that ended before a break it stays."""
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
    """Where KeyboardInterrupt comes between two steps, write a checkpoint and raise Interrupted. What is yielded is
    told when no step is under way: within a step there is no state from which training could go on.
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
def _say_where(training: Training, checkpoint: Path) -> Iterator[None]:
    """Errors of training say at which step they came, and which checkpoint is left."""
    try:
        yield
    except (Diverged, InputError) as error:
        where = "" if isinstance(error, Diverged) else f"step {training.step}: "
        raise type(error)(f"{where}{error}{checkpoint_left(checkpoint, 'last good')}") from error


def checkpoint_left(checkpoint: Path, which: str) -> str:
    """The end of a message, where there is a checkpoint."""
    if not checkpoint.exists():
        return ""
    return f"; the {which} checkpoint is {checkpoint}, from which the run can be resumed"


def _check_ended(checkpoint: Path, names: Sequence[str], summaries: Collection[str]) -> None:
    """InputError where members that a checkpoint goes on without have no summary."""
    if lost := [name for name in names if name not in summaries]:
        raise InputError(
            f"{checkpoint}: expected the summary.json of members that had ended before it was written, but "
            f"{several(lost)} has none; put it back, or remove this checkpoint to train its SAEs from the start"
        )
