"""How often intervals hold, and how far forecasts are off, over many samples of 4,096 tokens of the same layer.

    python -m experiments.survival.resampling FOLDER [--layers unirep64.hs4,...] [--draws 200] [--tokens 60000]
        [--out results/resampling.json]

FOLDER is what `experiments.survival.layers` wrote. Samples are drawn from all tokens of a layer, or from those of
32 of its documents (a quarter, where there are fewer than 128). Each is taken as the store has it, shuffled, and
with its documents known. From each, death is forecast for all tokens of the layer, raw and centered by their
median, for d_sae 2048 and d_sae / k of 32, 128 and 512; 1,024 latents are followed. `unassumed_` is the forecast
without the design effect that is assumed for shuffled streams. Fractions throughout.

Each layer is written when it is done. With more draws than the file has, only those that it lacks are made: a draw
depends on its number alone.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.rows import Row, read_rows, write_rows
from experiments.survival.layers import APART, LAYERS
from numpy.typing import NDArray
from torch import Tensor

from autopsae.diagnosis.severity import _gamma_interval, _rank_interval, gamma
from autopsae.sae.init import draw_rows
from autopsae.statistics import collect, geometric_median
from autopsae.statistics.collect import Statistics
from autopsae.statistics.groups import GROUPS, Groups, directions, document_effect, sample_groups
from autopsae.statistics.moments import layer_norm
from autopsae.statistics.spectrum import Spectrum, effective_rank
from autopsae.survival.clumping import design_effect, firings
from autopsae.survival.estimate import Estimate
from autopsae.survival.tails import LEAST_TAIL, TOP, Margins, largest_margins

HERE = Path(__file__).parent
D_SAE, FOLLOWED, SAMPLE = 2048, 1024, 4096
RATIOS = (32, 128, 512)
FEW = 32
STORES = ("as harvested", "shuffled", "documents known")
KEY = ("layer", "remedy", "ratio", "from", "store")
"""What a row is about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A sample of a layer, and its groups in each store."""

    origin: str
    places: Tensor
    stream: int
    """Number of tokens that it was drawn from."""
    groups: dict[str, Groups]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """All tokens of a layer, and their documents."""

    name: str
    tokens: Tensor
    documents: NDArray[Any]

    @staticmethod
    def read(folder: Path, name: str, tokens: int) -> "Layer":
        x = torch.from_numpy(np.load(folder / f"{name}.npy")[:tokens])
        return Layer(
            name=name, tokens=x, documents=np.load(folder / f"{name.split('.')[0]}.documents.npy")[:tokens]
        )

    def about(self) -> Row:
        return {"layer": self.name, "d_in": self.tokens.shape[1], "tokens": len(self.tokens)}

    def draw(self, number: int) -> list[Drawn]:
        """A sample of all documents, and one of few."""
        chance, documents = np.random.default_rng(number), int(self.documents.max()) + 1
        few = min(FEW, documents // 4)
        of_few = np.isin(self.documents, chance.choice(documents, few, replace=False))
        pools = {"all documents": np.arange(len(self.tokens)), f"{few} documents": np.flatnonzero(of_few)}
        samples = {
            origin: np.sort(chance.choice(pool, min(SAMPLE, len(pool)), replace=False))
            for origin, pool in pools.items()
        }
        return [
            Drawn(
                origin=origin,
                places=torch.from_numpy(places),
                stream=len(pools[origin]),
                groups=self._groups(places, len(pools[origin]), number),
            )
            for origin, places in samples.items()
        ]

    def _groups(self, places: NDArray[Any], stream: int, number: int) -> dict[str, Groups]:
        """By store, with the tokens in the order of `places` in each."""
        y = self.tokens[places]
        harvested = sample_groups(y, None, stream)
        # Shuffling changes the stretches, and that the order says nothing. The clusters it leaves as they are.
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(number))
        stretches = (torch.arange(len(y)) * GROUPS // len(y))[order]
        shuffled = Groups(
            guesses=(stretches, *harvested.guesses[1:]), least_effect=document_effect(directions(y), stream)
        )
        known = sample_groups(y, self.documents[places], stream)
        return dict(zip(STORES, (harvested, shuffled, known), strict=True))


def death_rows(layer: Layer, draws: Sequence[list[Drawn]]) -> Iterator[Row]:
    """The rows of death."""
    center = geometric_median(layer.tokens[:: max(1, len(layer.tokens) // SAMPLE)].double()).float()
    for remedy in ("none", "median"):
        x = layer.tokens - center if remedy == "median" else layer.tokens
        rows = draw_rows(D_SAE, x.shape[1], generator=torch.Generator().manual_seed(0))
        pre = torch.cat([_pre(some, rows) for some in x.split(2048)])
        largest = torch.cat([some.topk(D_SAE // min(RATIOS) + 1, dim=1).values for some in pre.split(2048)])
        true = {ratio: _silent_on_all(pre, largest, D_SAE // ratio) for ratio in RATIOS}
        said: dict[tuple[int, str, str], list[tuple[float, ...]]] = {}
        for drawn in (drawn for pair in draws for drawn in pair):
            of_sample, limits = pre[drawn.places].T.contiguous(), largest[drawn.places]
            for ratio in RATIOS:
                over = _over(of_sample, limits, D_SAE // ratio)
                for store, forecast in _forecasts(over, drawn, len(x)).items():
                    said.setdefault((ratio, drawn.origin, store), []).append(forecast)
        for (ratio, origin, store), numbers in said.items():
            about = {**layer.about(), "remedy": remedy, "ratio": ratio, "from": origin, "store": store}
            yield {**about, "draws": len(numbers), "dead": true[ratio], **_judge(np.array(numbers), true[ratio])}


def _pre(x: Tensor, rows: Tensor) -> Tensor:
    """Pre-activations over the norm of the token."""
    pre: Tensor = (x @ rows.T) / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return pre


def _silent_on_all(pre: Tensor, largest: Tensor, k: int) -> float:
    fired = torch.zeros(D_SAE, dtype=torch.bool)
    for some, limits in zip(pre.split(2048), largest.split(2048), strict=True):
        fired |= (some >= limits[:, k - 1 : k].clamp_min(1e-38)).any(dim=0)
    return float((~fired).double().mean())


def _over(pre: Tensor, largest: Tensor, k: int) -> Tensor:
    """The margins of TopK, a row for each latent: minus the k-th largest pre-activation of the others."""
    last, following = (largest[:, place].clamp_min(0) for place in (k - 1, k))
    # Few rows at a time stay in the processor's cache.
    return torch.cat([rows - torch.where(rows >= last, following, last) for rows in pre.split(64)])


def _forecasts(over: Tensor, drawn: Drawn, tokens: int) -> dict[str, tuple[float, ...]]:
    """{store: (value, low, high, effective tokens), and value, low, high if nothing is assumed}."""
    silent = float((over.amax(dim=1) <= 0).double().mean())
    over = over[:FOLLOWED]
    peaks = _Peaks(over, list({id(g): g for groups in drawn.groups.values() for g in groups.guesses}.values()))
    numbers: dict[str, tuple[float, ...]] = {}
    for store, groups in drawn.groups.items():
        margins = peaks.most_clumped(groups)
        estimate = Estimate.of(margins, silent, drawn.stream, groups.least_effect)
        now = estimate.silent(tokens)
        plain = now
        if estimate.effect > estimate.clumping:
            plain = replace(estimate, effect=estimate.clumping).silent(tokens)
        worth = over.shape[1] / estimate.effect
        numbers[store] = (now.value, now.low, now.high, worth, plain.value, plain.low, plain.high)
    return numbers


class _Peaks:
    """`most_clumped` and `observe_tails` for several groupings of the same tokens, looked at once."""

    def __init__(self, over: Tensor, guesses: Sequence[Tensor]) -> None:
        self._fired = {id(fired.group): fired.number for fired in firings(over, guesses)}
        self._top, self._column = largest_margins(over, max(LEAST_TAIL, ceil(TOP * over.shape[1])) + 1)

    def most_clumped(self, groups: Groups) -> Margins:
        """The margins under the guess with the largest design effect."""

        def effect(group: Tensor) -> float:
            return design_effect(self._fired[id(group)], torch.bincount(group))

        group = max(groups.guesses, key=effect) if len(groups.guesses) > 1 else groups.guesses[0]
        fired, top, column = self._fired[id(group)], self._top, self._column[:, :-1]
        if bool(((fired > 0).sum(dim=1) > 1).all()):
            top, column = top[:, :1], column[:, :0]
        return Margins(
            excess=(top[:, :-1] - top[:, -1:]).double(),
            level=top[:, -1].double(),
            group=group[column],
            fired=fired,
            sizes=torch.bincount(group),
        )


def _judge(said: NDArray[Any], true: float) -> dict[str, float]:
    judged: dict[str, float] = {}
    slack = 1 / D_SAE  # one latent
    for when, columns in (("", said[:, :3]), ("unassumed_", said[:, 4:])):
        value, low, high = columns.T
        error = value - true
        judged |= {
            f"{when}bias": float(error.mean()),
            f"{when}mean_error": float(np.abs(error).mean()),
            f"{when}worst": float(np.abs(error).max()),
            f"{when}holds": float(((low - slack <= true) & (true <= high + slack)).mean()),
            f"{when}width": float((high - low).mean()),
        }
    return {**judged, "effective_tokens": float(said[:, 3].mean())}


def severity_rows(layer: Layer, draws: Sequence[list[Drawn]]) -> Iterator[Row]:
    """The rows of the intervals of gamma and rank."""
    whole = collect(layer.tokens)
    true = {
        "gamma": gamma(whole.normed),
        "gamma_raw": gamma(whole.raw),
        "effective_rank": effective_rank(torch.linalg.eigvalsh(whole.normed.covariance)),
    }
    said: dict[tuple[str, str], list[dict[str, tuple[float, ...]]]] = {}
    for drawn in (drawn for pair in draws for drawn in pair):
        statistics = collect(layer.tokens[drawn.places])
        for store, groups in drawn.groups.items():
            said.setdefault((drawn.origin, store), []).append(_intervals(statistics, groups))
    for (origin, store), intervals in said.items():
        of = {name: _coverage(np.array([one[name] for one in intervals]), true[name]) for name in true}
        yield {**layer.about(), "from": origin, "store": store, "draws": len(intervals), "severity": of}


def _intervals(statistics: Statistics, groups: Groups) -> dict[str, tuple[float, ...]]:
    """{name: (value, low, high), and low, high if nothing is assumed}, as `severity` says them."""
    sample, spectrum = statistics.sample, Spectrum.of(statistics.normed.covariance)
    values = {
        "gamma": gamma(statistics.normed),
        "gamma_raw": gamma(statistics.raw),
        "effective_rank": effective_rank(spectrum.eigenvalues),
    }
    normed_sample = layer_norm(sample)
    ends: dict[str, tuple[float, ...]] = {}
    for of in (groups, replace(groups, least_effect=1.0)) if groups.least_effect > 1 else (groups,):
        intervals = (
            _gamma_interval(normed_sample, statistics.normed, of),
            _gamma_interval(sample, statistics.raw, of),
            _rank_interval(normed_sample, statistics, spectrum, values["effective_rank"], of),
        )
        for name, interval in zip(values, intervals, strict=True):
            ends[name] = (*ends.get(name, ()), *interval)
    return {name: (value, *(ends[name] * 2)[:4]) for name, value in values.items()}


def _coverage(said: NDArray[Any], true: float) -> dict[str, float]:
    judged = {"true": true, "relative_bias": float(said[:, 0].mean() / true - 1)}
    for when, (low, high) in (("", said.T[1:3]), ("unassumed_", said.T[3:5])):
        judged[f"{when}holds"] = float(((low <= true) & (true <= high)).mean())
        judged[f"{when}relative_width"] = float((high - low).mean() / true)
    return judged


def merged(old: Row, new: Row) -> Row:
    """The row of the draws of both."""
    weights = old["draws"], new["draws"]

    def of_both(name: str, one: Any, other: Any) -> Any:
        if isinstance(one, dict):
            return {key: of_both(key, value, other[key]) for key, value in one.items()}
        if isinstance(one, str) or one == other:
            return one
        return max(one, other) if name.endswith("worst") else float(np.average((one, other), weights=weights))

    return {**of_both("", old, new), "draws": sum(weights)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    every = [f"{network}.{layers[place]}" for place in (0, 1) for network, layers in LAYERS.items()]
    every += [f"{network}.{layer}" for network, layers in APART.items() for layer in layers]
    parser.add_argument("--layers", default=",".join(every))
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "resampling.json")
    asked = parser.parse_args()
    rows = read_rows(asked.out)
    for name in asked.layers.split(","):
        kept = {tuple(row.get(key) for key in KEY): row for row in rows if row["layer"] == name}
        first = min((row["draws"] for row in kept.values()), default=0)
        if first >= asked.draws:
            continue
        start, layer = time.monotonic(), Layer.read(asked.folder, name, asked.tokens)
        draws = [layer.draw(number) for number in range(first, asked.draws)]
        new = {
            tuple(row.get(key) for key in KEY): row
            for row in (*severity_rows(layer, draws), *death_rows(layer, draws))
        }
        rows = [row for row in rows if row["layer"] != name]
        rows += [merged(kept[key], row) if key in kept else row for key, row in new.items()]
        write_rows(asked.out, rows)
        print(f"{name}: draws {first} to {asked.draws}, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
