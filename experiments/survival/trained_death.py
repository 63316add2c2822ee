"""Forecasts of the death of trained SAEs, from 4,096 tokens to the count on 100,000.

    python -m experiments.survival.trained_death LAYERS SAES --train      # train SAEs of five sparsities into SAES
    python -m experiments.survival.trained_death LAYERS SAES [--cache DIR] [--most 20] [--minutes 30]
    python -m experiments.survival.trained_death                          # the tables of the kept rows, a second

LAYERS is what `experiments.survival.layers` wrote. SAES holds the SAEs of `--train` (LAYER_own_KIND_STEPS), and may
hold those of `experiments.survival.policies --saes` (LAYER_SEED_LR_DSAE_K_POLICY_STEPS).

**Which tokens.** The stream is 100,000 tokens of whole documents, and the count is on all of them. For an own SAE
they are documents that it was not trained on. For an SAE of `policies` they are the first of its training tokens. A
sample is drawn at random in either of two ways: 4,096 tokens of the whole stream, or 4,096 of those of whole
documents with 20,480 tokens or a few more, on which dead latents are counted too, as `evaluate` does on held-out
tokens. The document of each token is known.

**Chosen on, judged on.** That the tails alone are used, that a shrinkage is fitted to the curve, and the share that
stands for the form of the tails were chosen on own SAEs of one layer of each of five networks (CHOSEN_ON). All
other SAEs judge the forecast. The samples of 23 rows (all of antiberty.hs1, the first 9 of dinov2.hs12) were drawn
before a seed depended on the name of the SAE.

A row has `sae, layer, sparsity, policy, steps, d_sae, unseen` (the stream is of documents that the SAE was not
trained on), `chosen_on`, `from` ("stream" or "documents"), `counted_tokens`, `counted` (dead there), `sample`
(dead on the sample), `at_20480` (dead on 20,480 tokens of the stream: the mean over all choices), `forecast`,
`low`, `high`, `shrinkage`, `effective_tokens`, `documents` (in the sample), `dead` (on 100,000 tokens). Fractions.
"""

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.rows import Row, read_rows, write_rows
from experiments.survival.policies import split
from numpy.typing import NDArray
from torch import Tensor

from autopsae import SAE, BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK, TrainConfig, born
from autopsae.run.start import start_from
from autopsae.statistics import collect
from autopsae.survival import forecast_trained
from autopsae.survival.tails import _silent_in_subsets
from autopsae.training import Member, Training
from autopsae.training.objective import L1, L0Target

RESULTS = Path(__file__).parent / "results" / "trained_death.json"
STREAM, SAMPLE, HELD_OUT = 100_000, 4096, 20_480
CHOSEN_ON = ("antiberty.hs7", "unirep64.hs2", "spliceai.add_20", "dinov2.hs6", "unirep256.hs4")
LEVEL = 0.9
KINDS: dict[str, tuple[Sparsity, str, float, L1 | L0Target | None]] = {
    "topk32_none_1e-3": (TopK(k=32), "zero", 1e-3, None),
    "batchtopk32_none_1e-3": (BatchTopK(k=32), "zero", 1e-3, None),
    "topk8_median_3e-3": (TopK(k=8), "median", 3e-3, None),
    "relu_none_1e-3": (ReLU(), "zero", 1e-3, L1(coefficient=3.0)),
    "jumprelu32_none_1e-3": (JumpReLU(), "zero", 1e-3, L0Target(l0=32.0, coefficient=1.0)),
    "groupmax32_none_1e-3": (GroupMax(k=32), "zero", 1e-3, None),
    "batchtopk16_median_1e-3": (BatchTopK(k=16), "median", 1e-3, None),
    "relu_median_3e-3": (ReLU(), "median", 3e-3, L1(coefficient=6.0)),
    "jumprelu16_median_1e-3": (JumpReLU(), "median", 1e-3, L0Target(l0=16.0, coefficient=1.0)),
}
"""{name: sparsity, start, learning rate, penalty} of the own SAEs."""

OWN_D_SAE, OWN_STEPS = 1024, (100, 400)


def stream(folder: Path, layer: str) -> tuple[Tensor, NDArray[Any], Tensor]:
    """(the stream of the own SAEs of a layer, its documents, the tokens that they are trained on)."""
    x, documents = _read(folder, layer)
    order = np.random.default_rng(1).permutation(int(documents.max()) + 1)
    sizes = np.bincount(documents)[order]
    chosen = np.isin(documents, order[: int(np.searchsorted(sizes.cumsum(), STREAM)) + 1])
    places = np.flatnonzero(chosen)[:STREAM]
    return x[places], documents[places], x[torch.from_numpy(~chosen)]


def training_stream(folder: Path, layer: str) -> tuple[Tensor, NDArray[Any]]:
    """(the first training tokens of the SAEs of `policies`, their documents)."""
    x, documents = _read(folder, layer)
    _, held_out = split(folder, layer)
    order = np.random.default_rng(0).permutation(int(documents.max()) + 1)
    sizes = np.bincount(documents)[order].cumsum()
    is_held_out = np.isin(documents, order[: int(np.searchsorted(sizes, HELD_OUT)) + 1])
    assert is_held_out.sum() == len(held_out)  # the same documents as in `split`
    places = np.flatnonzero(~is_held_out)[:STREAM]
    return x[places], documents[places]


def _read(folder: Path, layer: str) -> tuple[Tensor, NDArray[Any]]:
    x = torch.from_numpy(np.load(folder / f"{layer}.npy"))
    return x, np.load(folder / f"{layer.split('.')[0]}.documents.npy")


def train_own(folder: Path, saes: Path, layer: str, kind: str) -> None:
    """Train an SAE on the tokens that are not in the stream, and save it after each of OWN_STEPS."""
    sparsity, start, lr, penalty = KINDS[kind]
    paths = {steps: saes / f"{layer}_own_{kind}_{steps}" for steps in OWN_STEPS}
    if all(Path(f"{path}.json").exists() for path in paths.values()):
        return
    _, _, x = stream(folder, layer)
    statistics = collect(x)
    sae = born(
        start_from(start, statistics, alpha=1.0, rank=1),
        d_sae=OWN_D_SAE,
        sparsity=sparsity,
        sample=statistics.sample,
        generator=torch.Generator().manual_seed(0),
        encoder_bias=penalty is not None,
        firing_rate=penalty.l0 / OWN_D_SAE if isinstance(penalty, L0Target) else None,
    )
    config = TrainConfig(steps=max(OWN_STEPS), lr=lr, batch_tokens=512, record_every=50, penalty=penalty)
    training = Training([Member(sae=sae, config=config, name=kind)], x)
    for _ in training.each_step():
        if training.step in OWN_STEPS:
            sae.save(paths[training.step])
    print(layer, kind, flush=True)


def about(name: str) -> Row:
    """What the name of an SAE says."""
    if own := re.fullmatch(r"(.+)_own_(.+)_(\d+)", name):
        layer, policy, steps = own.groups()
        return {"layer": layer, "policy": policy, "steps": int(steps), "unseen": True}
    of_policies = re.fullmatch(r"(.+?)_(\d+)_([\d.e-]+)_\d+_\d+_(.+)_(\d+)", name)
    assert of_policies, name
    layer, seed, lr, policy, steps = of_policies.groups()
    named = {"layer": layer, "policy": policy, "steps": int(steps), "unseen": False}
    return {**named, "seed": int(seed), "lr": float(lr)}


@torch.no_grad()
def firings(sae: SAE, x: Tensor, document: Tensor) -> Tensor:
    """[d_sae, documents]: on how many tokens of each document each latent fires."""
    counts = torch.zeros(int(document.max()) + 1, sae.d_sae, dtype=torch.int64)
    for tokens, owner in zip(x.split(2048), document.split(2048), strict=True):
        selection = sae.select(sae.enter(tokens)[0])
        fires = selection.values > 0
        pairs = owner[selection.pairs.tokens[fires]] * sae.d_sae + selection.pairs.latents[fires]
        counts += torch.bincount(pairs, minlength=counts.numel()).view_as(counts)
    return counts.T


def rows_of(
    sae: SAE, named: Row, x: Tensor, documents: NDArray[Any], fired: Tensor, *, seed: int, origins: Sequence[str]
) -> Iterator[Row]:
    """A forecast from the whole stream, and one from some of its documents."""
    document = np.unique(documents, return_inverse=True)[1]
    chance, on_all = np.random.default_rng(seed), fired.sum(dim=1)
    order = chance.permutation(int(document.max()) + 1)
    sizes = np.bincount(document)[order].cumsum()
    some = order[: int(np.searchsorted(sizes, HELD_OUT)) + 1]
    pools = {"stream": np.arange(len(x)), "documents": np.flatnonzero(np.isin(document, some))}
    for origin, pool in pools.items():
        places = np.sort(chance.choice(pool, SAMPLE, replace=False))
        if origin not in origins:
            continue
        found = forecast_trained(sae, x[places], documents=document[places], stream_tokens=len(pool))
        counted, counted_tokens = found.silent_on_sample, SAMPLE
        if origin == "documents":
            counted, counted_tokens = float((fired[:, some].sum(dim=1) == 0).double().mean()), len(pool)
        expected = found.dead_after(STREAM, counted=counted, counted_tokens=counted_tokens)
        yield {
            **named,
            "sparsity": sae.sparsity.name,
            "d_sae": sae.d_sae,
            "from": origin,
            "counted_tokens": counted_tokens,
            "counted": counted,
            "sample": found.silent_on_sample,
            "at_20480": _silent_in_subsets(on_all, STREAM, HELD_OUT),
            "forecast": expected.value,
            "low": expected.low,
            "high": expected.high,
            "shrinkage": found.shrinkage,
            "effective_tokens": found.effective_tokens,
            "documents": len(np.unique(document[places])),
            "dead": float((on_all == 0).double().mean()),
        }


def judge(asked: argparse.Namespace) -> None:
    """Write the rows of SAEs that have none yet, layer by layer."""
    start, kept, origins = time.monotonic(), read(), asked.origins.split(",")
    folder, saes, cache = asked.layers, asked.saes, asked.cache
    there = {(row["sae"], row["from"]) for row in kept}
    names = sorted(path.name.removesuffix(".json") for path in saes.glob("*.json"))
    by_layer: dict[tuple[bool, str], list[str]] = {}
    for name in names:
        by_layer.setdefault((about(name)["unseen"], about(name)["layer"]), []).append(name)
    # Layers that judge come first, so that a run that is broken off has judged.
    for (unseen, layer), of_layer in sorted(
        by_layer.items(), key=lambda item: item[0][0] and item[0][1] in CHOSEN_ON
    ):
        if not unseen:
            of_layer = of_layer[:: max(1, len(of_layer) // asked.most)][: asked.most]
        x, documents = stream(folder, layer)[:2] if unseen else training_stream(folder, layer)
        document = torch.from_numpy(np.unique(documents, return_inverse=True)[1])
        for name in of_layer:
            wanted = [origin for origin in origins if (name, origin) not in there]
            if not wanted or time.monotonic() - start > 60 * asked.minutes:
                continue
            sae, place = SAE.load(saes / name), cache and cache / f"{name}.npz"
            if place and place.exists():
                fired = torch.from_numpy(np.load(place)["fired"])
            else:
                fired = firings(sae, x, document)
                if place:
                    np.savez_compressed(place, fired=fired.numpy())
            named = {"sae": name, **about(name), "chosen_on": unseen and layer in CHOSEN_ON}
            # The seed depends on the name alone, so that the order of the SAEs changes no row.
            seed = int.from_bytes(sha256(name.encode()).digest()[:4])
            kept += rows_of(sae, named, x, documents, fired.long(), seed=seed, origins=wanted)
            write_rows(RESULTS, kept)
            said = (f"{kept[-1][key]:.3f}" for key in ("counted", "forecast", "low", "high", "dead"))
            print(name, *said, flush=True)


def read() -> list[Row]:
    """The rows that are kept."""
    return read_rows(RESULTS)


def summary(rows: Sequence[Row]) -> Row:
    """How far forecasts are off, in percentage points, and how often intervals hold."""
    of = {
        key: np.array([row[key] for row in rows])
        for key in ("dead", "forecast", "low", "high", "sample", "at_20480")
    }
    error = of["forecast"] - of["dead"]
    slack = np.array([0.5 / row["d_sae"] for row in rows])  # half a latent
    holds = (of["low"] - slack <= of["dead"]) & (of["dead"] <= of["high"] + slack)
    return {
        "saes": len({row["sae"] for row in rows}),
        "dead": 100 * float(of["dead"].mean()),
        "error": 100 * float(np.abs(error).mean()),
        "bias": 100 * float(error.mean()),
        "worst": 100 * float(np.abs(error).max()),
        "holds": 100 * float(holds.mean()),
        "width": 100 * float((of["high"] - of["low"]).mean()),
        "on_sample": 100 * float(np.abs(of["sample"] - of["dead"]).mean()),
        "at_20480": 100 * float(np.abs(of["at_20480"] - of["dead"]).mean()),
    }


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """{name: rows} of the tables: what judges and what was chosen on, then parts of what judges."""
    judging = [row for row in rows if not row["chosen_on"]]
    split_rows = {"judged on": judging, "chosen on": [row for row in rows if row["chosen_on"]]}
    for row in judging:
        whose = "own, unseen documents" if row["unseen"] else "of policies, training documents"
        for name in (whose, row["sparsity"], row["layer"].split(".")[0]):
            split_rows.setdefault(name, []).append(row)
    return {name: some for name, some in split_rows.items() if some}


COLUMNS = {
    "saes": "SAEs",
    "dead": "dead",
    "error": "mean error",
    "bias": "bias",
    "worst": "worst",
    "holds": "interval holds",
    "width": "width",
    "on_sample": "error of the count on the sample",
    "at_20480": "error of a count on 20,480",
}


def table(rows: Sequence[Row], origin: str) -> str:
    """The table of docs/forecast.md of the forecasts from one kind of sample."""
    lines = ["| which | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    for name, some in groups([row for row in rows if row["from"] == origin]).items():
        numbers = summary(some)
        cells = [f"{numbers[key]:.2f}" for key in COLUMNS]
        whole = {"saes": f"{numbers['saes']}", "holds": f"{numbers['holds']:.0f}%"}
        cells = [whole.get(key, cell) for key, cell in zip(COLUMNS, cells, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", type=Path, nargs="?", help="none: the tables of the rows that are kept")
    parser.add_argument("saes", type=Path, nargs="?")
    parser.add_argument("--train", action="store_true", help="train SAEs into SAES, and judge nothing")
    parser.add_argument("--cache", type=Path, help="keep the firings of each SAE there, as NAME.npz")
    parser.add_argument("--most", type=int, default=20, help="SAEs of `policies` of each layer")
    parser.add_argument("--origins", default="stream,documents", help="of the samples")
    parser.add_argument("--minutes", type=float, default=150)
    asked = parser.parse_args()
    if asked.layers is None:
        for origin in ("stream", "documents"):
            print(f"from {origin}", table(read(), origin), sep="\n")
    elif asked.train:
        asked.saes.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            for path in sorted(asked.layers.glob("*.npy")):
                if not path.stem.endswith(".documents"):
                    train_own(asked.layers, asked.saes, path.stem, kind)
    else:
        judge(asked)


if __name__ == "__main__":
    main()
