r"""Do latents that training without a remedy leaves dead know concepts? Baseline against prescribed, on two layers.

    python -m experiments.features.concepts FOLDER [--layers unirep,smollm2] [--seeds 0,1,2] [--typical]

FOLDER: what `experiments.features.harvest` wrote. For each layer and seed, two SAEs of one size are trained on the
same batches: as a user without a diagnosis starts them (b_dec at 0), and as the diagnosis prescribes. Both, the raw
neurons, and random rows of the same sparsity at the tokens' mean are measured on documents that no SAE was trained
on. With --typical, stray tokens (over ten times the median norm) are left out of diagnosis and training; the SAEs
are measured on the same tokens as without it. A row of `results/concepts.json` is an SAE of one seed; rows that are
there are not measured again. The SAEs are kept in FOLDER.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from experiments.features.table import RESULTS, Row, read_rows
from torch import Tensor

import autopsae
from autopsae import SAE, TopK, TrainConfig, born, diagnose, evaluate, train
from autopsae.features import (
    Codes,
    Coverage,
    align_annotations,
    compare_coverages,
    concept_coverage,
    encode_source,
    neuron_sae,
    probe_coverage,
    random_sae,
    read_annotations,
    read_token_table,
)
from autopsae.features.labels import Labels
from autopsae.files import write_text
from autopsae.remedies import untouched
from autopsae.statistics.strays import STRAY, typical_norm

D_SAE, K, STEPS, BATCH, LR = 2048, 32, 1500, 1024, 1e-3
ALL, TYPICAL = "all tokens", "without stray tokens"


def trained(x: Tensor, seed: int, place: Path) -> dict[str, tuple[SAE, str]]:
    """{name: (the SAE, its remedy)}, trained on the same batches. place: where the SAEs are kept."""
    remedies = place.with_name(f"{place.name}-remedies.json")
    if remedies.exists():
        kept: dict[str, str] = json.loads(remedies.read_text())
        return {name: (SAE.load(f"{place}-{name}").eval(), remedy) for name, remedy in kept.items()}
    prescription = diagnose(x, d_sae=D_SAE, k=K, exact=False).prescription
    config = TrainConfig(
        steps=STEPS, lr=LR, batch_tokens=BATCH, warmup_steps=100, decay_steps=300, seed=seed, record_every=STEPS
    )
    sample = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:4096]]
    starts: dict[str, Any] = {"baseline": untouched(x.shape[1]), "prescribed": prescription.remedy}
    saes = dict[str, tuple[SAE, str]]()
    for name, remedy in starts.items():
        drawn = torch.Generator().manual_seed(seed)
        sae = born(remedy, d_sae=D_SAE, sparsity=TopK(k=K), sample=sample, generator=drawn)
        train(sae, x, config)
        saes[name] = sae.eval(), remedy.name
        sae.save(f"{place}-{name}")
    write_text(remedies, json.dumps({name: remedy for name, (_, remedy) in saes.items()}))
    return saes


def controls(x: Tensor, like: SAE, is_counted: Tensor, seed: int) -> dict[str, tuple[SAE, str]]:
    """Raw neurons and random rows, both centred at the mean of the tokens that count."""
    mean = x[is_counted].double().mean(dim=0)
    center = like.enter(mean[None].float())[0][0]
    return {
        "neurons": (neuron_sae(mean), "mean"),
        "random rows": (random_sae(like, center=center, seed=seed), "mean"),
    }


def coverage_row(codes: Codes, labels: Labels) -> tuple[Coverage, Row]:
    """The coverage, and what a row says of it."""
    coverage = concept_coverage(codes, labels)
    probes = probe_coverage(codes, labels, coverage)
    about = coverage.to_dict()
    for rest in ("scores", "latents_per_concept", "thresholds", "seed"):
        about.pop(rest)
    about["left_out"] = len(about["left_out"])
    measured = {
        "dead_on_test": 1 - coverage.live / coverage.d_sae,
        "covered_by_probe": probes.count(),
        "best": {score.concept: round(min(score.f1, score.validation_f1), 3) for score in coverage.scores},
    }
    return coverage, {**about, **measured}


def measure(sae: SAE, x: Tensor, labels: Labels) -> tuple[Coverage, Row]:
    codes = encode_source(sae, x, documents=labels.documents).hold()
    coverage, row = coverage_row(codes, labels)
    evaluation = evaluate(sae, x)
    return coverage, {**row, "fvu": evaluation.fvu_typical, "l0": evaluation.l0}


def run(folder: Path, layer: str, seed: int, training: str) -> list[Row]:
    """The rows of a layer and a seed. training: ALL or TYPICAL tokens."""
    began = monotonic()
    train_tokens, test = (torch.from_numpy(np.load(folder / f"{layer}-{side}.npy")) for side in ("train", "test"))
    table = read_token_table(folder / f"{layer}-table.parquet")
    annotations = read_annotations(folder / f"{layer}-annotations.parquet").within(table.documents)
    labels = align_annotations(annotations, table.documents, table)
    if training == TYPICAL:
        norms = torch.linalg.vector_norm(train_tokens, dim=1)
        train_tokens = train_tokens[norms <= STRAY * typical_norm(train_tokens)]
    saes = trained(train_tokens, seed, folder / f"{layer}-{training.replace(' ', '-')}-{seed}")
    saes |= controls(test, saes["prescribed"][0], torch.from_numpy(labels.is_counted), seed)
    coverages, rows = dict[str, Coverage](), list[Row]()
    for name, (sae, remedy) in saes.items():
        coverages[name], measured = measure(sae, test, labels)
        size = {"d_in": test.shape[1], "k": K, "steps": STEPS, "train_tokens": len(train_tokens)}
        about = {"layer": layer, "training": training, "seed": seed, "sae": name, "remedy": remedy}
        rows.append({**about, **size, **measured})
        print(layer, training, seed, name, f"{monotonic() - began:.0f} s", coverages[name], flush=True)
    comparison = compare_coverages(coverages, baseline="baseline", seed=seed)
    for gain in comparison.gains:
        next(row for row in rows if row["sae"] == gain.name)["gain"] = asdict(gain)
    print(comparison, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", default="unirep,smollm2")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--typical", action="store_true")
    options = parser.parse_args()
    training = TYPICAL if options.typical else ALL
    for seed in map(int, options.seeds.split(",")):
        for layer in options.layers.split(","):
            rows = read_rows() if RESULTS.exists() else []
            if any((row["layer"], row["training"], row["seed"]) == (layer, training, seed) for row in rows):
                continue
            new = run(options.folder, layer, seed, training)
            # Rows of `experiments.trained` stand in the same file.
            content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            content |= {"autopsae": autopsae.__version__, "torch": torch.__version__, "d_sae": D_SAE}
            write_text(RESULTS, json.dumps({**content, "rows": rows + new}, indent=1) + "\n")


if __name__ == "__main__":
    main()
