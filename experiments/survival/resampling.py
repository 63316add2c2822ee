"""How often intervals hold, and how far forecasts are off, over many samples of 4,096 tokens of the same layer.

    python -m experiments.survival.resampling FOLDER [--layers unirep64.hs4,...] [--draws 5] [--tokens 60000]
        [--out results/resampling.json]

FOLDER is what `experiments.survival.layers` wrote. Samples are drawn from all tokens of a layer, or from those of
32 of its documents (a quarter, where there are fewer than 128). Each is taken as the store has it, shuffled, and
with its documents known. From each, death is forecast for all tokens of the layer, raw and centered by their
median, for d_sae 2048 and d_sae / k of 32, 128 and 512; 1,024 latents are followed. `before` is what the forecast
was without the curve: tails alone, and stretches of the sample in the jackknife. Fractions throughout. Rows in the
file stay.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.survival.layers import LAYERS
from numpy.typing import NDArray
from torch import Tensor

from autopsae.diagnosis.severity import Severity, severity
from autopsae.files import write_text
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import TopK
from autopsae.statistics import collect, geometric_median
from autopsae.statistics.groups import sample_groups
from autopsae.survival.estimate import FORM_ERROR, Estimate
from autopsae.survival.tails import most_clumped, observe_tails

HERE = Path(__file__).parent
D_SAE, FOLLOWED, SAMPLE = 2048, 1024, 4096
RATIOS = (32, 128, 512)
FEW = 32
STORES = ("as harvested", "shuffled", "documents known")
INTERVALS = ("gamma", "gamma_raw", "effective_rank")


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """All tokens of a layer, and the samples that are drawn from them."""

    name: str
    tokens: Tensor
    documents: NDArray[Any]
    samples: dict[str, list[NDArray[Any]]]
    """The places of the tokens of each sample, by what they are drawn from."""
    streams: dict[str, list[int]]
    """The number of tokens that each sample is drawn from."""

    @staticmethod
    def read(folder: Path, name: str, tokens: int, draws: int) -> "Layer":
        x = torch.from_numpy(np.load(folder / f"{name}.npy")[:tokens])
        documents = np.load(folder / f"{name.split('.')[0]}.documents.npy")[:tokens]
        chance, number = np.random.default_rng(0), int(documents.max()) + 1

        def sample(pool: NDArray[Any]) -> NDArray[Any]:
            return np.sort(chance.choice(pool, min(SAMPLE, len(pool)), replace=False))

        few = min(FEW, number // 4)
        pools = [
            np.flatnonzero(np.isin(documents, chance.choice(number, few, replace=False))) for _ in range(draws)
        ]
        samples = {
            "all documents": [sample(np.arange(len(x))) for _ in range(draws)],
            f"{few} documents": [sample(pool) for pool in pools],
        }
        streams = {"all documents": [len(x)] * draws, f"{few} documents": [len(pool) for pool in pools]}
        return Layer(name=name, tokens=x, documents=documents, samples=samples, streams=streams)

    def groups(self, places: NDArray[Any], store: str, draw: int) -> list[Tensor]:
        """The groups that a forecast takes, with the sample's tokens in the order of `places`."""
        y = self.tokens[places]
        if store == "documents known":
            return sample_groups(y, self.documents[places])
        if store == "as harvested":
            return sample_groups(y, None)
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(draw))
        return [group[order.argsort()] for group in sample_groups(y[order], None)]


def rows_of(layer: Layer) -> Iterator[dict[str, Any]]:
    """The rows of one layer: of death, and of the intervals of gamma and rank."""
    guesses = {
        (origin, store): [layer.groups(places, store, draw) for draw, places in enumerate(samples)]
        for origin, samples in layer.samples.items()
        for store in STORES
    }
    yield from _severity_rows(layer, guesses)
    for remedy in ("none", "median"):
        center = geometric_median(layer.tokens[:: max(1, len(layer.tokens) // SAMPLE)].double()).float()
        x = layer.tokens - center if remedy == "median" else layer.tokens
        product = x @ draw_rows(D_SAE, x.shape[1], generator=torch.Generator().manual_seed(0)).T
        size = x.norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        for ratio in RATIOS:
            sparsity = TopK(k=D_SAE // ratio)
            over = torch.cat(
                [
                    (sparsity.margins(pre) / norm[:, None]).T
                    for pre, norm in zip(product.split(512), size.split(512), strict=True)
                ],
                dim=1,
            )
            true = float((over <= 0).all(dim=1).double().mean())
            for origin, samples in layer.samples.items():
                said = {store: [] for store in STORES}
                for draw, places in enumerate(samples):
                    sampled = over[:, torch.from_numpy(places)]
                    for store in STORES:
                        of_store = guesses[origin, store][draw]
                        said[store].append(_forecasts(sampled, of_store, len(x), layer.streams[origin][draw]))
                for store in STORES:
                    about = {"layer": layer.name, "d_in": x.shape[1], "remedy": remedy, "ratio": ratio}
                    about |= {"tokens": len(x), "from": origin, "store": store, "draws": len(samples), "dead": true}
                    yield {**about, **_judge(np.array(said[store]), true)}


def _forecasts(over: Tensor, groups: list[Tensor], tokens: int, stream: int) -> tuple[float, ...]:
    """(value, low, high, effective tokens) as they are, then as they were before."""
    silent = float((over <= 0).all(dim=1).double().mean())
    over = over[:FOLLOWED]
    group = most_clumped(over, groups)
    tails = observe_tails(over, group)
    estimate = Estimate.of(tails, silent, stream)
    now = estimate.silent(tokens)
    worth = over.shape[1] / tails.clumping
    if group is not groups[0]:
        tails = observe_tails(over, groups[0])
        estimate = Estimate.of(tails, silent, stream)
    value = estimate.whole.silent(tokens)
    value *= silent / (estimate.whole.silent(over.shape[1]) or 1.0)
    left_out = np.array([tail.silent(tokens) for tail in estimate.without])
    sampling = (len(left_out) - 1) * left_out.var()
    half = 1.645 * sqrt(sampling + (FORM_ERROR * (silent - value)) ** 2 + value * (1 - value) / len(over))
    before = (value, max(0.0, value - half), min(1.0, value + half), over.shape[1] / tails.clumping)
    return (now.value, now.low, now.high, worth, *before)


def _judge(said: NDArray[Any], true: float) -> dict[str, float]:
    judged: dict[str, float] = {}
    for when, columns in (("", said[:, :4]), ("before_", said[:, 4:])):
        value, low, high, worth = columns.T
        slack = 1 / D_SAE  # one latent
        error = value - true
        judged |= {
            f"{when}bias": float(error.mean()),
            f"{when}mean_error": float(np.abs(error).mean()),
            f"{when}worst": float(np.abs(error).max()),
            f"{when}holds": float(((low - slack <= true) & (true <= high + slack)).mean()),
            f"{when}width": float((high - low).mean()),
            f"{when}effective_tokens": float(worth.mean()),
        }
    return judged


def _severity_rows(layer: Layer, guesses: dict[tuple[str, str], list[list[Tensor]]]) -> Iterator[dict[str, Any]]:
    center = layer.tokens.double().mean(dim=0)
    true = severity(collect(layer.tokens), center)
    for origin, samples in layer.samples.items():
        statistics = [collect(layer.tokens[torch.from_numpy(places)]) for places in samples]
        for store in STORES:
            found = [severity(s, center, g) for s, g in zip(statistics, guesses[origin, store], strict=True)]
            about = {"layer": layer.name, "d_in": layer.tokens.shape[1], "from": origin, "store": store}
            about |= {"tokens": len(layer.tokens), "draws": len(samples)}
            yield {**about, "severity": {name: _coverage(found, true, name) for name in INTERVALS}}


def _coverage(found: list[Severity], true: Severity, name: str) -> dict[str, float]:
    value = getattr(true, name)
    ends = np.array([getattr(s, f"{name}_interval") for s in found])
    values = np.array([getattr(s, name) for s in found])
    return {
        "true": value,
        "relative_bias": float(values.mean() / value - 1),
        "holds": float(((ends[:, 0] <= value) & (value <= ends[:, 1])).mean()),
        "relative_width": float((ends[:, 1] - ends[:, 0]).mean() / value),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    every = [f"{network}.{layers[place]}" for place in (0, 1) for network, layers in LAYERS.items()]
    parser.add_argument("--layers", default=",".join(every))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "resampling.json")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(asked.out.read_text()) if asked.out.exists() else []
    done = {row["layer"] for row in rows}
    for name in asked.layers.split(","):
        if name in done:
            continue
        rows += rows_of(Layer.read(asked.folder, name, asked.tokens, asked.draws))
        write_text(asked.out, json.dumps(rows, indent=1, allow_nan=False) + "\n")
        print(name, flush=True)


if __name__ == "__main__":
    main()
