"""The diagnosis of one layer (100,000 tokens, d_in 576, d_sae 8192, five remedies) against its encoder products.

The five remedies need three distinct products (no remedy and the two centres share one); a plain diagnosis would
make five. Both are timed over all tokens, in blocks of the same size, interleaved with the diagnosis. On a mild
layer remedies are settled early (every latent has fired), so a severe one is timed too, where most stay dead. With
`exact=False`, births are estimated from the sample, as the command line does unless it is told --exact.
Run as `python -m benchmarks.birth`.
"""

from functools import partial
from typing import Any

import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.diagnosis.diagnose import diagnose
from autopsae.sae.init import draw_rows
from benchmarks.harness import interleaved, save

TOKENS, D_IN, D_SAE, K, ROUNDS, BLOCK = 100_000, 576, 8192, 64, 3, 512
CASES: dict[str, dict[str, Any]] = {
    "stray tokens": {"gamma": 1.0, "spectrum": 0.7, "outlier_fraction": 0.008, "outlier_norm": 30.0},
    "severe": {"gamma": 6.0, "spectrum": 1.5, "outlier_fraction": 0.0, "outlier_norm": 0.0},
}


def products(x: torch.Tensor, W: torch.Tensor, times: int) -> None:
    pre = torch.empty(BLOCK, len(W))
    for block in x.split(BLOCK):
        for _ in range(times):
            torch.mm(block, W.T, out=pre[: len(block)])


def main() -> None:
    W = draw_rows(D_SAE, D_IN, generator=torch.Generator().manual_seed(1))
    cases = {}
    for name, options in CASES.items():
        x = gaussian_tokens(TOKENS, D_IN, **options, tail=8, generator=torch.Generator().manual_seed(0))
        # acceptable=1: the five remedies only, no escalation.
        found = diagnose(x, d_sae=D_SAE, k=K, acceptable=1.0)
        seconds = interleaved(
            {
                "diagnosis": partial(diagnose, x, d_sae=D_SAE, k=K, acceptable=1.0),
                "estimated": partial(diagnose, x, d_sae=D_SAE, k=K, acceptable=1.0, exact=False),
                "three products": partial(products, x, W, 3),
                "five products": partial(products, x, W, 5),
            },
            ROUNDS,
        )
        cases[name] = {
            "dead": {remedy: round(birth.dead, 4) for remedy, birth in found.birth.items()},
            "seconds": {who: round(value, 1) for who, value in seconds.items()},
            "of_three_products": round(seconds["diagnosis"] / seconds["three products"], 2),
            "estimated_of_three_products": round(seconds["estimated"] / seconds["three products"], 2),
            "of_five_products": round(seconds["diagnosis"] / seconds["five products"], 2),
        }
    save("birth", {"tokens": TOKENS, "d_in": D_IN, "d_sae": D_SAE, "k": K, "cases": cases})


if __name__ == "__main__":
    main()
