"""What held-out tokens say of an SAE, as a run writes it."""

from dataclasses import dataclass
from typing import Any

from autopsae.evaluation.reconstruction import Evaluation


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What held-out tokens say after `step` (from 0). Fractions in [0, 1]; dead = relu + topk, counted on
    `dead_tokens` tokens; FVU None where the tokens do not differ.
    """

    step: int
    dead: float
    dead_tokens: int
    relu: float
    topk: float
    fvu_raw: float | None
    fvu_typical: float | None
    strays: float
    mse_raw: float
    l0: float
    tokens: int
    bias_captured: float


def measured(found: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation: dead = relu + topk, on `dead_tokens` tokens; FVU with and without strays; l0,
    bias_captured.
    """
    fates = found.fates
    return {
        "dead": fates.dead,
        "dead_tokens": fates.tokens,
        "relu": fates.relu,
        "topk": fates.topk,
        "fvu_raw": found.fvu_raw,
        "fvu_typical": found.fvu_typical,
        "strays": found.strays,
        "mse_raw": found.mse_raw,
        "l0": found.l0,
        "tokens": found.tokens,
        "bias_captured": found.bias_captured,
    }
