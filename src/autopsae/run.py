"""One training run from activations to a folder: the SAE, a record per step, and a summary on held-out tokens."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError, Tokens
from autopsae.diagnosis.prescribe import Prescription
from autopsae.evaluation.reconstruction import Evaluation, evaluate
from autopsae.files import write_text
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten
from autopsae.sae.model import SAE
from autopsae.statistics.collect import Statistics
from autopsae.statistics.median import geometric_median
from autopsae.statistics.spectrum import Spectrum
from autopsae.training.logs import JsonLines
from autopsae.training.loop import Record, TrainConfig, steps

STARTS = ("zero", "mean", "median", "whiten", "asi")


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


def check_out(out: Path) -> None:
    """InputError where a run's results would replace those of another, or could not be written."""
    if (out / "summary.json").exists() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: expected a new folder, or one without a finished run; pass another name")


def run(
    sae: SAE,
    training: Tokens,
    held_out: Tokens,
    config: TrainConfig,
    out: str | Path,
    *,
    about: dict[str, Any],
    progress: Callable[[Record], None] | None = None,
) -> dict[str, Any]:
    """Train `sae` in place and write records.jsonl, sae.json, sae.safetensors and summary.json into `out`; return
    the summary.

    Records are written as they come, so an interrupted run keeps them; the SAE and the summary are written whole,
    at the end. about: what else the summary should say.

    Raises InputError where `out` holds a finished run, and as `steps` and `evaluate`.
    """
    out = Path(out)
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    birth = evaluate(sae, held_out)
    with JsonLines(out / "records.jsonl") as log:
        for record in steps(sae, training, config):
            log(record)
            if progress:
                progress(record)
    sae.save(out / "sae")
    summary = {**about, **measured(evaluate(sae, held_out)), "birth": measured(birth), "scale": sae.scale}
    summary |= {"training": asdict(config)}
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def measured(found: Evaluation) -> dict[str, float]:
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
