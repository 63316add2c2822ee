"""`recovery`: how many latents that are born dead-by-ReLU will training make positive again?

A latent that is never positive gets no gradient from the reconstruction or from AuxK. Its own weights stay as they
are, and only a move of `b_dec` can make it positive. This gives two answers:

- a bound: an Adam step moves a coordinate of `b_dec` by about the learning rate at most;
- an expectation: a model with four constants, fitted to trainings on synthetic tokens (docs/forecast.md).

Names in formulas: mu is the mean of the tokens, sigma the vector of their standard deviations per dimension,
gamma = ||mu|| / ||sigma||, and m is the number of dimensions over which the mean is spread (`_dimensions`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import exp, inf, sqrt
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, matrix
from autopsae.sae.sparsity import ReLU
from autopsae.sae.weights import PARAMETERS
from autopsae.survival.closed_form import predicted_dead_by_relu
from autopsae.survival.forecast import forecast
from autopsae.tables import Result

SPEED_ALONE = 0.9
"""Distance that a coordinate of `b_dec` moves in a step if encoder and decoder are frozen, in learning rates."""

SPEED_WITH_FEATURES = 0.06
"""The same distance if the features learn too, in units of sqrt(gamma) / m learning rates. It is smaller, because
the features soon reconstruct the mean and leave `b_dec` little gradient."""

PUSH_SCALE = 0.3
"""Collateral death: a step that moves pre-activations by this many standard deviations pushes a share 1 - 1/e of
the living latents under zero (`_share_pushed_under_zero`)."""

COLLAPSE_TIME = 0.5
"""The features lose their part of the mean, which is called the collapse, about when lr * steps reaches this many
times ||mu||. Collateral death happens then."""

_TIME_STEPS = 400
"""Number of time steps in which the movement of `b_dec` is computed."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Recovery(Result):
    """How many latents are expected to be dead-by-ReLU after training.

    Fractions are of all latents. Lengths are in the SAE's space (`SAE.enter`).
    """

    lr: float
    """Learning rate of the training."""
    steps: int
    """Number of steps of the training."""
    travel: float
    """lr * steps, or 0 if `b_dec` is frozen: the largest distance that a coordinate of `b_dec` can move."""
    distance: float
    """The largest coordinate of the mean, as an absolute value: the distance that `b_dec` has to move."""
    captured: float
    """Expected share of the mean that `b_dec` has reached at the end: b_dec . mu / ||mu||^2."""
    captured_at_most: float
    """The largest share of the mean that `b_dec` can reach: travel ||mu||_1 / ||mu||^2, at most 1."""
    born: float
    """Fraction of the latents that are dead-by-ReLU at birth."""
    at_least: float
    """Fraction of the latents that no `b_dec` within `travel` makes positive: a lower bound for those that are born
    dead-by-ReLU and end so."""
    unrecovered: float
    """Fraction of the latents that are born dead-by-ReLU and expected to be dead-by-ReLU at the end."""
    collateral: float
    """Fraction of the latents that are positive at birth, and that training is expected to push under zero for good
    (collateral death: paper, App. C.1)."""

    @property
    def dead_by_relu(self) -> float:
        """Fraction of the latents expected to be dead-by-ReLU at the end: unrecovered + collateral."""
        return self.unrecovered + self.collateral

    def __str__(self) -> str:
        after = f"after {self.steps:,} steps at a learning rate of {self.lr:g}"
        return f"{self.born:.1%} are born dead-by-ReLU, and {self.dead_by_relu:.1%} are expected to be {after}"


@torch.no_grad()
@whole_arguments("steps", "tokens")
def recovery(
    y: Float[Tensor, "sample d_in"] | NDArray[Any],
    W: Float[Tensor, "d_sae d_in"],
    *,
    lr: float,
    steps: int,
    tokens: int | None = None,
    frozen: Collection[str] = (),
) -> Recovery:
    """Forecast which fraction of the latents is dead-by-ReLU after training with Adam, for a TopK SAE that starts
    with encoder rows W and b_dec = 0.

    The bound `at_least` counts a latent i if max_y W_i . y + lr * steps * ||W_i||_1 <= 0, where the maximum is over
    the tokens. It holds while each step of Adam is at most `lr`; a coordinate that rarely has a gradient can move
    further. The expectation is the model of docs/forecast.md, section "Recovery".

    y: a sample of at least 40 tokens in the SAE's space, before `b_dec` is subtracted, as for `forecast`.
    tokens: the number of tokens on which latents are dead-by-ReLU (default: the size of the sample).
    frozen: names of parameters that are not trained, as in TrainConfig.frozen. "b_dec" means that nothing recovers;
        "W_enc" means that `b_dec` moves faster, and that there is no collateral death.

    Raises InputError for a negative `lr` or `steps`, for a sample that is no finite matrix, and for fewer than 40
    tokens in it.
    """
    if not (lr >= 0 and steps >= 0):
        raise InputError(f"recovery: expected lr and steps of at least 0, got {lr:g} and {steps}")
    if isinstance(frozen, str) or not {*frozen} <= {*PARAMETERS}:
        raise InputError(f"recovery: expected frozen as a collection of {', '.join(PARAMETERS)}, got {frozen!r}")
    return recovery_of(matrix(y).to(W), W, lr=lr, steps=steps, tokens=tokens, frozen=frozen)


def recovery_of(
    y: Float[Tensor, "sample d_in"],
    W: Float[Tensor, "d_sae d_in"],
    *,
    lr: float,
    steps: int,
    tokens: int | None = None,
    frozen: Collection[str] = (),
) -> Recovery:
    """`recovery` for arguments that have been checked."""
    tokens, travel = tokens or len(y), 0.0 if "b_dec" in frozen else lr * steps
    mean, spread = y.mean(dim=0), float(y.std(dim=0).norm())
    gamma = float(mean.norm()) / spread if spread else inf
    bias_lr = 0.0 if "b_dec" in frozen else lr
    remaining = _remaining_mean(mean, spread, lr=bias_lr, steps=steps, alone="W_enc" in frozen)
    # b_dec = mean - remaining at the end. Subtracting it shifts each pre-activation by W (remaining - mean).
    dead_at_end = _dead_by_relu(y, W, (W @ remaining) - (W @ mean), tokens)
    born = _dead_by_relu(y, W, None, tokens)
    # Of the latents that are pushed under zero, the share that stays there is taken from the closed form: the
    # dead-by-ReLU fraction at the gamma of the end over that at the gamma of the beginning.
    gamma_at_end = float(remaining.norm()) / spread if spread else inf
    staying = _ratio(predicted_dead_by_relu(gamma_at_end, tokens), predicted_dead_by_relu(gamma, tokens))
    pushed = 0.0 if "W_enc" in frozen else _share_pushed_under_zero(mean, spread, lr=lr, steps=steps)
    square = float(mean.square().sum())
    return Recovery(
        lr=lr,
        steps=steps,
        travel=travel,
        distance=float(mean.abs().max()),
        captured=1 - _ratio(float(remaining @ mean), square),
        captured_at_most=min(1.0, _ratio(travel * float(mean.abs().sum()), square)),
        born=born,
        # No b_dec within `travel` raises the pre-activation of latent i by more than travel ||W_i||_1.
        at_least=_dead_by_relu(y, W, travel * W.abs().sum(dim=1), tokens),
        unrecovered=min(dead_at_end, born),
        collateral=(1 - born) * pushed * staying,
    )


def _remaining_mean(
    mean: Float[Tensor, "d_in"], spread: float, *, lr: float, steps: int, alone: bool
) -> Float[Tensor, "d_in"]:
    """The mean minus `b_dec` at the end of training.

    All coordinates of `b_dec` move at the same speed, each towards the mean, and stop when they reach it. If the
    features learn too (not `alone`), the speed falls with gamma of the remaining mean, and is lower for a mean that
    is spread over more dimensions. spread: ||sigma||.
    """
    remaining = mean.clone()
    dimensions = _dimensions(mean)
    for _ in range(_TIME_STEPS):
        gamma = _ratio(float(remaining.norm()), spread)
        speed = SPEED_ALONE if alone else min(SPEED_ALONE, SPEED_WITH_FEATURES * sqrt(gamma) / dimensions)
        moved = lr * steps / _TIME_STEPS * speed
        remaining = remaining.sign() * (remaining.abs() - moved).clamp_min(0)
    return remaining


def _share_pushed_under_zero(mean: Float[Tensor, "d_in"], spread: float, *, lr: float, steps: int) -> float:
    """Share of the living latents that are pushed under zero when the features that carry the mean shrink.

    It is (1 - exp(-push / PUSH_SCALE)) (1 - exp(-(lr steps / (COLLAPSE_TIME ||mu||))^2)). The first factor grows
    with push, the distance by which a step moves pre-activations along the mean, in standard deviations of their
    signal (||sigma|| / sqrt(d_in)). The second factor is the share of the collapse that has happened by the end.
    """
    push = _ratio(lr * float(mean.norm()) * sqrt(_dimensions(mean) * len(mean)), spread)
    time = _ratio(lr * steps, COLLAPSE_TIME * float(mean.norm()))
    return (1 - exp(-push / PUSH_SCALE)) * (1 - exp(-(time**2)))


def _dimensions(mean: Float[Tensor, "d_in"]) -> float:
    """m = (sum mu^2)^2 / sum mu^4, the number of dimensions over which the mean is spread (participation ratio).

    It is at least 1. It is 1 if one coordinate holds the whole mean, and d_in if all coordinates are equal.
    """
    return max(1.0, _ratio(float(mean.square().sum()) ** 2, float(mean.pow(4).sum())))


def _dead_by_relu(
    y: Float[Tensor, "sample d_in"],
    W: Float[Tensor, "d_sae d_in"],
    shift: Float[Tensor, "d_sae"] | None,
    tokens: int,
) -> float:
    """Fraction of the latents expected dead-by-ReLU on `tokens` tokens. shift: added to the pre-activations."""
    # For ReLU a margin is the pre-activation itself.
    return forecast(y, W, ReLU(), b_enc=shift).dead_by_relu(tokens).value


def _ratio(a: float, b: float) -> float:
    """a / b, and 0 if b is 0."""
    return a / b if b else 0.0
