"""Why a latent is dead: the cause is found by changing the SAE and looking whether the latent then fires.

Such a change is called a counterfactual. All are counted on the same tokens. Let m be the centre of the tokens. A
*birth* is an estimate of the SAE before training: each encoder row is parallel to its decoder row, and there is no
encoder bias. The counterfactuals of a latent are:

    alone            this latent is re-centred; the others, and what it has to exceed, stay as they are
    centered         the present SAE with b_dec moved to m
    spread           `centered`, and the tokens vary along every row as much as along a typical direction
    born_here        a birth with the present b_dec
    born_at_zero     a birth with b_dec = 0, where most libraries start it
    born_at_center   a birth with b_dec = m
    as_it_is         `born_at_center`, but this one latent has its present row and bias

The cause is the first of these that holds:

    shift              The mean keeps the latent silent, now or since birth. Now: it fires under `alone`; or under
                       `centered`, if its own shift puts it far behind the latents that fire. Since birth: it fires
                       under `as_it_is`, and the start was bad, because the SAE began far from the centre
                       (`began_away`), or because the latent is unchanged and does not fire under `born_here`.
    low variance       It fires under `spread`, and the tokens vary little along its row.
    died in training   Its weights have moved since birth, and it fires under `born_here` or `born_at_center`.
    outcompeted        None of these: the value that it has to exceed is too high.

Why births are needed: the present SAE does not show where b_dec started. While the mean keeps a latent silent, the
others learn. In the end they are so large that it stays silent even with b_dec at m. But a latent that never got a
gradient still has its weights from birth, and it did not fire at birth. If many such latents fire under
`born_at_center` and not under `born_at_zero`, then b_dec did not start at m.

If "died in training" also holds, the two causes before it need stronger evidence. `shift` needs that the SAE began
away from the centre, or that b_dec lies between zero and the centre and not near the centre; otherwise training has
moved b_dec there, or the shift is harmless. `low variance` needs under a tenth of the typical variance.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.evaluation.births import Births, began_away, margins_at_birth, threshold_at_birth
from autopsae.evaluation.space import Space, margins
from autopsae.sae.model import SAE

CAUSES = ("none", "shift", "low_variance", "died_in_training", "outcompeted")
"""The names of the causes, in the order of their numbers. Living latents have the cause "none"."""

LOW, VERY_LOW = 0.5, 0.1
"""Under LOW times the typical variance, a variance is low. Under VERY_LOW times, it is named before "died in
training"."""

NEAR = 0.25
"""b_dec is near the centre under this share of the tokens' spread. So near, no latent is born dead."""

BESIDE = 0.1
"""b_dec counts as between zero and the centre up to this share of the tokens' spread outside the box."""

_NOTHING = 1e-6  # a variance under this share of the typical one is only rounding error


@dataclass(frozen=True, kw_only=True, eq=False)
class Counterfactuals:
    """A mask for each change: the latents that fire under it. Living latents usually fire under all of them."""

    alone: Bool[Tensor, "d_sae"]
    """Only this latent is re-centred, as `recentre` does it."""
    centered: Bool[Tensor, "d_sae"]
    """All latents are re-centred."""
    spread: Bool[Tensor, "d_sae"]
    """All latents are re-centred, and the tokens vary along every row as much as along a typical direction."""
    born_here: Bool[Tensor, "d_sae"]
    """All latents are as at birth, and b_dec is the present one."""
    born_at_zero: Bool[Tensor, "d_sae"]
    """All latents are as at birth, and b_dec = 0."""
    born_at_center: Bool[Tensor, "d_sae"]
    """All latents are as at birth, and b_dec is the centre."""
    as_it_is: Bool[Tensor, "d_sae"]
    """All other latents are as at birth, b_dec is the centre, and this latent has its present row and bias."""


def counterfactuals(
    sae: SAE, space: Space, *, births: Births, shift: Float[Tensor, "d_sae"], share: Float[Tensor, "d_sae"]
) -> Counterfactuals:
    """Count all counterfactuals in one pass over the tokens.

    shift: what is subtracted from each pre-activation when b_dec moves to the centre (`shift_to`); share: the
    variance of the tokens along each row over the typical variance.
    """
    b_enc = 0.0 if sae.b_enc is None else sae.b_enc
    start = sae.encoder_center
    # Moving b_dec to zero, or to the centre, subtracts these from the pre-activations of a birth.
    to_zero, to_center = matmul(births.rows, -start), matmul(births.rows, space.center.to(start) - start)
    gain = share.clamp_min(_NOTHING).rsqrt().to(shift)
    fired = {name: torch.zeros_like(shift, dtype=torch.bool) for name in Counterfactuals.__dataclass_fields__}
    for y in space.blocks(sae.W_enc):
        pre = sae.pre_activations(y)
        fired["alone"] |= (margins(sae, pre) > shift).any(dim=0)
        pre -= shift
        fired["centered"] |= (margins(sae, pre) > 0).any(dim=0)
        own = pre * births.length
        pre = (pre - b_enc) * gain + b_enc
        fired["spread"] |= (margins(sae, pre) > 0).any(dim=0)
        birth = matmul(y - start, births.rows.T)
        fired["born_here"] |= (margins_at_birth(sae, birth) > 0).any(dim=0)
        fired["born_at_zero"] |= (margins_at_birth(sae, birth - to_zero) > 0).any(dim=0)
        birth -= to_center
        fired["born_at_center"] |= (margins_at_birth(sae, birth) > 0).any(dim=0)
        fired["as_it_is"] |= sae.sparsity.admits(own, birth, threshold_at_birth(sae, birth)).any(dim=0)
    return Counterfactuals(**fired)


def between(b_dec: Float[Tensor, "d_in"], center: Float[Tensor, "d_in"], *, spread: float) -> bool:
    """True if b_dec lies in the box between zero and the centre (up to a tenth of the tokens' spread), and not near
    the centre. It is a box and not a line because Adam moves all coordinates at the same speed.
    """
    nearest = b_dec.clamp(center.clamp_max(0), center.clamp_min(0))
    outside, away = float((b_dec - nearest).norm()), float((b_dec - center).norm())
    return outside <= BESIDE * spread and away >= NEAR * spread


def causes(
    what_if: Counterfactuals,
    *,
    sae: SAE,
    space: Space,
    births: Births,
    fired: Int[Tensor, "d_sae"],
    shift: Float[Tensor, "d_sae"],
    signal: Float[Tensor, "d_sae"],
    share: Float[Tensor, "d_sae"],
) -> Int[Tensor, "d_sae"]:
    """The cause of each latent, as its index in CAUSES.

    Re-centring all latents changes what each has to exceed. So `centered` is evidence of a shift only if the
    latent's own shift puts it more than a standard deviation of its signal behind the latents that fire.
    """
    weights = fired.to(shift) / fired.sum().clamp_min(1)
    behind = (shift * weights).sum() - shift > signal
    died = births.moved & (what_if.born_here | what_if.born_at_center)
    center, spread = space.center.to(sae.b_dec), float(space.covariance.trace().sqrt())
    away = began_away(
        births,
        at_zero=what_if.born_at_zero,
        at_center=what_if.born_at_center,
        dead=fired == 0,
        b_dec=sae.encoder_center,
        center=center,
        spread=spread,
    )
    on_its_way = between(sae.encoder_center, center, spread=spread)
    now = (what_if.alone | (what_if.centered & behind)) & (~died | away | on_its_way)
    at_birth = what_if.as_it_is & (away | (~births.moved & ~what_if.born_here))
    low = share < torch.where(died, VERY_LOW, LOW)
    by_variance = low & (what_if.spread | (share < _NOTHING))
    cause = torch.full_like(fired, CAUSES.index("outcompeted"))
    for name, holds in (
        ("died_in_training", died),
        ("low_variance", by_variance),
        ("shift", now | at_birth),
        ("none", fired > 0),
    ):
        cause[holds] = CAUSES.index(name)
    return cause
