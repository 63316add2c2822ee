"""One training run from activations to a folder: the SAE, its records, and what held-out tokens say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from autopsae.arrays import InputError, Tokens
from autopsae.run.folder import Folder, Plan
from autopsae.sae.model import SAE
from autopsae.training.config import Record, TrainConfig
from autopsae.training.logs import Logger
from autopsae.training.loop import Diverged, Training
from autopsae.training.sources import Member

CHECKPOINT = "checkpoint.safetensors"


def check_out(out: Path, *, resume: bool = False) -> None:
    """InputError where a run's results would replace those of another, or could not be written."""
    if (out / "summary.json").exists() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: expected a new folder, or one without a finished run; pass another name")
    if (out / CHECKPOINT).exists() and not resume:
        raise InputError(f"{out}: holds the checkpoint of an unfinished run; resume it, or pass another name")


def run(
    sae: SAE,
    training: Tokens,
    held_out: Tokens,
    config: TrainConfig,
    out: str | Path,
    *,
    about: dict[str, Any],
    plan: Plan | None = None,
    resume: bool = False,
    loggers: Callable[[int], list[Logger]] = lambda after: [],
    progress: Callable[[Record], None] | None = None,
) -> dict[str, Any]:
    """Train `sae` in place and write records.jsonl, sae.json, sae.safetensors and summary.json into `out`; return
    the summary.

    Records are written as they come, and checkpoints where planned; the SAE and the summary are written whole, at
    the end. about: what else the summary should say; loggers: more of them, given the number of steps already done.
    resume: go on from the checkpoint in `out` (from the start where there is none yet), with an SAE born the same.

    Raises InputError where `out` holds a finished run or, unless resumed, an unfinished one, and as `Training.load`
    and `evaluate`; InputError or Diverged with the step where training broke off, and the checkpoint that is left.
    """
    out, plan = Path(out), plan or Plan()
    check_out(out, resume=resume)
    plan.check(config)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    running = Training(sae, training, config)
    with Folder(out, Member(sae=sae, config=config), held_out, about) as folder:
        folder.be_born(resumed=checkpoint.exists())
        if checkpoint.exists():
            running.load(checkpoint)
        folder.log(plan, loggers(running.step), after=running.step)
        try:
            for record in running:
                if progress:
                    progress(record)
                # Measured before it is saved: what a kill leaves out is then done again.
                if folder.take(record):
                    break
                if plan.saves(running.step):
                    running.save(checkpoint)
        except (Diverged, InputError) as error:
            _broke_off(error, running.step, checkpoint)
        summary = folder.finish(running.step)
    checkpoint.unlink(missing_ok=True)
    return summary


def _broke_off(error: Exception, step: int, checkpoint: Path) -> NoReturn:
    where = "" if isinstance(error, Diverged) else f"step {step}: "
    kept = f"; the last good checkpoint is {checkpoint}" if checkpoint.exists() else ""
    raise type(error)(f"{where}{error}{kept}") from error
