"""A small layer with everything that a harvested one has, and rows of trained SAEs with given numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from experiments.trained.fit import SERIES
from experiments.trained.layers import Layer
from experiments.trained.measure import EDGES
from experiments.trained.rows import Job

from autopsae.features import Annotations
from autopsae.features.token_table import TokenTable

DOCUMENTS, LENGTH = 60, 20
TOY = Layer(
    title="Toy hs1",
    modality="protein",
    network="toy",
    point="hs1",
    d_sae=24,
    k=3,
    embedding="other hs2",
)


def write_layer(folder: Path, name: str = "toy") -> None:
    """1,500 tokens to train on and 1,200 of 60 documents, with a large mean; a document has one of two concepts."""
    chance = np.random.default_rng(0)
    directions = chance.standard_normal((6, 10))

    def draw(n: int) -> np.ndarray:
        return (chance.exponential(1.0, (n, 6)) * (chance.random((n, 6)) < 0.4)) @ directions + 2.0

    documents = np.repeat(np.arange(DOCUMENTS), LENGTH)
    starts = np.tile(np.arange(LENGTH), DOCUMENTS)
    np.save(folder / f"{name}-train.npy", draw(1500).astype(np.float32))
    test = draw(DOCUMENTS * LENGTH)
    spans = [(n, start, start + 5, f"side {n % 2}") for n in range(DOCUMENTS) for start in (3, 14)]
    for n, start, end, concept in spans:
        test[n * LENGTH + start : n * LENGTH + end] += 4.0 * directions[int(concept[-1])]
    np.save(folder / f"{name}-test.npy", test.astype(np.float32))
    table = TokenTable(documents=documents, starts=starts, ends=starts + 1, texts=("x",) * len(starts))
    table.save(folder / f"{name}-table.parquet")
    Annotations.of(spans).save(folder / f"{name}-annotations.parquet")
    np.save(folder / f"{name}-embeddings.npy", chance.standard_normal((len(starts), 5)))
    (folder / f"{name}-classes.json").write_text(json.dumps({"even": [*range(0, DOCUMENTS, 2)]}))


def made_row(layer: str, arm: str, *, d_sae: int, k: int, seed: int = 0, steps: int = 1000, **numbers: Any) -> Any:
    """A row of trained.json. numbers: dead (at the end), born, relu (at birth), fvu, l0, gamma, score, auc, rising,
    bias.
    """
    job = Job(layer=layer, arm=arm, d_sae=d_sae, seed=seed, steps=steps)
    dead, born = numbers.get("dead", 0.0), numbers.get("born", 0.0)
    rising, fvu = numbers.get("rising", 0.0), numbers.get("fvu", 0.1)
    at = [0, 100, steps // 2, steps]
    flat = {name: [0.0] * len(at) for name in SERIES}
    curve = {"step": at, **flat, "relu": [0.0, rising, rising, rising], "topk": [born, dead, dead, dead]}
    curve |= {"bias": [0.0, 0.0, 0.0, numbers.get("bias", 0.0)], "threshold": [2.0, 3.0, 1.0, 1.0]}
    score = numbers.get("score", 0.3)
    counts = [0] * (len(EDGES) - 1)
    counts[EDGES.index(0.2 if score > 0.2 else 0.0)] = d_sae
    monosemanticity = {"mean": score, "mean_top_16": score, "mean_with_dead_as_zero": score, "by_chance": 0.0}
    monosemanticity |= {"std": 0.1, "scored": d_sae, "d_sae": d_sae, "counts": counts, "model": "other hs2"}
    auc = numbers.get("auc", 0.8)
    labels = {name: {whose: [auc] * 3 for whose in ("latents", "neurons", "shuffled")} for name in ("a", "b")}
    about = {"title": layer, "modality": "protein", "d_in": 10, "gamma": numbers.get("gamma", 3.0)}
    about |= {"batch_tokens": 1024, "train_tokens": 1500, "test_tokens": 1000, "remedy": "none", "k": k}
    return {
        "key": job.key,
        **vars(job),
        **about,
        "curve": curve,
        "curve_tokens": 1000,
        "born": {"dead": born, "relu": numbers.get("relu", 0.0), "topk": born},
        "latents": d_sae,
        "end": {
            "dead": dead,
            "relu": 0.0,
            "topk": dead,
            "fvu_raw": fvu,
            "fvu_typical": fvu,
            "l0": numbers.get("l0", k),
        },
        "probes": {"ks": [1, 16, 128], "labels": labels, "mean": {}},
        "monosemanticity": monosemanticity,
    }
