r"""Do latents that training without a remedy leaves dead know concepts? Baseline against prescribed, on two layers.

    python -m experiments.features.concepts FOLDER [--layers unirep,smollm2] [--seeds 0,1,2]

FOLDER: what `experiments.features.harvest` wrote. For each layer and seed, two SAEs of one size are trained on the
same batches: as a user without a diagnosis starts them (b_dec at 0), and as the diagnosis prescribes. Both, the raw
neurons, and random rows of the same sparsity at the tokens' mean are measured on documents that no SAE was trained
on. A row of `results/concepts.json` is an SAE of one seed; rows that are there are not measured again.
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
from autopsae.report import save_concept_figure

HERE = Path(__file__).parent
D_SAE, K, STEPS, BATCH, LR = 2048, 32, 1500, 1024, 1e-3


def trained(x: Tensor, seed: int) -> dict[str, tuple[SAE, str]]:
    """{name: (the SAE, its remedy)}, trained on the same batches."""
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
    return saes


def controls(x: Tensor, like: SAE, is_counted: Tensor, seed: int) -> dict[str, tuple[SAE, str]]:
    """Raw neurons and random rows, both centred at the mean of the tokens that count."""
    mean = x[is_counted].double().mean(dim=0)
    center = like.enter(mean[None].float())[0][0]
    return {
        "neurons": (neuron_sae(mean), "mean"),
        "random rows": (random_sae(like, center=center, seed=seed), "mean"),
    }


def measure(sae: SAE, x: Tensor, labels: Labels) -> tuple[Coverage, Row]:
    codes = encode_source(sae, x, documents=labels.documents).hold()
    coverage = concept_coverage(codes, labels)
    probes = probe_coverage(codes, labels, coverage)
    about = coverage.to_dict()
    for rest in ("scores", "latents_per_concept", "thresholds", "seed"):
        about.pop(rest)
    about["left_out"] = len(about["left_out"])
    evaluation = evaluate(sae, x)
    measured = {
        "fvu": evaluation.fvu_typical,
        "l0": evaluation.l0,
        "dead_on_test": 1 - coverage.live / coverage.d_sae,
        "covered_by_probe": probes.count(),
        "best": {score.concept: round(min(score.f1, score.validation_f1), 3) for score in coverage.scores},
    }
    return coverage, {**about, **measured}


def run(folder: Path, layer: str, seed: int) -> list[Row]:
    """The rows of a layer and a seed."""
    began = monotonic()
    train_tokens, test = (torch.from_numpy(np.load(folder / f"{layer}-{side}.npy")) for side in ("train", "test"))
    table = read_token_table(folder / f"{layer}-table.parquet")
    annotations = read_annotations(folder / f"{layer}-annotations.parquet").within(table.documents)
    labels = align_annotations(annotations, table.documents, table)
    saes = trained(train_tokens, seed)
    saes |= controls(test, saes["prescribed"][0], torch.from_numpy(labels.is_counted), seed)
    coverages, rows = dict[str, Coverage](), list[Row]()
    for name, (sae, remedy) in saes.items():
        coverages[name], measured = measure(sae, test, labels)
        size = {"d_in": test.shape[1], "k": K, "steps": STEPS, "train_tokens": len(train_tokens)}
        rows.append({"layer": layer, "seed": seed, "sae": name, "remedy": remedy, **size, **measured})
        print(layer, seed, name, f"{monotonic() - began:.0f} s", coverages[name], flush=True)
    comparison = compare_coverages(coverages, baseline="baseline", seed=seed)
    for gain in comparison.gains:
        next(row for row in rows if row["sae"] == gain.name)["gain"] = asdict(gain)
    print(comparison, flush=True)
    (HERE / "figures").mkdir(exist_ok=True)
    if seed == 0:
        save_concept_figure(comparison, HERE / "figures" / f"{layer}.png")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", default="unirep,smollm2")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    for seed in map(int, options.seeds.split(",")):
        for layer in options.layers.split(","):
            rows = read_rows() if RESULTS.exists() else []
            if any((row["layer"], row["seed"]) == (layer, seed) for row in rows):
                continue
            rows += run(options.folder, layer, seed)
            content = {"autopsae": autopsae.__version__, "torch": torch.__version__, "d_sae": D_SAE, "rows": rows}
            write_text(RESULTS, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
