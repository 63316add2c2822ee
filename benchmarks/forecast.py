"""The forecast of death (4,096 tokens, d_in 576, d_sae 8192, k 64) against encoding its sample: product and top-k.

The fit alone, for 8,192 followed latents, is timed too. A layer that centering cured is timed beside a severe one,
where tails have to be fitted by both pathways. Run as `python -m benchmarks.forecast`.
"""

from functools import partial
from typing import Any

import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import TopK
from autopsae.statistics.groups import GROUPS
from autopsae.survival.forecast import forecast
from autopsae.survival.margins import margins
from autopsae.survival.tails import observe_tails
from benchmarks.harness import interleaved, save

TOKENS, D_IN, D_SAE, K, ROUNDS, BLOCK = 4096, 576, 8192, 64, 5, 512
CASES: dict[str, dict[str, Any]] = {
    "cured": {"gamma": 0.0, "spectrum": 0.7},
    "low rank": {"gamma": 0.0, "spectrum": 1.5},
    "severe": {"gamma": 6.0, "spectrum": 0.7},
}


def encode(x: torch.Tensor, W: torch.Tensor) -> None:
    """The codes of the sample, as a TopK SAE selects them."""
    for block in x.split(BLOCK):
        torch.topk(block @ W.T, K, dim=1)


def main() -> None:
    W = draw_rows(D_SAE, D_IN, generator=torch.Generator().manual_seed(1))
    cases = {}
    for name, options in CASES.items():
        x = gaussian_tokens(TOKENS, D_IN, **options, tail=8, generator=torch.Generator().manual_seed(0))
        all_ = margins(x, W, TopK(k=K), b_enc=None, threshold=None, followed=D_SAE)
        group = all_.order * GROUPS // len(x)
        seconds = interleaved(
            {
                "encoding": partial(encode, x, W),
                "forecast": partial(forecast, x, W, TopK(k=K)),
                "forecast, all followed": partial(forecast, x, W, TopK(k=K), followed=D_SAE),
                "tails of 8,192 latents": partial(observe_tails, all_.over, group),
                "fit of 8,192 latents": partial(observe_tails(all_.over, group).tail),
            },
            ROUNDS,
        )
        found = forecast(x, W, TopK(k=K)).at(1_000_000)
        cases[name] = {
            "dead": round(found.dead.value, 4),
            "relu": round(found.dead_by_relu.value, 4),
            "seconds": {who: round(value, 3) for who, value in seconds.items()},
            "of_encoding": round(seconds["forecast"] / seconds["encoding"], 2),
            "of_encoding_all_followed": round(seconds["forecast, all followed"] / seconds["encoding"], 2),
        }
    save("forecast", {"tokens": TOKENS, "d_in": D_IN, "d_sae": D_SAE, "k": K, "cases": cases})


if __name__ == "__main__":
    main()
