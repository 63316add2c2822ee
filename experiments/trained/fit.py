"""One SAE: born, trained, watched on the way. An interrupted training goes on where it was saved."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from experiments.trained.arms import ARMS, BATCH
from experiments.trained.layers import Data, layer_of
from experiments.trained.rows import Job, Row
from jaxtyping import Float
from torch import Tensor

from autopsae import SAE, TrainConfig, born, diagnose, evaluate, fates
from autopsae.diagnosis import Prescription
from autopsae.features import control_saes
from autopsae.files import write_text
from autopsae.remedies import untouched
from autopsae.run.start import start_from
from autopsae.sae.death import Fates
from autopsae.training import Member, Training

LOOK = 8192
"""Test tokens on which an SAE is watched while it is trained, evenly spaced."""
LOOKS = 20
"""Looks at even distances, besides those at the steps EARLY."""
EARLY = (0, 1, 3, 10, 30, 100, 300)
SAVE_SECONDS = 120.0
"""Time between two checkpoints."""
SERIES = ("relu", "topk", "fvu", "l0", "bias", "threshold")
"""What is watched: fractions dead-by-ReLU and dead-by-TopK, raw FVU, latents that fire per token, share of the mean
that `b_dec` has, and the smallest code of a token, in the SAE's unit."""


class OutOfTime(RuntimeError):
    """The time that was allowed is up; what was trained so far is saved."""


@dataclass(kw_only=True)
class Course:
    """How an SAE developed, kept beside its checkpoint."""

    remedy: str = ""
    """Under which it was born."""
    bias: str = "learned"
    """How `b_dec` learns, where the prescription says."""
    curve: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in ("step", *SERIES)})
    born: Row | None = None
    """Fractions of latents that were born dead, on all test tokens; None for a control, which is not trained."""
    seconds: float = 0.0
    """Of training alone."""
    diverged: str | None = None

    def look(self, sae: SAE, step: int, x: Float[Tensor, "some d_in"]) -> None:
        """Measure once at a step."""
        if step in self.curve["step"]:
            return
        end = evaluate(sae, x, at_tokens=None)
        values = (end.fates.dead_by_relu, end.fates.dead_by_topk, end.fvu_raw, end.l0, end.bias_captured)
        for name, value in zip(("step", *SERIES), (step, *values, threshold(sae, x[:2048])), strict=True):
            self.curve[name].append(value if name == "step" else _short(value))

    def back_to(self, step: int) -> None:
        """Forget what came after a step."""
        n = sum(at <= step for at in self.curve["step"])
        self.curve = {name: values[:n] for name, values in self.curve.items()}


def fate_row(fates: Fates) -> Row:
    """Fractions of latents."""
    return {"dead": fates.dead, "relu": fates.dead_by_relu, "topk": fates.dead_by_topk}


@torch.no_grad()
def threshold(sae: SAE, x: Float[Tensor, "some d_in"]) -> float | None:
    """The smallest code over zero of each token, averaged over the tokens that have one; None where none has."""
    selection = sae.select(sae.enter(x.to(sae.W_enc))[0])
    fires = selection.values > 0
    least = torch.full((len(x),), torch.inf).scatter_reduce(
        0, selection.pairs.tokens[fires].long(), selection.values[fires].float(), "amin"
    )
    some = least[least.isfinite()]
    return float(some.mean()) if len(some) else None


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def prescription(data: Data, d_sae: int, work: Path) -> Prescription:
    """What the diagnosis prescribes for the layer at this size; made once, and kept."""
    path = work / "prescriptions" / f"{data.name}-{d_sae}"
    if not path.with_name(f"{path.name}.json").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sparsity = ARMS["prescribed"].sparsity(layer_of(data.name).k, 1)
        made = diagnose(data.train, d_sae=d_sae, sparsity=sparsity, layer=data.name, exact=False)
        made.prescription.save(path)
    return Prescription.load(path)


def newborn(job: Job, data: Data, work: Path) -> tuple[SAE, TrainConfig, Course]:
    """The SAE as it is born, and the settings of its training."""
    arm, k = ARMS[job.arm], layer_of(job.layer).k
    config: dict[str, Any] = {"steps": job.steps, "lr": job.lr, "batch_tokens": BATCH, "record_every": job.steps}
    config |= {"seed": job.seed, **arm.training(k=k, steps=job.steps)}
    start: Any = untouched(data.d_in)
    course = Course(remedy="none")
    if arm.start == "median":
        start = start_from("median", data.statistics, alpha=1.0, rank=1)
        course.remedy = start.name
    elif arm.start == "prescription":
        start = prescription(data, job.d_sae, work)
        config |= start.training
        course.remedy, course.bias = start.remedy.name, str(start.bias)
    sae = born(
        start,
        d_sae=job.d_sae,
        sparsity=arm.sparsity(k, job.steps),
        sample=data.statistics.sample,
        generator=torch.Generator().manual_seed(job.seed),
        **arm.birth(k=k, d_sae=job.d_sae, steps=job.steps),
    )
    return sae, TrainConfig(**config), course


def control(job: Job, data: Data) -> SAE:
    """Raw neurons, or random rows with as many latents per token as the layer's TopK SAEs have."""
    like = born(
        untouched(data.d_in),
        d_sae=job.d_sae,
        sparsity=ARMS["baseline"].sparsity(layer_of(job.layer).k, 1),
        sample=data.statistics.sample,
    )
    return control_saes(like, data.test, is_counted=data.is_letter.copy(), seed=job.seed)[job.arm]


def fit(job: Job, data: Data, work: Path, deadline: Callable[[], bool]) -> tuple[SAE, Course]:
    """The trained SAE, from WORK/saes where it is finished. deadline: whether the time is up.

    Raises OutOfTime once it is; the training is saved, and goes on with the next call.
    """
    saes = work / "saes"
    saes.mkdir(parents=True, exist_ok=True)
    place, told = saes / job.file, saes / f"{job.file}.course"
    if place.with_name(f"{job.file}.json").exists():
        return SAE.load(place).eval(), Course(**json.loads(told.read_text()))
    if job.is_control:
        sae, course = control(job, data), Course()
    else:
        sae, course = _train(job, data, work, told, deadline)
    write_text(told, json.dumps(vars(course)))
    sae.save(place)
    checkpoint_of(job, work).unlink(missing_ok=True)
    return sae.eval(), course


def checkpoint_of(job: Job, work: Path) -> Path:
    """The state of an unfinished training."""
    return work / "saes" / f"{job.file}.checkpoint.safetensors"


def _train(job: Job, data: Data, work: Path, told: Path, deadline: Callable[[], bool]) -> tuple[SAE, Course]:
    sae, config, course = newborn(job, data, work)
    x = data.test[:: max(1, len(data.test) // LOOK)][:LOOK]
    training, checkpoint = Training([Member(sae=sae, config=config)], data.train), checkpoint_of(job, work)
    if checkpoint.exists():
        training.load(checkpoint)
        # It was written after the course: what the course has beyond it is measured again.
        course = Course(**json.loads(told.read_text()))
        course.back_to(training.step)
    else:
        course.born = fate_row(fates(sae, data.test))
    at = {*EARLY, *(round(job.steps * n / LOOKS) for n in range(LOOKS + 1))}

    def save() -> None:
        write_text(told, json.dumps(vars(course)))
        training.save(checkpoint)

    course.look(sae, training.step, x)
    saved = began = time.monotonic()
    for _ in training.each_step():
        course.seconds += time.monotonic() - began
        if training.step in at:
            course.look(sae, training.step, x)
        if training.step < job.steps and (deadline() or time.monotonic() - saved > SAVE_SECONDS):
            save()
            saved = time.monotonic()
            if deadline():
                raise OutOfTime(f"{job.key}: saved after {training.step:,} of {job.steps:,} steps")
        began = time.monotonic()
    course.diverged = training.diverged.get(0)
    course.look(sae, training.step, x)
    return sae, course


def describe(job: Job, data: Data, course: Course) -> Row:
    """What a row says before anything is measured at the end."""
    layer = layer_of(job.layer)
    return {
        **job.about(),
        "title": layer.title,
        "modality": layer.modality,
        "d_in": data.d_in,
        "gamma": _short(data.gamma),
        "batch_tokens": BATCH,
        "train_tokens": len(data.train),
        "epochs": _short(job.steps * BATCH / len(data.train)),
        "test_tokens": len(data.test),
        "remedy": course.remedy,
        "bias": course.bias,
        "born": course.born,
        "curve_tokens": min(LOOK, len(data.test)),
        "curve": course.curve,
        "seconds": _short(course.seconds),
        "diverged": course.diverged,
    }
