"""Why a latent is dead: which change would make it fire.

Each cause is a counterfactual, counted on the same tokens. In the order in which they are asked:

    shift              it would fire if `b_dec` lay at the tokens' centre
    low variance       it would fire if, beyond that, tokens varied along its row as along a typical direction
    died in training   its weights are not those of a birth, and a birth in its place would fire
    outcompeted        none of these: what it has to exceed is too high for it

Where the weights have moved and a birth would fire, both earlier causes must be plain, or it died in training. The
mean is to blame only where `b_dec` lies between zero and the centre, as before training and on its way, and not
near the centre: elsewhere training has driven it there, or it does no harm. The variance must be under a tenth of
the typical.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.evaluation.space import Space, admitted, bars, fires
from autopsae.sae.init import THRESHOLD
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU

CAUSES = ("none", "shift", "low_variance", "died_in_training", "outcompeted")
"""The names of causes, by number; living latents have none."""

MOVED = 0.1
"""Weights are no longer those of a birth if encoder and decoder row, both of unit length, are this far apart, or if
b_enc is this share of the signal."""

LOW, VERY_LOW = 0.5, 0.1
"""A variance under this share of the typical one is low, and very low, which outweighs death in training."""

NEAR = 0.25
"""A centre at less than this share of the tokens' spread from b_dec kills no birth."""

_NOTHING = 1e-6  # of the typical variance: what is left are rounding errors


@dataclass(frozen=True, kw_only=True, eq=False)
class Counterfactuals:
    """On which changes each latent fires; of living ones it is true too, as a rule.

    alone: on re-centring this latent and no other, which is what `recentre` does; centered: on centring all;
    spread: on centring all and making tokens vary along every row as along a typical direction; birth: if all
    latents were as they were probably born, with b_dec where it is or at the centre; blames_mean: b_dec lies where
    the mean can be to blame.
    """

    alone: Bool[Tensor, "d_sae"]
    centered: Bool[Tensor, "d_sae"]
    spread: Bool[Tensor, "d_sae"]
    birth: Bool[Tensor, "d_sae"]
    blames_mean: bool


def likely_birth(W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "d_sae d_in"]:
    """The encoder rows as they were probably born: along their decoder rows, which they read with gain 1. A unit
    decoder row is its own birth; multiplying an SAE's scale into its weights changes nothing.
    """
    return W_dec / W_dec.square().sum(dim=1, keepdim=True).clamp_min(torch.finfo(W_dec.dtype).tiny)


def moved(sae: SAE, signal: Float[Tensor, "d_sae"]) -> Bool[Tensor, "d_sae"]:
    """Whose encoder row or bias is no longer that of a likely birth. Lengths are not compared; they hold scales."""
    away: Tensor = (normalize(sae.W_enc, dim=1) - normalize(sae.W_dec, dim=1)).norm(dim=1) > MOVED
    if sae.b_enc is not None:
        away |= sae.b_enc.abs() > MOVED * signal.to(sae.b_enc)
    return away


def counterfactuals(
    sae: SAE, space: Space, *, shift: Float[Tensor, "d_sae"], share: Float[Tensor, "d_sae"]
) -> Counterfactuals:
    """One pass over the tokens. shift: `shift_to` the centre; share: variance along a row over the typical one."""
    birth, b_enc = likely_birth(sae.W_dec), 0.0 if sae.b_enc is None else sae.b_enc
    center = space.center.to(sae.b_dec)
    blames_mean = between(sae.b_dec, center, spread=float(space.covariance.trace().sqrt()))
    birth_shift = birth @ (center - sae.b_dec)
    gain = share.clamp_min(_NOTHING).rsqrt().to(shift)
    alone, centered, spread, born = (torch.zeros_like(shift, dtype=torch.bool) for _ in range(4))
    for y in space.blocks(sae.W_enc):
        pre = sae.pre_activations(y)
        alone |= (pre - shift > bars(sae, pre)).any(dim=0)
        pre -= shift
        centered |= fires(pre, bars(sae, pre)).any(dim=0)
        pre = (pre - b_enc) * gain + b_enc
        spread |= fires(pre, bars(sae, pre)).any(dim=0)
        pre = (y - sae.b_dec) @ birth.T
        born |= fires(pre, _bars_at_birth(sae, pre)).any(dim=0)
        pre -= birth_shift
        born |= fires(pre, _bars_at_birth(sae, pre)).any(dim=0)
    return Counterfactuals(alone=alone, centered=centered, spread=spread, birth=born, blames_mean=blames_mean)


def between(b_dec: Float[Tensor, "d_in"], center: Float[Tensor, "d_in"], *, spread: float) -> bool:
    """Does b_dec lie in the box between zero and the centre, to a tenth of the tokens' spread, and not near the
    centre? Adam moves all coordinates at one speed, so on its way b_dec is in the box and not on the line.
    """
    nearest = b_dec.clamp(center.clamp_max(0), center.clamp_min(0))
    outside, away = float((b_dec - nearest).norm()), float((b_dec - center).norm())
    return outside <= MOVED * spread and away >= NEAR * spread


def _bars_at_birth(sae: SAE, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "_ _"]:
    """As `bars`, less what training has made of it: BatchTopK judges batches, and JumpReLU's thresholds are no
    higher than where they start.
    """
    if isinstance(sae.sparsity, BatchTopK):
        return admitted(sae, pre)
    return bars(sae, pre).clamp_max(THRESHOLD) if isinstance(sae.sparsity, JumpReLU) else bars(sae, pre)


def causes(
    what_if: Counterfactuals,
    *,
    fired: Int[Tensor, "d_sae"],
    moved: Bool[Tensor, "d_sae"],
    shift: Float[Tensor, "d_sae"],
    signal: Float[Tensor, "d_sae"],
    share: Float[Tensor, "d_sae"],
) -> Int[Tensor, "d_sae"]:
    """The number in CAUSES of each latent's cause.

    Centring all latents changes a competition for all of them, so it names the shift only where the latent stands
    more than a standard deviation of its signal behind those that fire, by its shift alone; low variance is named
    only of latents with less than half of the typical one.
    """
    weights = fired.to(shift) / fired.sum().clamp_min(1)
    behind = (shift * weights).sum() - shift > signal
    died = moved & what_if.birth
    by_shift = (what_if.alone | (what_if.centered & behind)) & (~died | what_if.blames_mean)
    low = share < torch.where(died, VERY_LOW, LOW)
    by_variance = low & (what_if.spread | (share < _NOTHING))
    found = torch.full_like(fired, CAUSES.index("outcompeted"))
    for name, holds in (
        ("died_in_training", died),
        ("low_variance", by_variance),
        ("shift", by_shift),
        ("none", fired > 0),
    ):
        found[holds] = CAUSES.index(name)
    return found
