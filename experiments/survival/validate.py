"""The forecast of death at birth against the count: every layer of any folders of activations, raw and centered.

    python -m experiments.survival.validate FOLDER ... [--layers hs1,hs2] [--out results/validation.json]
        [--samples 4096] [--followed 2048]

From 4,096 tokens, drawn at random, death is forecast for the whole folder (100,000 tokens, say) and for 24,576 of
its tokens, evenly spaced, and the same SAE is counted on them. A row says model, layer, remedy, n, k, sample,
tokens, counted, predicted, low, high and closed_form, in fractions, and what the rivals say. Rows in the file stay.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from experiments.rows import read_rows, write_rows
from experiments.survival.rivals import RIVALS
from torch import Tensor

from autopsae import Remedy, open_layers
from autopsae.activations.store import Activations
from autopsae.arrays import chunks
from autopsae.diagnosis.severity import gamma
from autopsae.remedies import center, untouched
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import TopK
from autopsae.statistics import geometric_median
from autopsae.statistics.moments import Moments, layer_norm
from autopsae.statistics.sample import Reservoir
from autopsae.survival import measure_birth, predicted_dead
from autopsae.survival.forecast import forecast
from autopsae.survival.margins import margins

HERE = Path(__file__).parent
D_SAE, K, FEWER = 8192, 64, 24_576


def drawn(tokens: Activations, size: int) -> Tensor:
    """A random sample of the layer's tokens."""
    reservoir, start = Reservoir(size), 0
    for x in chunks(tokens):
        reservoir.add(x, start)
        start += len(x)
    return reservoir.tokens()


def remedies(sample: Tensor) -> list[Remedy]:
    """Raw, and centered by the geometric median of the sample."""
    return [untouched(sample.shape[1]), center(geometric_median(sample.double()), "median")]


def counted(tokens: Activations, remedy_list: Sequence[Remedy]) -> dict[str, tuple[float, float]]:
    """By remedy, (dead, dead-by-ReLU) of the drawn SAE on all of the tokens."""
    generator = torch.Generator().manual_seed(0)
    births = measure_birth(tokens, remedy_list, d_sae=D_SAE, k=K, generator=generator)
    return {name: (birth.dead, birth.dead_by_relu) for name, birth in births.items()}


def encoder(sample: Tensor, remedy: Remedy) -> tuple[Tensor, Tensor]:
    """(what the drawn SAE sees of the sample, its rows): the SAE that `counted` counts."""
    view = remedy.enters(sample)
    rows = view.rows(draw_rows(D_SAE, sample.shape[1], generator=torch.Generator().manual_seed(0)))
    return view.seen.to(rows), rows


def rows_of(
    model: str, layer: str, tokens: Activations, samples: Sequence[int], followed: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """The rows of one layer; smaller samples are evenly spaced tokens of the largest one."""
    whole = drawn(tokens, max(samples))
    listed = remedies(whole)
    severity = gamma(Moments.of(layer_norm(whole.double())))
    totals = {number: counted(tokens.take(number), listed) for number in (FEWER, tokens.tokens)}
    for remedy, size, latents in product(listed, samples, followed):
        centered = remedy.name != "none"
        sample = whole[torch.arange(size) * len(whole) // size]
        y, W = encoder(sample, remedy)
        found = forecast(y, W, TopK(k=K), stream_tokens=tokens.tokens, followed=latents)
        over = margins(y, W, TopK(k=K), b_enc=None, threshold=None, followed=D_SAE).over
        for number, count in totals.items():
            dead, relu = found.dead(number), found.dead_by_relu(number)
            yield {
                "model": model,
                "layer": layer,
                "remedy": remedy.name,
                "n": D_SAE,
                "k": K,
                "sample": size,
                "followed": latents,
                "tokens": number,
                "counted": count[remedy.name][0],
                "predicted": dead.value,
                "low": dead.low,
                "high": dead.high,
                # Centered tokens have no shift, and gamma is zero.
                "closed_form": predicted_dead(0.0 if centered else severity, number, d_sae=D_SAE, k=K),
                "gamma": severity,
                "counted_relu": count[remedy.name][1],
                "predicted_relu": relu.value,
                "low_relu": relu.low,
                "high_relu": relu.high,
                "shape": found.fires.whole.shape,
                "effective_tokens": found.effective_tokens,
                "rivals": {name: estimate(over, number) for name, estimate in RIVALS.items()},
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--layers", default="", help="names, comma-separated; all by default")
    parser.add_argument("--samples", default="4096")
    parser.add_argument("--followed", default="2048")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "validation.json")
    asked = parser.parse_args()
    samples, followed = ([int(word) for word in words.split(",")] for words in (asked.samples, asked.followed))
    rows = read_rows(asked.out)
    done = {(row["model"], row["layer"]) for row in rows}
    for folder in asked.folders:
        layers = open_layers(folder)
        for layer in asked.layers.split(",") if asked.layers else layers:
            if (folder.name, layer) in done:
                continue
            before = len(rows)
            rows += rows_of(folder.name, layer, layers[layer], samples, followed)
            write_rows(asked.out, rows)
            for row in rows[before:]:
                interval = f"{row['predicted']:.2%} ({row['low']:.2%} to {row['high']:.2%})"
                print(
                    row["model"], layer, row["remedy"], row["tokens"], f"{row['counted']:.2%}", interval, flush=True
                )


if __name__ == "__main__":
    main()
