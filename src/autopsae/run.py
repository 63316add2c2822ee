"""One training run from activations to a folder: the SAE, a record per step, and what held-out tokens say."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens, chunks
from autopsae.diagnosis.prescribe import Prescription
from autopsae.evaluation.reconstruction import Evaluation, evaluate
from autopsae.files import differing, write_text
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten
from autopsae.sae.model import SAE
from autopsae.statistics.collect import Statistics
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import layer_norm
from autopsae.statistics.spectrum import Spectrum
from autopsae.training.config import Record, TrainConfig
from autopsae.training.logs import JsonLines, Logger
from autopsae.training.loop import Diverged, Training

STARTS = ("zero", "mean", "median", "whiten", "asi")
CHECKPOINT = "checkpoint.safetensors"


def start_from(name: str, statistics: Statistics, *, alpha: float, rank: int) -> Remedy:
    """The remedy that a start is called by: zero, mean, median, whiten (with `alpha`) or asi (with `rank`).

    Raises InputError for another name, and as `whiten` and `active_subspace`.
    """
    if name == "zero":
        return untouched(statistics.d_in)
    if name == "mean":
        return center(statistics.raw.mean, "mean")
    median = geometric_median(statistics.sample)
    if name == "median":
        return center(median, "median")
    spectrum = Spectrum.of(statistics.raw.covariance)
    if name == "whiten":
        return whiten(spectrum, median, alpha=alpha)
    if name == "asi":
        return active_subspace(spectrum, median, rank=rank)
    raise InputError(f"start: expected one of {', '.join(STARTS)}, got {name!r}")


def load_start(path: str | Path, d_in: int) -> Prescription:
    """A saved prescription for a layer of width `d_in`. Raises InputError as `Prescription.load`, or for another
    width.
    """
    prescription = Prescription.load(path)
    if prescription.d_in != d_in:
        raise InputError(
            f"{path}: expected a prescription for d_in = {d_in}, got one for {prescription.d_in} (layer "
            f"{prescription.layer!r}); diagnose this layer"
        )
    return prescription


class LayerNormed:
    """The same tokens, each normalised: what an SAE with `layer_norm` sees, for statistics of it."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def __iter__(self) -> Iterator[Float[Tensor, "chunk d_in"]]:
        return (layer_norm(x) for x in chunks(self._tokens))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does besides training. Steps are counted from its beginning."""

    checkpoint_every: int | None = None
    """Steps between checkpoints, each of which replaces the one before."""
    evaluate_every: int | None = None
    """Steps between measurements on held-out tokens (held_out.jsonl)."""
    target_fvu: float | None = None
    """Stop at the first measurement whose raw FVU on held-out tokens is no greater."""

    def __post_init__(self) -> None:
        if any(every is not None and every < 1 for every in (self.checkpoint_every, self.evaluate_every)):
            raise InputError(f"expected checkpoint_every and evaluate_every of at least 1 step, got {self}")
        if self.target_fvu is not None and not (isfinite(self.target_fvu) and self.target_fvu > 0):
            raise InputError(f"expected target_fvu > 0, got {self.target_fvu}")
        if self.target_fvu is not None and self.evaluate_every is None:
            raise InputError("target_fvu: expected evaluate_every too, as the target is one on held-out tokens")


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What held-out tokens say after `step` (from 0). Fractions in [0, 1]; dead = relu + topk."""

    step: int
    dead: float
    relu: float
    topk: float
    fvu_raw: float
    mse_raw: float
    l0: float
    tokens: int
    bias_captured: float


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
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    running = Training(sae, training, config)
    birth = _measured_at_birth(sae, held_out, out, about, resumed=checkpoint.exists())
    if checkpoint.exists():
        running.load(checkpoint)
    with ExitStack() as stack:
        log = [JsonLines(out / "records.jsonl", after=running.step), *loggers(running.step)]
        for logger in log:
            stack.enter_context(logger)
        measure = stack.enter_context(_Measuring(sae, held_out, plan, out / "held_out.jsonl", after=running.step))
        try:
            for record in running:
                for logger in log:
                    logger(record)
                if progress:
                    progress(record)
                # Measured before it is saved: what a kill leaves out is then done again.
                if measure(record.step):
                    break
                if plan.checkpoint_every and running.step % plan.checkpoint_every == 0:
                    running.save(checkpoint)
        except (Diverged, InputError) as error:
            _broke_off(error, running.step, checkpoint)
    sae.save(out / "sae")
    evaluation = evaluate(sae, held_out)
    summary = {**about, **measured(evaluation), "birth": birth, "scale": sae.scale}
    summary |= {"firing_rates": evaluation.fates.by_rate(), "steps": running.step, "training": _named(config)}
    text = json.dumps(summary, indent=2) + "\n"
    write_text(out / "summary.json", text)
    checkpoint.unlink(missing_ok=True)
    written: dict[str, Any] = json.loads(text)
    return written


def measured(found: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation: dead = relu + topk, fractions; fvu_raw, l0, bias_captured; tokens held out."""
    fates = found.fates
    return {
        "dead": fates.dead,
        "relu": fates.relu,
        "topk": fates.topk,
        "fvu_raw": found.fvu_raw,
        "mse_raw": found.mse_raw,
        "l0": found.l0,
        "tokens": found.tokens,
        "bias_captured": found.bias_captured,
    }


def _measured_at_birth(
    sae: SAE, held_out: Tokens, out: Path, about: dict[str, Any], *, resumed: bool
) -> dict[str, Any]:
    """Measured once, and kept with what the run is about; InputError where a resumed run is about another."""
    path = out / "birth.json"
    described = json.loads(json.dumps(about))
    if not resumed:
        birth = measured(evaluate(sae, held_out))
        write_text(path, json.dumps({"about": described, "birth": birth}, indent=2) + "\n")
        return birth
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        kept: dict[str, Any] = before["birth"]
        was = before["about"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected what the run began with ({error!r}); pass another folder") from error
    changed = [f"{key} {was.get(key)}, got {described.get(key)}" for key in differing(was, described)]
    if changed:
        raise InputError(f"{out}: expected the settings that the run began with: {'; '.join(changed)}")
    return kept


def _named(config: TrainConfig) -> dict[str, Any]:
    """The settings, with the names of those that are a choice of kinds."""
    parts = {name: getattr(config, name) for name in ("penalty", "revival", "resampling")}
    named = {name: part and {"name": type(part).__name__, **asdict(part)} for name, part in parts.items()}
    return {**asdict(config), **named}


class _Measuring(AbstractContextManager["_Measuring"]):
    """Held-out measurements at their steps."""

    def __init__(self, sae: SAE, held_out: Tokens, plan: Plan, path: Path, *, after: int) -> None:
        self._sae, self._held_out, self._plan = sae, held_out, plan
        self._log = JsonLines(path, after=after) if plan.evaluate_every else None

    def __exit__(self, *_: object) -> None:
        if self._log:
            self._log.close()

    def __call__(self, step: int) -> bool:
        """Measure if it is time; true where the target is reached."""
        every, target = self._plan.evaluate_every, self._plan.target_fvu
        if self._log is None or every is None or (step + 1) % every:
            return False
        found = HeldOut(step=step, **measured(evaluate(self._sae, self._held_out)))
        self._log(found)
        return target is not None and found.fvu_raw <= target


def _broke_off(error: Exception, step: int, checkpoint: Path) -> NoReturn:
    where = "" if isinstance(error, Diverged) else f"step {step}: "
    kept = f"; the last good checkpoint is {checkpoint}" if checkpoint.exists() else ""
    raise type(error)(f"{where}{error}{kept}") from error
