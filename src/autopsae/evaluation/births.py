"""What an SAE was probably like when it was born, and where its b_dec was then, told from its present weights."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.evaluation.directions import unit_rows
from autopsae.sae.model import SAE

MOVED = 0.1
"""Weights are no longer those of a birth if encoder and decoder row, both of unit length, are this far apart, or if
b_enc is this share of the signal."""

UNTOUCHED = 0.005
"""No gradient has reached a latent whose unit rows are nearer than this: one step of Adam moves them further apart,
and rounding to bfloat16 does not."""

HEAVY = 1.0
"""A mean of at least this many times the tokens' spread (gamma, in the SAE's space) can kill a birth at zero."""

REMEMBERED = 0.01
"""Share of the latents that have to remember a start at zero."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Births:
    """An SAE as it was probably born, without encoder biases."""

    rows: Float[Tensor, "d_sae d_in"]
    """Encoder rows, along their decoder rows."""
    length: Float[Tensor, "d_sae"]
    """What the present row and bias of a latent are multiplied by, to be compared with the rows of the others."""
    moved: Bool[Tensor, "d_sae"]
    """Whose weights are no longer those of a birth (`has_moved`)."""
    untouched: Bool[Tensor, "d_sae"]
    """Whose weights are still exactly those of a birth."""


def likely_births(sae: SAE, signal: Float[Tensor, "d_sae"], *, fired: Int[Tensor, "d_sae"]) -> Births:
    """Rows as they were probably born: along their decoder rows, and of one length for all latents, as libraries
    draw them: that which reads a typical decoder row with gain 1, so that multiplying an SAE's scale into its
    weights changes nothing.

    Training lengthens the rows of those that fire. Where most of them have not moved, nothing was trained, and
    lengths are what they were at birth. signal: standard deviation of W_enc y; fired: how often.
    """
    tiny = torch.finfo(sae.W_enc.dtype).tiny
    apart, moved, lengths = _apart(sae), has_moved(sae, signal), sae.W_enc.norm(dim=1)
    born = lengths
    if bool(moved[fired > 0].double().mean() > 0.5):
        born = (1 / sae.W_dec.norm(dim=1).median().clamp_min(tiny)).expand_as(lengths)
    return Births(
        rows=unit_rows(sae.W_dec) * born[:, None],
        length=born / lengths.clamp_min(tiny),
        moved=moved,
        untouched=apart < UNTOUCHED,
    )


def has_moved(sae: SAE, signal: Float[Tensor, "d_sae"]) -> Bool[Tensor, "d_sae"]:
    """Whose encoder row or bias is no longer that of a likely birth. Lengths are not compared; they hold scales."""
    away: Tensor = _apart(sae) > MOVED
    if sae.b_enc is not None:
        away |= sae.b_enc.abs() > MOVED * signal.to(sae.b_enc)
    return away


def _apart(sae: SAE) -> Float[Tensor, "d_sae"]:
    """Distance of encoder and decoder row, both brought to unit length."""
    distance: Tensor = (unit_rows(sae.W_enc) - unit_rows(sae.W_dec)).norm(dim=1)
    return distance


def margins_at_birth(sae: SAE, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "tokens d_sae"]:
    """How far each pre-activation of a birth is over what it has to exceed, without what training has made of it:
    BatchTopK judges batches, and JumpReLU's thresholds are no higher than where they start.
    """
    return sae.sparsity.margins(pre, threshold_at_birth(sae, pre))


def threshold_at_birth(sae: SAE, like: Float[Tensor, "..."]) -> Float[Tensor, "..."] | None:
    """The threshold of a birth, in the type of `like`; None where the other latents decide."""
    learned = sae.threshold
    return sae.sparsity.threshold_at_birth(sae.d_sae, None if learned is None else learned.detach().to(like))


def began_away(
    births: Births,
    *,
    at_zero: Bool[Tensor, "d_sae"],
    at_center: Bool[Tensor, "d_sae"],
    dead: Bool[Tensor, "d_sae"],
    b_dec: Float[Tensor, "d_in"],
    center: Float[Tensor, "d_in"],
    spread: float,
) -> bool:
    """Did the SAE begin with b_dec at zero, and is zero far from the tokens' centre?

    Either b_dec is still there (nearer to zero than half of the way), or dead latents that no gradient has touched
    remember it: they cannot have fired at birth, and so many would have done so at the centre and not at zero.
    at_zero, at_center: who fires in a birth there; spread: root of the tokens' total variance.
    """
    length = float(center.norm())
    if length < HEAVY * spread:
        return False
    silent = dead & births.untouched
    for_zero, for_center = int((silent & at_center & ~at_zero).sum()), int((silent & at_zero & ~at_center).sum())
    remembered = for_zero > max(for_center, REMEMBERED * len(dead))
    return remembered or float(b_dec.norm()) < length / 2
