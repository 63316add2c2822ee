"""One training run from activations to a folder: the SAE, its records, and what held-out tokens say."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from autopsae.arrays import InputError, Tokens
from autopsae.disk import LOCK, DiskFull, locked
from autopsae.passes import same_passes
from autopsae.run.finished import Settings, check_folder, finished, present
from autopsae.run.folder import Births, Delay, Entry, Folder, Loggers, Plan
from autopsae.training.config import Record
from autopsae.training.loop import Diverged, Training
from autopsae.training.sweep import Sweep

CHECKPOINT = "checkpoint.safetensors"


class Interrupted(KeyboardInterrupt):
    """Training was interrupted. The message says after which step, and names the checkpoint that was written."""


@contextmanager
def saved_if_interrupted(
    training: Training | Sweep, steps: int, checkpoint: Path
) -> Iterator[Callable[[bool], None]]:
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
            f"interrupted after {training.step:,} of {steps:,} steps; the checkpoint is {checkpoint}; resume "
            "(run the same with --resume) to go on from it"
        ) from error


def uninterrupted() -> AbstractContextManager[Callable[[], bool]]:
    """Steps in which no interruption is expected to wait: KeyboardInterrupt is raised where it comes."""
    return nullcontext(lambda: False)


def check_out(out: Path, *, resume: bool = False) -> None:
    """InputError where a run's results would replace those of another, or could not be written; as `present`."""
    check_folder(out)
    others = ("sweep.json", "portions.json", *(() if resume else ("summary.json",)))
    if any(present(out / name) for name in others):
        raise InputError(f"{out}: expected a new folder, or one without a finished run; pass another name")
    if present(out / CHECKPOINT) and not resume:
        raise InputError(f"{out}: holds the checkpoint of an unfinished run; resume it, or pass another name")


def finished_run(out: Path, settings: Settings) -> dict[str, Any] | None:
    """The summary of the run in `out` where that is finished, without a look at the tokens; None where it is not.
    What it no longer needs is removed.

    Raises InputError where another process writes `out`, where it is another run, and where the SAE is not there or
    is damaged; Diverged where the run ended with that.
    """
    if not present(out / "summary.json"):
        return None
    with locked(out / LOCK, what=out):
        summary = finished(out, settings)
        return summary and _ended(out, summary)


def _ended(out: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """The summary, with no checkpoint beside it; Diverged where that is how the run ended."""
    if summary["diverged"]:
        raise Diverged(summary["diverged"] + _left(out / CHECKPOINT, "last"))
    (out / CHECKPOINT).unlink(missing_ok=True)
    return summary


def run(
    entry: Entry,
    training: Tokens,
    held_out: Tokens,
    out: str | Path,
    *,
    plan: Plan | None = None,
    resume: bool = False,
    loggers: Loggers = lambda folder, after: [],
    progress: Callable[[dict[str, Record]], None] | None = None,
    at_birth: Births | None = None,
    delay: Delay = uninterrupted,
) -> dict[str, Any]:
    """Train an SAE in place and write records.jsonl, sae.json, sae.safetensors and summary.json into `out`; return
    the summary.

    Records are written as they come, and checkpoints where planned; the SAE and the summary are written whole, at
    the end. `hold_out` parts tokens into those to train on and those to hold out. loggers: more of them, given the
    folder and the number of steps already done. progress: given each record by the entry's name; at_birth: what
    held-out tokens say of the SAE before its first step.
    delay: entered while steps are taken; where it says that an interruption waits, a checkpoint is written after
    the step, and Interrupted is raised.
    resume: go on from the checkpoint in `out` (from the start where there is none yet), with an SAE born the same;
    of a run that is finished, return the summary.

    Raises InputError where another process writes `out`, where it holds a finished run or, unless resumed, an
    unfinished one, where the SAE of a finished one is not there or is damaged, and as `present`, `Training.load`
    and `evaluate`; InputError or Diverged with the step where training broke off, and the checkpoint that is left.
    Diverged also where training ended, but its result is absurd (`divergence`): then the summary says so, and no
    SAE is written. DiskFull with the checkpoint that is left.
    """
    out, plan = Path(out), plan or Plan()
    check_out(out, resume=resume)
    plan.check(entry.member.config)
    with locked(out / LOCK, what=out):
        check_out(out, resume=resume)  # another process may have ended since
        summary = finished(out, entry.settings)
        try:
            if summary is None:
                summary = _train(entry, training, held_out, out, plan, loggers, progress, at_birth, delay)
        except DiskFull as error:
            raise DiskFull(f"{error}{_left(out / CHECKPOINT, 'last good')}") from error
        return _ended(out, summary)


def _train(
    entry: Entry,
    training: Tokens,
    held_out: Tokens,
    out: Path,
    plan: Plan,
    loggers: Loggers,
    progress: Callable[[dict[str, Record]], None] | None,
    at_birth: Births | None,
    delay: Delay,
) -> dict[str, Any]:
    checkpoint, training = out / CHECKPOINT, same_passes(training)
    running = Training(entry.member.sae, training, entry.member.config)
    with Folder(out, entry, training, held_out) as folder:
        folder.be_born(resumed=checkpoint.exists())
        if at_birth:
            at_birth({entry.name: folder.birth})
        if checkpoint.exists():
            running.load(checkpoint)
        folder.log(plan, loggers(out, running.step), after=running.step)
        reached = False
        with saved_if_interrupted(running, entry.member.config.steps, checkpoint) as between_steps:
            try:
                with delay() as interrupted:
                    # After every step, as an interruption cannot wait for the next record.
                    for record in running.each_step():
                        if record is not None:
                            if progress:
                                progress({entry.name: record})
                            # Measured before it is saved: what a kill leaves out is then done again.
                            reached = folder.take(record)
                        if reached or interrupted():
                            break
                        if plan.saves(running.step):
                            running.save(checkpoint)
                    # Resumed from after the step that reached the target, training would not end there.
                    between_steps(not reached)
            except (Diverged, InputError) as error:
                _broke_off(error, running.step, checkpoint)
            return folder.finish(running.step, last_resampling=running.last_resampling)


def _broke_off(error: Exception, step: int, checkpoint: Path) -> NoReturn:
    where = "" if isinstance(error, Diverged) else f"step {step}: "
    raise type(error)(f"{where}{error}{_left(checkpoint, 'last good')}") from error


def _left(checkpoint: Path, which: str) -> str:
    return (
        f"; the {which} checkpoint is {checkpoint}, from which the run can be resumed"
        if checkpoint.exists()
        else ""
    )
