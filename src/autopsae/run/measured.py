"""What held-out tokens say of an SAE, as a run writes it."""

from dataclasses import dataclass
from typing import Any

from autopsae.evaluation.reconstruction import Evaluation


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What held-out tokens say after `step` (from 0). Fractions in [0, 1]; dead = dead_by_relu + dead_by_topk,
    counted on `dead_tokens` tokens; FVU None where the tokens do not differ.
    """

    step: int
    dead: float
    dead_tokens: int
    dead_by_relu: float
    dead_by_topk: float
    fvu_raw: float | None
    fvu_typical: float | None
    strays: float
    mse_raw: float
    l0: float
    tokens: int
    bias_captured: float


def numbers_of(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation, as in `HeldOut`."""
    fates = evaluation.fates
    return {
        "dead": fates.dead,
        "dead_tokens": fates.tokens,
        "dead_by_relu": fates.dead_by_relu,
        "dead_by_topk": fates.dead_by_topk,
        "fvu_raw": evaluation.fvu_raw,
        "fvu_typical": evaluation.fvu_typical,
        "strays": evaluation.strays,
        "mse_raw": evaluation.mse_raw,
        "l0": evaluation.l0,
        "tokens": evaluation.tokens,
        "bias_captured": evaluation.bias_captured,
    }
