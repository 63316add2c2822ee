"""Saved results of every kind, small, for the tests of the page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autopsae import features
from autopsae.diagnosis.profile import profile_landscape, thin_spectrum
from autopsae.diagnosis.survey import survey
from autopsae.evaluation.autopsy import autopsy
from autopsae.features.content import activations_content, features_content
from autopsae.remedies.remedy import untouched
from autopsae.run.folder import Entry, Plan
from autopsae.run.many import run_sweep
from autopsae.run.one import run
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.saved import save_object
from autopsae.training.config import TrainConfig
from autopsae.training.sources import Member
from autopsae.trial.result import FORMAT
from tests.features.sources import small_sae, spans

NAMES = {"hs0": "hs0", "hs1": "<b>hs1</b>", "hs2": "</script><script>alert(1)</script>", "hs3": "@ink"}
"""Names of layers, some of which would be more than words."""


def tokens(gamma: float, seed: int = 0, d_in: int = 12, number: int = 600) -> torch.Tensor:
    x = torch.randn(number, d_in, generator=torch.Generator().manual_seed(seed))
    x[:, 3] += gamma * d_in**0.5
    return x


def save_diagnosis(path: Path) -> None:
    layers = {
        name: tokens(gamma, n) for n, (gamma, name) in enumerate(zip((0.1, 6, 2, 1), NAMES.values(), strict=True))
    }
    survey(layers, d_sae=48, k=3, exact=False).save(path)


def trial_content(layer: str = "<i>layer</i>") -> dict[str, Any]:
    def point(step: int, dead: float, fvu: float | None) -> dict[str, Any]:
        return {"step": step, "tokens": 100, "dead": dead, "fvu_raw": fvu, "fvu_typical": fvu}

    def candidate(name: str, dead: float, fvu: float, diverged: str | None = None) -> dict[str, Any]:
        points = [point(0, 0.9, 12.5), point(50, dead, fvu)]
        later = None if diverged else point(1000, dead / 2, fvu / 2)
        return {"name": name, "points": points[:1] if diverged else points, "diverged": diverged, "later": later}

    candidates = [candidate("none", 0.6, 0.5), candidate("median", 0.01, 0.3)]
    candidates.append(candidate("whiten_0.3", 0.5, 0.1, "step 7: the loss is not finite"))
    budget = {"steps": 50, "batch_tokens": 256, "age": 2.0, "for_steps": 1000, "for_batch_tokens": 1024}
    seen = {"tokens": 500, "epochs": 25.6, "held_out": 100, "by_document": False}
    told = {"layer": layer, "d_sae": 48, "chosen": "median", "reason": "the lowest error", "lr": 2e-3}
    return {**told, "acceptable": 0.01, **budget, **seen, "candidates": candidates, "findings": []}


def entry(name: str, lr: float) -> Entry:
    torch.manual_seed(0)
    sae = born(untouched(12), d_sae=48, sparsity=TopK(k=3), scaled=False)
    config = TrainConfig(steps=40, lr=lr, batch_tokens=50, buffer_tokens=200, dead_after_tokens=500)
    about = {"layer": "hs1", "start": name, "d_sae": 48, "sparsity": "topk", "k": 3}
    return Entry(member=Member(sae=sae, config=config, name=name), about=about)


def save_autopsy(path: Path) -> None:
    torch.manual_seed(0)
    result = autopsy(born(untouched(12), d_sae=48, sparsity=TopK(k=3), scaled=False), tokens(6.0))
    path.write_text(json.dumps(result.to_dict()))
    result.save_table(path.with_suffix(".csv"))


def save_features(path: Path, compared: Path) -> None:
    """The measures of one SAE, and the comparison of two."""
    x, documents = tokens(0.5, d_in=12, number=500), np.repeat(np.arange(20), 25)
    annotated = features.Annotations.of(
        [(*row[:3], row[3].replace("word", "<u>word</u>")) for row in spans(25, 20)]
    )
    labels = features.align_annotations(annotated, documents)
    saes: dict[str, SAE] = {"one": small_sae(), "<s>other</s>": small_sae(seed=4)}
    codes = {name: features.encode_source(sae, x, documents=documents) for name, sae in saes.items()}
    coverages = {name: features.concept_coverage(own, labels) for name, own in codes.items()}
    place = np.tile(np.arange(25), 20)
    texts = tuple(f"<{chr(97 + n)}> & " for n in place)
    table = features.TokenTable(documents=documents, starts=place, ends=place + 1, texts=texts)
    tops = features.top_activations(codes["one"])
    content = features_content(
        coverage=coverages["one"],
        probes=features.probe_concepts(codes, x, labels, rows="tokens", ks=(1, 8)),
        monosemanticity={"one": features.monosemanticity(codes["one"], x)},
        examples=tops.of_latent(coverages["one"].scores[0].latent, table),
        activations=activations_content(tops, table, most=3),
    )
    path.write_text(json.dumps(content))
    compared.write_text(json.dumps(features.compare_coverages(coverages).to_dict()))


def save_all(folder: Path) -> dict[str, Path]:
    """{kind: where it lies}."""
    paths = {name: folder / f"{name}.json" for name in ("diagnosis", "trial", "autopsy", "features", "comparison")}
    save_diagnosis(paths["diagnosis"])
    save_object(paths["trial"], format=FORMAT, content=trial_content())
    save_autopsy(paths["autopsy"])
    save_features(paths["features"], paths["comparison"])
    x = tokens(6.0)
    plan = Plan(evaluate_every=10)
    run(entry("zero", 1e-3), x[:500], x[500:], folder / "run", plan=plan)
    run_sweep([entry("zero", 1e-3), entry("slow", 1e-4)], x[:500], x[500:], folder / "sweep")
    paths["latents"] = paths["autopsy"].with_suffix(".csv")
    return {**paths, "run": folder / "run", "sweep": folder / "sweep"}


def save_latents(saved: Path, path: Path, latents: int = 8192) -> None:
    """A table of many latents, made of the rows of a small one, whose numbers are spread a little."""
    head, *rows = saved.read_text().splitlines()
    names, lines = head.split(","), list[str]()
    for n in range(latents):
        row = dict(zip(names, rows[n % len(rows)].split(","), strict=True))
        row |= {
            "latent": str(n),
            **{name: repr(float(row[name]) * (1 + n / latents)) for name in ("shift", "signal")},
        }
        lines.append(",".join(row.values()))
    path.write_text("\n".join([head, *lines]))


def many_contexts(content: dict[str, Any], latents: int = 8192) -> dict[str, Any]:
    """Features with the top activations of many latents, made of those of a few, with long contexts."""
    few = content["activations"]["latents"]
    words = "It was the best of times, it was the worst of times, it was the age of wisdom. "
    made = []
    for n in range(latents):
        latent = few[n % len(few)]
        top = [{**one, "before": words, "text": f" word{n}", "after": words} for one in latent["top"]]
        made.append({**latent, "latent": n, "rate": 0.001 * (1 + n % 97), "top": top})
    held = {"tokens": content["activations"]["tokens"], "d_sae": latents, "latents": made}
    return {"format": content["format"], "version": 1, "activations": held}


def many_layers(saved: Path, layers: int = 50) -> dict[str, Any]:
    """A diagnosis of many layers under six remedies with 8,192 latents, made of one layer's JSON."""
    content = json.loads(saved.read_text())
    [first] = [layer for layer in content["layers"] if layer["layer"] == NAMES["hs1"]]
    names = ["none", "mean", "median", "zscore", "whiten", "whiten_0.15"]
    birth = {name: first["birth"].get(name, first["birth"]["none"]) for name in names}
    dimensions = [{"index": 100 * n, "mean": 3.0, "std": 0.5, "share": 0.09} for n in range(10)]
    variances = torch.rand(4096, generator=torch.Generator().manual_seed(0)).sort(descending=True).values + 0.01
    pictures = {"spectrum": thin_spectrum(variances), "landscape": profile_landscape(torch.rand(64, 4096))}
    made = {**first, **pictures, "d_in": 4096, "d_sae": 8192, "birth": birth, "outlier_dimensions": dimensions}
    return {**content, "layers": [{**made, "layer": f"blocks.{n}.hook_resid_post"} for n in range(layers)]}
