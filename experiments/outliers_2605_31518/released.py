"""The tables that the authors released, as rows with fractions, and the rank statistics of the figures on them.

`layers()`: death at birth on 454 layers of 19 models (d_sae 8192, k 64, 100,000 tokens). `trainings()`: death at
birth and after training on one layer each of 14 models. Names of models are those of the paper's Table S8. The
modality is that of the tokens in Table S1: gLM2, a genomic model, read proteins.
"""

import csv
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from experiments.outliers_2605_31518.frame import HERE
from experiments.outliers_2605_31518.style import BLUE, GREEN, ORANGE, PURPLE

LAYERS, TRAININGS = HERE / "authors" / "init_stats.csv", HERE / "authors" / "trained_results.csv"
TOKENS, D_SAE, K = 100_000, 8192, 64
RESAMPLINGS = 4000
Row = dict[str, Any]

MODALITIES = {"language": BLUE, "vision": ORANGE, "protein": GREEN, "genomic": PURPLE}
"""Each with its colour."""
MODELS = {
    "gpt2": ("GPT-2", "language"),
    "pythia_70m": ("Pythia-70M", "language"),
    "pythia_410m": ("Pythia-410M", "language"),
    "modernbert": ("ModernBERT", "language"),
    "modernbert_large": ("ModernBERT-L", "language"),
    "dinov2": ("DINOv2-B", "vision"),
    "dinov2_large": ("DINOv2-L", "vision"),
    "dinov3_small": ("DINOv3-B", "vision"),
    "dinov3": ("DINOv3-7B", "vision"),
    "stable-diffusion-3-5-large": ("SD3.5-L", "vision"),
    "esm2_35m": ("ESM2-35M", "protein"),
    "esm2_650m": ("ESM2-650M", "protein"),
    "esm2_3B": ("ESM2-3B", "protein"),
    "esm3": ("ESM3", "protein"),
    "progen_base": ("ProGen2-base", "protein"),
    "progen_large": ("ProGen2-Large", "protein"),
    "glm2": ("GLM2", "protein"),
    "af3": ("AlphaFold3", "protein"),
    "evo": ("Evo1", "genomic"),
}
TRAINED = {
    "Pythia 410m": "Pythia-410M",
    "ModernBERT-Large": "ModernBERT-L",
    "DINOv2-Large": "DINOv2-L",
    "DINOv3-1B": "DINOv3-B",
    "Stable Diffusion 3.5 Large": "SD3.5-L",
    "ProGen2-large": "ProGen2-Large",
    "gLM2": "GLM2",
}
"""Names of trained_results.csv that are others than those of Table S8."""
FAMILIES = {
    "Pythia": ("Pythia-70M", "Pythia-410M"),
    "ModernBERT": ("ModernBERT", "ModernBERT-L"),
    "DINOv2": ("DINOv2-B", "DINOv2-L"),
    "DINOv3": ("DINOv3-B", "DINOv3-7B"),
    "ESM2": ("ESM2-35M", "ESM2-650M", "ESM2-3B"),
    "ProGen2": ("ProGen2-base", "ProGen2-Large"),
}
"""Families of which several models were released; every other model is a family of its own."""
UNTRUSTED = "DINOv3-B"
"""The two tables contradict each other on its centered SAE (authors/README.md)."""


def layers() -> list[Row]:
    """A row per model and layer; deaths and the effective rank as fractions."""
    return [_layer(row) for row in _read(LAYERS)]


def _layer(row: dict[str, str]) -> Row:
    model, modality = MODELS[row["model"]]
    measured = {
        "dead": "dead_pct_init_topk",
        "relu": "dead_pct_init_relu",
        "centered": "dead_pct_init_centered",
        "whitened": "dead_pct_init_pca",
    }
    return {
        "model": model,
        "modality": modality,
        "layer": int(row["layer"]),
        "gamma": float(row["gamma"]),
        "gamma_raw": float(row["gamma_raw"]),
        "rank": _short(float(row["effective_rank"]) / int(row["hidden_dim"])),
        **{name: _short(float(row[column]) / 100) for name, column in measured.items()},
    }


def trainings() -> list[Row]:
    """A row per model: dead at birth ("birth") and at the end ("end") under each of three conditions."""
    conditions = ("baseline", "auxk", "centered")
    modality = dict(MODELS.values())
    rows = []
    for row in _read(TRAININGS):
        model = TRAINED.get(row["model"], row["model"])
        deaths = {
            when: {name: _short(float(row[f"dead_pct_{column}_{name}"]) / 100) for name in conditions}
            for when, column in (("birth", "init"), ("end", "final"))
        }
        rows.append({"model": model, "modality": modality[model], "layer": int(row["layer"]), **deaths})
    return rows


def by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each model: the authors' in the order of MODELS, then others in the order of the rows."""
    models = dict.fromkeys([*(model for model, _ in MODELS.values()), *(row["model"] for row in rows)])
    return {model: some for model in models if (some := [row for row in rows if row["model"] == model])}


def by_family(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each family of models."""
    family = {model: name for name, models in FAMILIES.items() for model in models}
    found: dict[str, list[Row]] = {}
    for row in rows:
        model: str = row["model"]
        found.setdefault(family.get(model, model), []).append(row)
    return found


def spearman(rows: Sequence[Row], x: str, y: str) -> float | None:
    """Spearman's correlation of two columns; None where one of them does not vary."""
    from scipy.stats import rankdata

    first, second = (rankdata([row[name] for row in rows]) for name in (x, y))
    if len({*first}) < 2 or len({*second}) < 2:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def interval_over_layers(rows: Sequence[Row], x: str, y: str) -> tuple[float, float]:
    """95 % bootstrap interval of Spearman's correlation: layers are drawn with replacement."""
    return _bootstrap(lambda draw: [rows[place] for place in draw(len(rows))], x, y)


def interval_over_models(rows: Sequence[Row], x: str, y: str) -> tuple[float, float]:
    """The same where whole models are drawn (a cluster bootstrap): layers of one model are alike."""
    models = [*by_model(rows).values()]
    return _bootstrap(lambda draw: [row for place in draw(len(models)) for row in models[place]], x, y)


def _bootstrap(sample: Callable[[Callable[[int], Any]], list[Row]], x: str, y: str) -> tuple[float, float]:
    generator = np.random.default_rng(0)

    def draw(number: int) -> Any:
        return generator.integers(number, size=number)

    values = [value for _ in range(RESAMPLINGS) if (value := spearman(sample(draw), x, y)) is not None]
    low, high = np.quantile(values, (0.025, 0.975))
    return _short(float(low)), _short(float(high))


def _read(path: Any) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
