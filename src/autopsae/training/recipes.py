"""Settings that were published together: a sparsity, how such an SAE is born, and how it is trained.

The defaults of this library suit layers that are scaled; recipes are for comparing with what others report.
Learning rate, steps and batches stay yours:

    recipe = jumprelu_paper()
    sae = born(prescription, sparsity=recipe.sparsity, sample=tokens, **recipe.birth)
    train(sae, tokens, TrainConfig(steps=100_000, lr=3e-4, **recipe.training))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopsae.arguments import check_whole, whole_arguments
from autopsae.arrays import InputError
from autopsae.sae.sparsity import JumpReLU, ReLU, Sparsity
from autopsae.training.objective import L1, L0Target


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was published together."""

    sparsity: Sparsity
    """Which latents fire."""
    birth: Mapping[str, Any]
    """Arguments of `born`."""
    training: Mapping[str, Any]
    """Settings of `TrainConfig`."""


def jumprelu_paper(*, l0: float = 64.0) -> Recipe:
    """JumpReLU as in Simon, Adams and Zou 2026 (App. A.2, Table S4): thresholds begin at 0.001, the bandwidth is
    0.001, and the penalty is 1 * (L0 / l0 - 1)^2 (Rajamanoharan et al. 2024, Eq. 16), beside the squared error
    summed over dimensions and averaged over tokens.

    Thresholds and bandwidth are in the unit in which the SAE works: the scaled one, or, as in the paper, that of
    the raw tokens with `born(..., scaled=False)`. About half of the latents fire on a token at birth.

    Raises InputError for l0 that is not over zero.
    """
    return Recipe(
        sparsity=JumpReLU(start=0.001, bandwidth=0.001),
        birth={"encoder_bias": True},
        training={"penalty": L0Target(l0=l0, coefficient=1.0, times_d_in=False)},
    )


@whole_arguments("steps")
def relu_lindsey(*, steps: int, l1: float = 5.0) -> Recipe:
    """ReLU as in "Update on how we train SAEs" (Transformer Circuits, April 2024), which
    Simon, Adams and Zou 2026 (App. A.2) name for their ReLU SAEs.

    Decoder rows have any length, and the L1 penalty weighs each code by the length of its row: the penalty does not
    fall where codes shrink and rows grow. The coefficient `l1` rises from 0 over the first 5 % of the steps, the
    learning rate falls to 0 over the last 20 %, and the norm of the gradient is clipped to 1. The tokens are scaled
    to a norm of about sqrt(d_in), as `born` does. Other than in code that follows the update, rows begin at unit
    length (there 0.1), and the encoder subtracts `b_dec` too (there it does not).

    The numbers are not verified against the source; they are those of code that names it as its source. In
    dictionary_learning, `StandardTrainerAprilUpdate` has free rows, the weighted penalty and the clipping to 1, and
    the earlier `StandardTrainerNew` the 5 % and the 20 % (1,500 steps, and from step 24,000 of 30,000). The
    coefficient 5 is from other code and a tutorial; dictionary_learning's default is 0.1. Learning rate and Adam's
    betas are no part of this recipe.

    Raises InputError for less than one step and a coefficient under zero.
    """
    check_whole("steps", steps, least=1, most=2**53)
    return Recipe(
        sparsity=ReLU(),
        birth={"encoder_bias": True},
        training={
            "penalty": L1(coefficient=l1, warmup_steps=round(0.05 * steps)),
            "decay_steps": round(0.2 * steps),
            "clip_norm": 1.0,
            "unit_decoder": False,
        },
    )


def paper_recipe(sparsity: str, *, l0: float, l1: float | None, steps: int) -> Recipe:
    """The recipe of a sparsity by its name, for the command line. l1: None for that of the recipe.

    Raises InputError for a sparsity that has none.
    """
    if sparsity == "jumprelu":
        return jumprelu_paper(l0=l0)
    if sparsity == "relu":
        return relu_lindsey(steps=steps) if l1 is None else relu_lindsey(steps=steps, l1=l1)
    raise InputError(
        "recipe: expected the sparsity jumprelu or relu, whose published settings are other than the defaults, "
        f"got {sparsity}; leave the recipe out"
    )
