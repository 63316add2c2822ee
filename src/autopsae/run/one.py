"""One training run from activations to a folder: the SAE, its records, and what held-out tokens say."""

from pathlib import Path
from typing import Any

from autopsae.arrays import InputError, Tokens
from autopsae.disk import LOCK, hold_lock
from autopsae.passes import same_passes
from autopsae.run.driver import Group, checkpoint_left, drive
from autopsae.run.finished import Settings, check_folder, is_present, load_finished
from autopsae.run.folder import Entry, Plan
from autopsae.run.observer import Observer
from autopsae.sae.stored import FORMAT
from autopsae.saved import check_free
from autopsae.training.one import Diverged

CHECKPOINT = "checkpoint.safetensors"
RANKS_CHECKPOINT = "checkpoint.json"
"""The list of the files of a run on several ranks."""


def check_out(out: Path, *, resume: bool = False, on_ranks: bool = False) -> None:
    """InputError where a run's results would replace those of another, or could not be written; as `is_present`.
    on_ranks: whether the run is one on several ranks, which alone can go on from their checkpoint.
    """
    check_folder(out)
    check_free(out / "sae", format=FORMAT)
    others = ("sweep.json", "portions.json", *(() if resume else ("summary.json",)))
    if any(is_present(out / name) for name in others):
        raise InputError(f"{out}: expected a new folder, or one without a finished run; pass another name")
    unfinished = any(is_present(out / name) for name in (CHECKPOINT, RANKS_CHECKPOINT))
    if unfinished and not resume:
        raise InputError(f"{out}: holds the checkpoint of an unfinished run; resume it, or pass another name")
    if is_present(out / RANKS_CHECKPOINT) and not on_ranks:
        raise InputError(
            f"{out}: holds the checkpoint of a run on several ranks; resume it with torchrun, on any number "
            "of ranks over 1, or pass another name"
        )


def load_finished_run(out: Path, settings: Settings) -> dict[str, Any] | None:
    """The summary of the run in `out` where that is finished, without a look at the tokens; None where it is not.
    What it no longer needs is removed.

    Raises InputError where another process writes `out`, where it is another run, and where the SAE is not there or
    is damaged; Diverged where the run ended with that.
    """
    if not is_present(out / "summary.json"):
        return None
    with hold_lock(out / LOCK, what=out):
        summary = load_finished(out, settings)
        return summary and _end(out, summary)


def _end(out: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """The summary, with no checkpoint beside it; Diverged where that is how the run ended."""
    if summary["diverged"]:
        raise Diverged(summary["diverged"] + checkpoint_left(out / CHECKPOINT, "last"))
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
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Train an SAE in place and write records.jsonl, sae.json, sae.safetensors and summary.json into `out`; return
    the summary.

    Records are written as they come, and checkpoints where planned; the SAE and the summary are written whole, at
    the end. `hold_out` parts tokens into those to train on and those to hold out.
    resume: go on from the checkpoint in `out` (from the start where there is none yet), with an SAE born the same;
    of a run that is finished, return the summary.

    Raises InputError where another process writes `out`, where it holds a finished run or, unless resumed, an
    unfinished one, where the SAE of a finished one is not there or is damaged, and as `is_present`, `Training.load`
    and `evaluate`; InputError or Diverged with the step where training broke off, and the checkpoint that is left.
    Diverged also where training ended, but its result is absurd (`divergence`): then the summary says so, and no
    SAE is written. DiskFull with the checkpoint that is left.
    """
    out, plan = Path(out), plan or Plan()
    check_out(out, resume=resume)
    plan.check(entry.member.config)
    with hold_lock(out / LOCK, what=out):
        check_out(out, resume=resume)  # another process may have ended since
        summary = load_finished(out, entry.settings)
        if summary is None:
            group = Group(entries=[entry], folders=[out], checkpoint=out / CHECKPOINT, goes_on=False)
            tokens, observer = same_passes(training), observer or Observer()
            [summary] = drive(group, tokens, held_out, plan=plan, observer=observer, done={}).values()
        return _end(out, summary)
