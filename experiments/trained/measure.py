"""What a trained SAE is measured for, on test tokens of documents that it was not trained on."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments.features.concepts import coverage_row
from experiments.trained.fit import fate_row
from experiments.trained.layers import NO_MODEL, NO_TASKS, Data, Task, layer_of
from experiments.trained.rows import Job, Row
from numpy.typing import NDArray
from torch import Tensor

from autopsae import SAE, evaluate
from autopsae.features import Codes, Coverage, Monosemanticity, encode_source, monosemanticity, probe_documents
from autopsae.features.probes import score_at
from autopsae.files import write_whole

FORECAST = 100_000
"""Tokens for which death is forecast: the paper counts on as many."""
KS = (1, 16, 128)
EDGES = tuple(round(-0.2 + 0.05 * n, 2) for n in range(25))
"""Of the histogram of monosemanticity scores, from -0.2 to 1."""


def end_row(sae: SAE, data: Data) -> Row:
    """Death by pathway, errors and L0 on all test tokens."""
    end = evaluate(sae, data.test, documents=data.documents, at_tokens=FORECAST)
    later = end.dead_forecast
    return {
        "end": {
            **fate_row(end.fates),
            "fvu_raw": end.fvu_raw,
            "fvu_typical": end.fvu_typical,
            "mse_raw": end.mse_raw,
            "l0": end.l0,
            "bias": end.bias_captured,
            "strays": end.strays,
            "forecast": None if later is None else [later.value, later.low, later.high],
            "forecast_tokens": None if later is None else later.tokens,
        },
    }


def encode(sae: SAE, x: Tensor, documents: NDArray[Any]) -> Codes:
    """The codes, in memory where few latents fire: a penalty need not have reached its target by the end."""
    codes = encode_source(sae, x, documents=documents)
    return codes if sae.sparsity.l0 is None else codes.hold()


def concept_row(sae: SAE, data: Data) -> tuple[Coverage, Row] | None:
    """Coverage with its shuffled control and probes on single latents; None for a layer without labels."""
    if data.labels is None:
        return None
    return coverage_row(encode(sae, data.test, data.documents), data.labels)


def probe_row(sae: SAE, data: Data, seed: int) -> Row:
    """AUC of probes on 1, 16, 128 latents, raw neurons and shuffled labels: of each label, and the mean."""
    known: dict[str, dict[str, list[float]]] = {}
    for task in data.tasks():
        known |= _probe(sae, task, seed)
    if not known:
        return {"probes": None, "no_probes": NO_TASKS}
    mean = {
        whose: [float(np.mean([scores[whose][n] for scores in known.values()])) for n in range(len(KS))]
        for whose in ("latents", "neurons", "shuffled")
    }
    return {"probes": {"ks": KS, "labels": known, "mean": mean}, "no_probes": None}


def _probe(sae: SAE, task: Task, seed: int) -> dict[str, dict[str, list[float]]]:
    """{label: {whose columns: the AUC at each of KS}}; labels of too few documents are left out."""
    survey = probe_documents(
        {"latents": encode_source(sae, task.x, documents=task.documents)},
        task.x,
        task.documents,
        task.values,
        leave_out=~task.is_letter,
        pool=task.pool,
        ks=KS,
        seed=seed,
    )

    def aucs(label: str, whose: str, *, shuffled: bool = False) -> list[float]:
        probes = survey.probes[label]
        return [score_at(probes.shuffled if shuffled else probes.scores, whose, k).auc for k in KS]

    return {
        label: {
            "latents": aucs(label, "latents"),
            "neurons": aucs(label, "neurons"),
            "shuffled": aucs(label, "latents", shuffled=True),
        }
        for label in survey.probes
    }


def monosemanticity_row(sae: SAE, data: Data) -> Row:
    """Means and a histogram of the scores, on the test tokens that are letters."""
    embeddings = data.embeddings
    if embeddings is None:
        return {"monosemanticity": None, "no_monosemanticity": NO_MODEL}
    codes = encode(sae, data.test[data.is_letter], data.documents[data.is_letter])
    return {
        "monosemanticity": score_row(monosemanticity(codes, embeddings)) | {"model": layer_of(data.name).embedding},
        "no_monosemanticity": None,
    }


def score_row(score: Monosemanticity) -> Row:
    """Of the scores: means, spread, and counts between EDGES."""
    known = score.all_inputs[~np.isnan(score.all_inputs)]
    return {
        "mean": score.mean,
        "mean_top_16": score.mean_top_16,
        "mean_with_dead_as_zero": score.mean_with_dead_as_zero,
        "by_chance": score.by_chance,
        "std": float(known.std()) if len(known) else None,
        "scored": score.scored,
        "d_sae": len(score.fired),
        "counts": _histogram(known),
    }


def _histogram(values: NDArray[Any]) -> Sequence[int]:
    """Counts between EDGES; what lies beyond an end is counted in the last bin there."""
    return [int(n) for n in np.histogram(values.clip(EDGES[0], EDGES[-1]), EDGES)[0]]


def measure(job: Job, sae: SAE, data: Data, work: Path) -> tuple[Row, Row | None]:
    """(the row of the SAE without what `describe` says, its row of concepts). The coverage is kept in WORK."""
    row = {**end_row(sae, data), **probe_row(sae, data, job.seed), **monosemanticity_row(sae, data)}
    made = concept_row(sae, data)
    if made is None:
        return row, None
    coverage, concepts = made
    path = coverage_file(job, work)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = pickle.dumps(coverage)

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_whole(path, write)
    return row, {**job.about(), **concepts}


def coverage_file(job: Job, work: Path) -> Path:
    """Where the coverage of an SAE is kept, for paired comparisons."""
    return work / "coverages" / f"{job.file}.pickle"


def read_coverage(job: Job, work: Path) -> Coverage | None:
    """The coverage of an SAE that was measured here; None for one that was not."""
    path = coverage_file(job, work)
    if not path.exists():
        return None
    kept = pickle.loads(path.read_bytes())  # written by `measure`
    assert isinstance(kept, Coverage)
    return kept
