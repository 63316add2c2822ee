"""The paper's closed forms against its own layers, and the forecast against them on Gaussian tokens.

    python -m experiments.survival.closed_form      # about a minute on one thread

Kept: `results/closed_form.json`. `layers`: mean |closed form - count|, in fractions, over the layers of the table
that the authors released. `gaussian`: for Gaussian tokens, which the closed form assumes, the forecast from 4,096
tokens and the closed form at 50,000, 100,000 and 1,000,000 tokens, and the count on 50,000.
"""

import csv
import json
from pathlib import Path
from typing import Any

import torch

from autopsae import TopK
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.files import write_text
from autopsae.remedies import untouched
from autopsae.survival import forecast_births, measure_birth, predicted_dead

HERE = Path(__file__).parent
RELEASED = HERE.parent / "outliers_2605_31518" / "authors" / "init_stats.csv"
TOKENS, D_SAE, K = 100_000, 8192, 64
"""Of the released table, and of the Gaussian tokens."""

GAMMAS, D_IN, SAMPLE, COUNTED = (3.5, 5.0, 8.0, 15.0, 30.0), 512, 4096, 50_000
ASKED = (COUNTED, TOKENS, 1_000_000)


def layers() -> dict[str, float]:
    """How far off the closed forms are on average over the released layers."""
    with RELEASED.open() as file:
        rows = list(csv.DictReader(file))
    off: dict[str, list[float]] = {"topk": [], "relu": []}
    for row in rows:
        gamma = float(row["gamma"])
        said = {"topk": predicted_dead(gamma, TOKENS, d_sae=D_SAE, k=K), "relu": dead_by_relu(gamma, TOKENS)}
        for pathway, value in said.items():
            off[pathway].append(abs(value - float(row[f"dead_pct_init_{pathway}"]) / 100))
    return {"layers": len(rows), **{pathway: sum(each) / len(each) for pathway, each in off.items()}}


def gaussian(gamma: float) -> dict[str, Any]:
    """Forecast, closed form and count at one gamma."""
    x = gaussian_tokens(COUNTED, D_IN, gamma, generator=torch.Generator().manual_seed(0))
    remedies = [untouched(D_IN)]
    counted = measure_birth(x, remedies, d_sae=D_SAE, k=K, generator=torch.Generator().manual_seed(0))["none"]
    [found] = forecast_births(
        x[:SAMPLE], remedies, TopK(k=K), d_sae=D_SAE, generator=torch.Generator().manual_seed(0)
    ).values()
    return {
        "gamma": gamma,
        "counted": {str(COUNTED): counted.dead},
        "forecast": {str(tokens): found.dead(tokens).value for tokens in ASKED},
        "closed_form": {str(tokens): predicted_dead(gamma, tokens, d_sae=D_SAE, k=K) for tokens in ASKED},
    }


def main() -> None:
    released = layers()
    print(
        f"{released['layers']} released layers: the closed form is {released['topk']:.1%} (TopK) and "
        f"{released['relu']:.1%} (ReLU) of the latents off on average"
    )
    rows = []
    for gamma in GAMMAS:
        rows.append(gaussian(gamma))
        print(json.dumps(rows[-1]), flush=True)
    write_text(
        HERE / "results" / "closed_form.json", json.dumps({"layers": released, "gaussian": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
