"""The probability that a latent fires on a token, estimated from the tail of its margins on a few thousand tokens.

The margin of a latent is positive where it fires. A latent that never fired on the sample has no positive margin,
but its largest margins show how far it is from firing. The method is peaks over threshold:

1. For each latent, take its largest 2 % of margins. The *level* is the margin below them; the *excesses* are the
   margins minus the level.
2. Excesses over a high level follow a generalised Pareto distribution (Pickands 1975). Take its mean from the
   excesses of each latent.
3. Continue the distribution from the level to zero. The probability beyond zero is the chance of firing: `_chance`.

The *shape* of the distribution says how fast the tail falls. Fitted to one latent it is mostly noise. So a latent's
shape is a fifth of its own fit plus one shape common to all. The common shape is set such that the expected number
of silent latents on the sample equals the observed number.
"""

from dataclasses import dataclass
from math import ceil, lgamma

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.survival.clumping import Fired, design_effect, firings

TOP = 0.02
"""The tail of a latent is this share of the tokens: those with its largest margins."""

LEAST_TAIL = 20
"""The smallest number of tokens in a tail."""

OWN_SHAPE = 0.2
"""The shape of a latent is the common shape plus this times its own fitted shape. The weight is small because a
shape that is fitted to 80 excesses is mostly noise."""

# The range of shapes. At -1.5 the tail ends just above its level. From 1 on a Pareto distribution has no mean.
_STEEPEST, _HEAVIEST = -1.5, 0.9
_BISECTIONS = 26

_LEAST_CHANCE = 1e-9
"""The chance that counts for a latent whose bounded tail ends below zero, when chances are averaged."""

_SURE = 40
"""Exceedances of zero from which a latent is certain to fire."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tail:
    """How often each latent fires: counted on the sample, and estimated from the tail of its margins."""

    fired: Int[Tensor, "latents"]
    """Number of tokens of the sample on which the latent fired."""
    chance: Float[Tensor, "latents"]
    """Estimated probability that the latent fires on a token."""
    tokens: int
    """Number of tokens in the sample."""
    fired_in: Int[Tensor, "latents"]
    """Number of groups of tokens, such as documents, in which the latent fired."""
    groups: int
    """Number of groups in the sample."""
    shape: float | None
    """The Pareto shape common to all latents: negative for tails that end, 0 for exponential tails, positive for
    heavier ones. None if every latent fired, so that nothing was fitted."""

    def silent(self, tokens: int) -> float:
        """Fraction of the latents expected to fire on none of `tokens` tokens.

        Up to the size of the sample this is exact: the mean over all subsets of `tokens` tokens. Beyond it, a
        latent that is silent on the sample stays so with probability (1 - chance)^(tokens - sample).
        """
        if tokens <= self.tokens:
            return _silent_in_subsets(self.fired, self.tokens, tokens)
        still = (self.fired == 0) * (torch.log1p(-self.chance) * (tokens - self.tokens)).exp()
        return float(still.mean())

    def silent_in(self, groups: int) -> float:
        """Fraction of the latents that fire in none of `groups` groups of the sample: the mean over all subsets."""
        return _silent_in_subsets(self.fired_in, self.groups, groups)


@dataclass(frozen=True, kw_only=True, eq=False)
class Margins:
    """The tail of each latent's margins on a sample, from `observe_tails`.

    If every latent fired in at least two groups of tokens, `excess` has no columns: whichever group is left out,
    every latent still fires, so there is nothing to extrapolate.
    """

    excess: Float[Tensor, "latents tail"]
    """The largest margins minus `level`, in falling order (threshold exceedances)."""
    level: Float[Tensor, "latents"]
    """The largest margin that is not in the tail."""
    group: Int[Tensor, "latents tail"]
    """The group of tokens that each excess is from."""
    fired: Int[Tensor, "latents groups"]
    """Number of tokens of each group on which the latent fired."""
    sizes: Int[Tensor, "groups"]
    """Number of tokens of each group."""
    shrinkage: float = 1.0
    """What the distance of each latent's log chance from their mean is multiplied with. Under 1, part of the
    differences between latents counts as noise (empirical Bayes)."""

    @property
    def clumping(self) -> float:
        """The design effect: see `design_effect`."""
        return design_effect(self.fired, self.sizes)

    def tail(self) -> Tail:
        """Fit the tails to the sample."""
        return self._fit(torch.ones(1, len(self.sizes), dtype=torch.bool, device="cpu"))[0]

    def tails_without(self) -> tuple[Tail, ...]:
        """Fit the tails to the sample without each of its groups."""
        return self._fit(~torch.eye(len(self.sizes), dtype=torch.bool, device="cpu"))

    def _fit(self, kept: Bool[Tensor, "fits groups"]) -> tuple[Tail, ...]:
        """Fit the tails to the groups that are kept. One bisection serves all fits."""
        kept = kept.to(self.group.device)
        of_fits = kept.double()  # products of whole numbers under 2^53 are exact
        fired = (of_fits @ self.fired.double().T).long()
        fired_in = (of_fits @ (self.fired > 0).double().T).long()
        tokens = (of_fits @ self.sizes.double()).long()
        chance = fired.double() / tokens[:, None]
        shapes: list[float | None] = [None] * len(kept)
        if not bool(fired.all()):
            chance, shapes = _calibrate(self, kept, fired, tokens)
        parts = zip(fired, chance, tokens.tolist(), fired_in, kept.sum(dim=1).tolist(), shapes, strict=True)
        return tuple(
            Tail(fired=f, chance=c, tokens=n, fired_in=within, groups=groups, shape=shape)
            for f, c, n, within, groups, shape in parts
        )


def observe_tails(margins: Float[Tensor, "latents tokens"], group: Int[Tensor, "tokens"]) -> Margins:
    """Take the tail of each latent's margins. group: the group that each token is from, from 0.

    Raises InputError for fewer than 40 tokens.
    """
    return tails_of(margins, firings(margins, [group])[0])


def tails_of(margins: Float[Tensor, "latents tokens"], fired: Fired) -> Margins:
    """`observe_tails` where the firings of these margins are counted already."""
    tokens = margins.shape[1]
    tail = max(LEAST_TAIL, ceil(TOP * tokens))
    if tokens < 2 * tail:
        raise InputError(f"expected a sample of at least {2 * LEAST_TAIL} tokens, got {tokens}; harvest more")
    if bool(((fired.number > 0).sum(dim=1) > 1).all()):
        tail = 0  # nothing to extrapolate, whichever group is left out
    top, column = largest_margins(margins, tail + 1)
    return Margins(
        excess=(top[:, :-1] - top[:, -1:]).double(),
        level=top[:, -1].double(),
        group=fired.group[column[:, :-1]],
        fired=fired.number,
        sizes=fired.sizes,
    )


def largest_margins(
    margins: Float[Tensor, "latents tokens"], number: int
) -> tuple[Float[Tensor, "latents number"], Int[Tensor, "latents number"]]:
    """(values, tokens) of the largest of each row, in falling order."""
    if number == 1 or margins.device.type != "cpu":
        return torch.topk(margins, number, dim=1)
    # NumPy's partition takes a third of the time of torch.topk; some rows at a time, as it orders all of a row.
    some = [
        torch.from_numpy(np.argpartition(rows.numpy(), -number, axis=1)[:, -number:]) for rows in margins.split(256)
    ]
    columns = torch.cat(some)
    values, order = margins.gather(1, columns).sort(dim=1, descending=True)
    return values, columns.gather(1, order)


def _moments(
    excess: Float[Tensor, "latents tail"], kept: Bool[Tensor, "latents tail"], number: Float[Tensor, "latents"]
) -> tuple[Float[Tensor, "latents"], Float[Tensor, "latents"]]:
    """(mean excess, Pareto shape) of each latent, by probability-weighted moments (Hosking and Wallis 1987).

    With a0 = E[excess] and a1 = E[(1 - F) excess], the shape is 2 - a0 / (a0 - 2 a1). The distribution function F
    is estimated by (rank - 0.35) / number. kept: the excesses that count; number: how many they are.
    """
    excess, number = excess * kept, number.clamp_min(1)
    mean = excess.sum(dim=1) / number
    # Excesses come in falling order, so the rank of the c-th is number + 1 - c, and 1 - F is (c - 0.65) / number.
    weighted = ((kept.to(excess).cumsum(dim=1) - 0.65) * excess).sum(dim=1) / number.square()
    return mean, 2 - mean / (mean - 2 * weighted).clamp_min(1e-300)


def _calibrate(
    margins: Margins,
    kept: Bool[Tensor, "fits groups"],
    fired: Int[Tensor, "fits latents"],
    tokens: Int[Tensor, "fits"],
) -> tuple[Float[Tensor, "fits latents"], list[float | None]]:
    """(chance of firing of each latent, common shape) of each fit. The shape is None where every latent fired.

    The common shape is such that the fraction of latents expected silent on the sample, the mean of
    exp(-chance tokens), equals the fraction that was silent. kept, fired, tokens: as in `Margins._fit`.
    """
    size, silent = tokens[:, None].double(), (fired == 0).sum(dim=1).double()
    in_group = torch.zeros_like(margins.fired).scatter_add_(1, margins.group, torch.ones_like(margins.group))
    number = kept.double() @ in_group.double().T
    # A latent whose level is positive fires on all tokens of its tail. With 40 of them, it is expected silent with
    # a probability under exp(-40), and takes no part in the fit.
    some = ((margins.level < 0) | (number.amin(dim=0) < _SURE)).nonzero()[:, 0]
    level, excess, group, number = margins.level[some], margins.excess[some], margins.group[some], number[:, some]
    moments = [_moments(excess, of_fit[group], n) for of_fit, n in zip(kept, number, strict=True)]
    mean, own = (torch.stack(moment) for moment in zip(*moments, strict=True))
    own, rate = OWN_SHAPE * own.clamp(_STEEPEST, _HEAVIEST), number / size

    def chance(common: Tensor) -> Tensor:
        own_chance = _chance(level, mean, (common[:, None] + own).clamp_max(_HEAVIEST), rate)
        return own_chance if margins.shrinkage == 1 else _shrink(own_chance, size, margins.shrinkage)

    # Bisection: the greater the shape, the heavier the tails, and the fewer latents are expected silent.
    low, high = torch.full_like(silent, _STEEPEST), torch.full_like(silent, _HEAVIEST)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_many = (-chance(middle) * size).exp().sum(dim=1) > silent
        low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    shape = (low + high) / 2
    chances = fired / size
    # A latent whose level is positive fires on more tokens than its tail has. So its rate is counted, not fitted.
    chances[:, some] = torch.where(level < 0, chance(shape), chances[:, some])
    return chances, [value if any_ else None for value, any_ in zip(shape.tolist(), silent.tolist(), strict=True)]


def _chance(
    level: Float[Tensor, "latents"],
    mean: Float[Tensor, "fits latents"],
    shape: Float[Tensor, "fits latents"],
    rate: Float[Tensor, "fits latents"],
) -> Float[Tensor, "fits latents"]:
    """The probability that a margin exceeds zero: rate (1 - shape level / scale)^(-1 / shape).

    It is P(margin > level) = rate, times the probability that a Pareto excess is over -level, which is the distance
    from the level to zero. The scale of a generalised Pareto distribution is mean (1 - shape).
    """
    # At shape 0 the formula divides by zero. Its limit is the exponential tail, to which 1e-6 comes close enough.
    shape = torch.where(shape.abs() < 1e-6, 1e-6, shape)
    scale = (mean * (1 - shape)).clamp_min(1e-300)
    base = (1 - shape * level / scale).clamp_min(0)
    chance = (rate * (base.log() / -shape).exp()).clamp_max(1)
    # Of a latent whose tail is all in the group that was left out, nothing is left: 0 times infinity is no number.
    return torch.where(rate > 0, chance, 0.0)


def _shrink(
    chance: Float[Tensor, "fits latents"], size: Float[Tensor, "fits 1"], shrinkage: float
) -> Float[Tensor, "fits latents"]:
    """Chances whose logarithms are nearer to their mean: mean + shrinkage (log chance - mean).

    The mean is over the latents expected silent on the sample: each counts with exp(-chance size).
    """
    logs, weight = chance.clamp_min(_LEAST_CHANCE).log(), (-chance * size).exp()
    mean = (logs * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp_min(1e-300)
    # A chance of 0 stays: nothing of the latent's tail is left without a group (`_chance`).
    return torch.where(chance > 0, (mean + shrinkage * (logs - mean)).exp().clamp_max(1), 0.0)


def _silent_in_subsets(fired: Int[Tensor, "latents"], number: int, chosen: int) -> float:
    """Fraction of the latents that fire on none of `chosen` tokens (or groups) of `number`, the mean over subsets.

    fired: on how many of all each latent fires.
    """
    # Hypergeometric: of C(N, t) subsets, C(N - fired, t) have none on which the latent fired. The factor 1 / t! of
    # both is left out.
    others = number - fired.double()
    missed = torch.lgamma(others + 1) - torch.lgamma((others - chosen).clamp_min(0) + 1)
    missed -= lgamma(number + 1) - lgamma(number - chosen + 1)
    return float(torch.where(others >= chosen, missed, -torch.inf).exp().mean())
