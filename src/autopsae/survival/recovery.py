"""Will training revive them? How far `b_dec` can travel, and how many latents that leaves dead-by-ReLU.

A latent that is never positive has no gradient from the reconstruction or AuxK, so its weights stay, and only
`b_dec` can bring it back. An Adam step moves a coordinate by about the learning rate at most. That is a bound. What
is expected is a model with four constants, fitted to recovery on synthetic tokens (docs/forecast.md).
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
from autopsae.survival.closed_form import predicted_dead_by_relu
from autopsae.survival.forecast import forecast
from autopsae.tables import Result

ALONE = 0.9
"""Speed of `b_dec` where the features are frozen, as a share of the learning rate."""

BESIDE = 0.06
"""Its speed beside features that learn and carry the mean, over sqrt(gamma) / (dimensions of the mean)."""

PUSH = 0.3
"""A step that moves pre-activations by so many standard deviations along the mean drowns 1 - 1/e of the living."""

COLLAPSE = 0.5
"""The features' share of the mean has collapsed when lr * steps is well over this part of the mean's norm."""

_MOMENTS = 400  # at which the bias's way is computed


@dataclass(frozen=True, kw_only=True, repr=False)
class Recovery(Result):
    """What training leaves dead-by-ReLU. Fractions are of all latents, lengths in the SAE's units (`SAE.enter`)."""

    lr: float
    """Learning rate of the training that is asked about."""
    steps: int
    """Its number of steps."""
    travel: float
    """lr * steps: the furthest that a coordinate of `b_dec` gets."""
    distance: float
    """The mean's largest coordinate: where `b_dec` has to get."""
    captured: float
    """Expected share of the mean that `b_dec` has taken over at the end, b . mu / ||mu||^2."""
    captured_at_most: float
    """The largest share that is within reach."""
    born: float
    """Fraction dead-by-ReLU at birth."""
    at_least: float
    """Fraction that was born dead-by-ReLU and that no bias within reach makes positive."""
    unrecovered: float
    """Fraction that was born dead-by-ReLU and is expected to be so at the end."""
    collateral: float
    """Fraction that is expected to be pushed under zero by training and to stay there (paper App. C.1)."""

    @property
    def dead_by_relu(self) -> float:
        """Expected dead-by-ReLU at the end."""
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
    """How training with Adam at `lr` would change the dead-by-ReLU of a TopK SAE with encoder rows W and b_dec = 0.

    y: a sample as for `forecast`, in the SAE's units, before any centering by `b_dec`; tokens: on how many death is
    asked (default: the sample); frozen: as TrainConfig.frozen, where "b_dec" and "W_enc" matter. The bound counts a
    latent as lost if max_y W_i . y + lr * steps * ||W_i||_1 <= 0. It holds for plain steps; a gradient that is rare
    can move Adam further than lr in a step.

    Raises InputError for lr or steps under zero, for tokens as `chunks`, and for a sample too small.
    """
    if not (lr >= 0 and steps >= 0):
        raise InputError(f"recovery: expected lr and steps of at least 0, got {lr:g} and {steps}")
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
    """As `recovery`, of arguments that have been checked."""
    tokens, travel = tokens or len(y), 0.0 if "b_dec" in frozen else lr * steps
    mean, spread = y.mean(dim=0), float(y.std(dim=0).norm())
    gamma = float(mean.norm()) / spread if spread else inf
    left = _remaining_mean(mean, spread, lr=0.0 if "b_dec" in frozen else lr, steps=steps, alone="W_enc" in frozen)
    gone = _dead(y, W, (W @ left) - (W @ mean), tokens)
    born = _dead(y, W, None, tokens)
    gamma_left = float(left.norm()) / spread if spread else inf
    lasting = _ratio(predicted_dead_by_relu(gamma_left, tokens), predicted_dead_by_relu(gamma, tokens))
    drowned = 0.0 if "W_enc" in frozen else _share_drowned(mean, spread, lr=lr, steps=steps)
    square = float(mean.square().sum())
    return Recovery(
        lr=lr,
        steps=steps,
        travel=travel,
        distance=float(mean.abs().max()),
        captured=1 - _ratio(float(left @ mean), square),
        captured_at_most=min(1.0, _ratio(travel * float(mean.abs().sum()), square)),
        born=born,
        at_least=_dead(y, W, travel * W.abs().sum(dim=1), tokens),
        unrecovered=min(gone, born),
        collateral=(1 - born) * drowned * lasting,
    )


def _remaining_mean(
    mean: Float[Tensor, "d_in"], spread: float, *, lr: float, steps: int, alone: bool
) -> Float[Tensor, "d_in"]:
    """What of the mean `b_dec` has not taken over at the end: every coordinate moves towards it at one speed, and
    stops there. Beside features the speed falls as less is left, and with the number of dimensions the mean is in.
    """
    left = mean.clone()
    dimensions = _dimensions(mean)
    for _ in range(_MOMENTS):
        gamma = _ratio(float(left.norm()), spread)
        speed = ALONE if alone else min(ALONE, BESIDE * sqrt(gamma) / dimensions)
        left = left.sign() * (left.abs() - lr * steps / _MOMENTS * speed).clamp_min(0)
    return left


def _share_drowned(mean: Float[Tensor, "d_in"], spread: float, *, lr: float, steps: int) -> float:
    """Share of the living that fall under zero as the features that carry the mean shrink: the more, the further a
    step moves pre-activations along the mean, beside their signal, spread / sqrt(d_in).
    """
    push = _ratio(lr * float(mean.norm()) * sqrt(_dimensions(mean) * len(mean)), spread)
    over = _ratio(lr * steps, COLLAPSE * float(mean.norm()))
    return (1 - exp(-push / PUSH)) * (1 - exp(-(over**2)))


def _dimensions(mean: Float[Tensor, "d_in"]) -> float:
    """In how many dimensions the mean is, at least 1: (sum mu^2)^2 / sum mu^4."""
    return max(1.0, _ratio(float(mean.square().sum()) ** 2, float(mean.pow(4).sum())))


def _dead(
    y: Float[Tensor, "sample d_in"],
    W: Float[Tensor, "d_sae d_in"],
    shift: Float[Tensor, "d_sae"] | None,
    tokens: int,
) -> float:
    """Dead-by-ReLU on so many tokens, each pre-activation shifted."""
    return forecast(y, W, ReLU(), b_enc=shift).dead_by_relu(tokens).value


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0
