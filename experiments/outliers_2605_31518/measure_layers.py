"""Layers of our own: geometry, death at birth and the verdict of every layer of nine networks, a row each.

    python -m experiments.outliers_2605_31518.measure_layers DATA WORK [--networks unirep64,...] [--tokens 10000]

Writes results/layers/NETWORK.json, a row after each layer, and goes on where it was stopped. WORK holds the tokens
of a network, up to 10 GB, until all its layers are measured. Nothing is trained.

A row has fractions of the latents of one drawn SAE (d_sae 8192, k 64) under each remedy: "counted" on all tokens,
"estimated" for them from the sample of 4,096 that `diagnose` keeps, and "expected" on a million tokens. "findings"
are those of the diagnosis with the counts, "findings_estimated" those with the estimates.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from experiments.outliers_2605_31518.networks import ZOO, choose_blocks, load, run_over_inputs
from experiments.outliers_2605_31518.own import LAYERS
from torch import Tensor

from autopsae.activations.store import Activations
from autopsae.arrays import chunks
from autopsae.defaults import ACCEPTABLE, LR, STEPS
from autopsae.diagnosis.births import DRAW, Question, estimate_births
from autopsae.diagnosis.findings import findings
from autopsae.diagnosis.judge import judge
from autopsae.diagnosis.measured import Measured
from autopsae.diagnosis.parameters import Asked
from autopsae.diagnosis.result import Diagnosis
from autopsae.files import write_text
from autopsae.passes import source_documents
from autopsae.remedies.remedy import active_subspace, center, whiten
from autopsae.remedies.view import View
from autopsae.sae.sparsity import TopK
from autopsae.seeds import stream
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import layer_norm
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import Birth, measure_birth

D_SAE, K, AT_TOKENS = 8192, 64, 1_000_000
ASKED = Asked(
    d_sae=D_SAE,
    sparsity=TopK(k=K),
    at_tokens=AT_TOKENS,
    alphas=(),
    ranks=(),
    acceptable=ACCEPTABLE,
    lr=LR,
    steps=STEPS,
    seed=0,
)
ALPHA = 0.3
TRIMMED = 0.1
"""The share of the values of each dimension that the trimmed mean leaves out at either end."""
DIRECTIONS = 500
"""Random directions onto which tokens are projected."""


def measure_layer(tokens: Activations | Tensor, layer: str) -> dict[str, Any]:
    """The numbers of one layer. tokens: read four times."""
    start = time.perf_counter()
    statistics = collect(tokens, seed=ASKED.seed)
    questions: list[Question] = []

    def estimate(question: Question) -> dict[str, Birth]:
        questions.append(question)
        return estimate_births(question)

    estimated = judge(statistics, ASKED, estimate, layer=layer, documents=source_documents(tokens))
    views, centres = _more_views(statistics, estimated)
    counted = measure_birth(
        tokens,
        {**questions[0].views, **views},
        d_sae=ASKED.d_sae,
        sparsity=ASKED.sparsity,
        generator=stream(ASKED.seed, DRAW),
        device="cpu",
    )
    row = _row(estimated, counted)
    row["centres"] = centres
    row["projections"] = project(tokens, statistics)
    row["seconds"] = time.perf_counter() - start
    shortened: dict[str, Any] = shorten(row)
    return shortened


def _more_views(statistics: Statistics, diagnosis: Diagnosis) -> tuple[dict[str, View], dict[str, Any]]:
    """Remedies besides those that a diagnosis counts, and how far the robust centres are from the geometric median,
    in units of the median token's distance from it.
    """
    sample = statistics.sample
    median = geometric_median(sample)
    spectrum = Spectrum.of(statistics.raw.covariance)
    others = {"trimmed": trimmed_mean(sample), "coordinates": sample.median(dim=0).values}
    typical = (sample - median).norm(dim=1).median()
    off = {name: float((centre - median).norm() / typical) for name, centre in others.items()}
    rank = max(1, round(diagnosis.severity.effective_rank))
    remedies = [
        whiten(spectrum, median, alpha=ALPHA),
        active_subspace(spectrum, median, rank=rank),
        *(center(centre, name) for name, centre in others.items()),
    ]
    return {remedy.name: remedy.enters(sample) for remedy in remedies}, off


def trimmed_mean(x: Tensor) -> Tensor:
    """Of each dimension, without the largest and the smallest tenth of its values."""
    cut = int(TRIMMED * len(x))
    return x.sort(dim=0).values[cut : len(x) - cut].mean(dim=0)


def project(tokens: Activations | Tensor, statistics: Statistics) -> dict[str, float]:
    """Of 500 random projections of the tokens after LayerNorm: the median excess kurtosis, and the median of the
    largest value in standard deviations from the mean.
    """
    on_directions = random_projections(statistics)
    fourth, largest = torch.zeros(DIRECTIONS, dtype=torch.float64), torch.full((DIRECTIONS,), -torch.inf)
    for x in chunks(tokens, dtype=None):
        y = on_directions(x)
        fourth += y.pow(4).sum(dim=0).double()
        largest = torch.maximum(largest, y.amax(dim=0))
    kurtosis = fourth / statistics.tokens - 3
    return {"kurtosis": float(kurtosis.median()), "largest": float(largest.median())}


def random_projections(statistics: Statistics) -> Callable[[Tensor], Tensor]:
    """A function from tokens to their projections on the 500 directions after LayerNorm, [tokens, 500], in standard
    deviations from the mean.
    """
    chance = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(DIRECTIONS, statistics.d_in, generator=chance), dim=1)
    covariance = directions.double() @ statistics.normed.covariance @ directions.double().T
    columns = (directions / covariance.diagonal().sqrt()[:, None]).float().T
    return lambda x: (layer_norm(x.double()) - statistics.normed.mean).float() @ columns


def _row(estimated: Diagnosis, counted: dict[str, Birth]) -> dict[str, Any]:
    """What both diagnoses say of the layer: the prescription rests on the sample alone and is the same."""
    exact = findings(
        Measured(
            tokens=estimated.tokens,
            severity=estimated.severity,
            outlier_dimensions=estimated.outlier_dimensions,
            repeats=estimated.repeats,
            birth={name: counted[name] for name in estimated.birth},
            expected=estimated.expected,
            predicted=estimated.predicted,
            forecast=estimated.birth["none"].dead,
            recovery=estimated.recovery,
            prescription=estimated.prescription,
            travel=ASKED.lr * ASKED.steps,
            acceptable=ASKED.acceptable,
            documents_assumed=False,  # changes no finding, only an advice
        )
    )
    return {
        "point": estimated.layer,
        "tokens": estimated.tokens,
        "d_in": estimated.d_in,
        "d_sae": ASKED.d_sae,
        "k": ASKED.sparsity.l0,
        **asdict(estimated.severity),
        "outlier_dimensions": [asdict(dimension) for dimension in estimated.outlier_dimensions],
        "distinct": estimated.repeats.distinct_estimate,
        "counted": {name: {"dead": b.dead, "relu": b.dead_by_relu} for name, b in counted.items()},
        "estimated": {
            name: {"dead": b.dead, "relu": b.dead_by_relu, "interval": b.dead_interval}
            for name, b in estimated.birth.items()
        },
        "expected": {
            name: {
                "dead": outlook.dead.value,
                "interval": (outlook.dead.low, outlook.dead.high),
                "relu": outlook.dead_by_relu.value,
                "usage": outlook.usage,
                "dominance": outlook.dominance,
            }
            for name, outlook in estimated.expected.items()
        },
        "predicted": {"dead": estimated.predicted.dead, "relu": estimated.predicted.dead_by_relu},
        "prescribed": estimated.prescription.remedy.name,
        "findings": [finding.name for finding in exact],
        "findings_estimated": [finding.name for finding in estimated.findings],
    }


def shorten(value: Any) -> Any:
    """Six significant digits."""
    if isinstance(value, dict):
        return {name: shorten(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [shorten(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def take_tokens(layer: Activations) -> Tensor:
    """[tokens, d_in]: all of them, in a random order that is the same each time."""
    x = torch.cat([*chunks(layer, dtype=None)])
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]


def measure_network(key: str, data: Path, work: Path, tokens: int, *, every: int = 1) -> Iterator[str]:
    """The layers of a network that have no row yet, every so-manyth of its points; says each that is done."""
    zoo, path = ZOO[key], LAYERS / f"{key}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if kept.get("complete"):
        return
    network = load(zoo)
    if not kept:
        kept = {"model": zoo.name, "modality": zoo.modality, "preset": zoo.preset, "complete": False}
        kept["blocks"] = shorten(choose_blocks(zoo, network, data, work / f"{key}.look"))
        kept["rows"] = []
        _write(path, kept)
    points = [*network.points, *(row["point"] for row in kept["blocks"] if row["chosen"]), *zoo.more]
    layers = run_over_inputs(zoo, network, data, points, work / key, tokens)
    del network
    rows = {row["point"]: row for row in kept["rows"]}
    for point in points[::every]:
        if point not in rows:
            rows[point] = measure_layer(layers[point], point)
            kept["rows"] = [rows[point] for point in points if point in rows]
            _write(path, kept)
            yield f"{key} {point}: gamma {rows[point]['gamma']:.2f}, {rows[point]['seconds']:.0f} s"
    if len(rows) < len(points):
        return
    _write(path, {**kept, "complete": True})
    for folder in (work / key, work / f"{key}.look"):
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that the Debian packages were unpacked to")
    parser.add_argument("work", type=Path, help="folder for tokens, 10 GB")
    parser.add_argument("--networks", default=",".join(ZOO))
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=1, help="measure only every so-manyth layer this time")
    asked = parser.parse_args()
    for key in asked.networks.split(","):
        for line in measure_network(key, asked.data, asked.work, asked.tokens, every=asked.every):
            print(line, flush=True)


if __name__ == "__main__":
    main()
