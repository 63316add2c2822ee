"""The chance that a token makes a latent fire, from the tail of its margins on a few thousand tokens.

A latent that never fired on the sample still says how far it is from firing: the largest of its (negative) margins
follow, like the largest of almost any quantity, a generalised Pareto distribution (Pickands 1975). Fitted to the
top 2 % and continued to zero it gives the chance of firing. One number for all latents together, the shape, decides
how steeply the tails fall; it is set so that the chances explain how many latents the sample itself left silent.
"""

from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.arrays import InputError

TOP = 0.02
"""Share of the sample that is taken for each latent's tail."""

LEAST_TAIL = 20
"""Tokens in the tail, at least."""

OWN_SHAPE = 0.2
"""Weight of a latent's own shape beside the common one: the shape of 80 excesses alone is mostly noise."""

_STEEPEST, _HEAVIEST = -1.5, 0.9  # shapes: a tail that ends just above its level; hardly any mean
_BISECTIONS = 26


@dataclass(frozen=True, kw_only=True, eq=False)
class Tail:
    """How often the margins of each latent are positive.

    fired: tokens of the sample on which they were; chance: per token, from the tail; tokens: in the sample;
    shape: the Pareto shape common to all latents (under zero the tails end, at zero they are exponential); None
    where all fired, so that there was nothing to explain.
    """

    fired: Int[Tensor, "latents"]
    chance: Float[Tensor, "latents"]
    tokens: int
    shape: float | None

    def silent(self, tokens: int) -> float:
        """Fraction of the latents that none of `tokens` tokens makes fire.

        Up to the sample's size: exactly, of a random part of the sample. Beyond: the latents silent on the sample,
        each with probability (1 - chance)^(tokens - sample).
        """
        if tokens <= self.tokens:
            missed = _log_choose(self.tokens - self.fired, tokens) - _log_choose(
                torch.full_like(self.fired, self.tokens), tokens
            )
            return float(missed.exp().mean())
        still = (self.fired == 0) * (torch.log1p(-self.chance) * (tokens - self.tokens)).exp()
        return float(still.mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Margins:
    """What a sample's margins say of each latent's tail; made by `observed`.

    excess: the largest margins, in order, less the next one, `level`; group: which part of the sample each is from;
    fired: tokens of each part on which the margin was positive; sizes: tokens of each part. Where every latent
    fired in at least two parts there is nothing to extrapolate, and no tail is taken.
    """

    excess: Float[Tensor, "latents tail"]
    level: Float[Tensor, "latents"]
    group: Int[Tensor, "latents tail"]
    fired: Int[Tensor, "latents groups"]
    sizes: Int[Tensor, "groups"]

    @property
    def clumping(self) -> float:
        """By how much firings come in heaps: the variance of their numbers in the parts, over that of independent
        tokens; all latents together, at least 1.
        """
        tokens = self.sizes.sum()
        share, fired = self.sizes.double() / tokens, self.fired.sum(dim=1, keepdim=True)
        squares = (self.fired - fired * share).square().sum()
        variance = (fired * (1 - fired / tokens) * share * (1 - share)).sum()
        return max(1.0, float(squares / variance.clamp_min(1e-300)))

    def tail(self, *, without: int | None = None) -> Tail:
        """The tails, fitted to the sample, or to what is left of it without one of its parts."""
        fired, tokens = self.fired.sum(dim=1), int(self.sizes.sum())
        if without is not None:
            fired, tokens = fired - self.fired[:, without], tokens - int(self.sizes[without])
        if bool(fired.all()):
            return Tail(fired=fired, chance=fired / tokens, tokens=tokens, shape=None)
        kept = torch.ones_like(self.excess) if without is None else (self.group != without).to(self.excess)
        number = kept.sum(dim=1)
        mean, own = _moments(self.excess * kept, kept, number)
        rate = number / tokens
        chance, shape = _calibrate(self.level, mean, own, rate, fired, tokens)
        return Tail(fired=fired, chance=chance, tokens=tokens, shape=shape)


def observe_tails(margins: Float[Tensor, "latents tokens"], group: Int[Tensor, "tokens"]) -> Margins:
    """The tails of the margins of each latent on a sample of tokens, of which each belongs to a part, 0, 1, ...

    Raises InputError for a sample too small to have a tail.
    """
    tokens = margins.shape[1]
    tail = max(LEAST_TAIL, ceil(TOP * tokens))
    if tokens < 2 * tail:
        raise InputError(f"expected a sample of at least {2 * LEAST_TAIL} tokens, got {tokens}; harvest more")
    sizes = torch.bincount(group)
    parts = torch.nn.functional.one_hot(group, len(sizes)).to(margins)
    fired = torch.cat([(rows > 0).to(parts) @ parts for rows in margins.split(512)]).long()
    if bool(((fired > 0).sum(dim=1) > 1).all()):
        tail = 0
    top, column = torch.topk(margins, tail + 1, dim=1)
    return Margins(
        excess=(top[:, :-1] - top[:, -1:]).double(),
        level=top[:, -1].double(),
        group=group[column[:, :-1]],
        fired=fired,
        sizes=sizes,
    )


def _moments(
    excess: Float[Tensor, "latents tail"], kept: Float[Tensor, "latents tail"], number: Float[Tensor, "latents"]
) -> tuple[Float[Tensor, "latents"], Float[Tensor, "latents"]]:
    """(mean excess, shape) of each latent, the shape by probability-weighted moments (Hosking and Wallis 1987):
    2 - a0 / (a0 - 2 a1), a1 = E[(1 - F) excess].
    """
    number = number.clamp_min(1)[:, None]
    rank = number - kept.cumsum(dim=1) + 1  # the excesses come in order, the largest first
    mean = excess.sum(dim=1) / number[:, 0]
    weighted = ((1 - (rank - 0.35) / number) * excess).sum(dim=1) / number[:, 0]
    return mean, 2 - mean / (mean - 2 * weighted).clamp_min(1e-300)


def _calibrate(
    level: Float[Tensor, "latents"],
    mean: Float[Tensor, "latents"],
    own: Float[Tensor, "latents"],
    rate: Float[Tensor, "latents"],
    fired: Int[Tensor, "latents"],
    tokens: int,
) -> tuple[Float[Tensor, "latents"], float]:
    """(chance of a positive margin, common shape), the shape such that as many latents are expected to be silent on
    the sample as were: mean of exp(-chance tokens) = fraction that did not fire.
    """
    own = OWN_SHAPE * own.clamp(_STEEPEST, _HEAVIEST)
    silent = float((fired == 0).double().mean())

    def chance(common: float) -> Tensor:
        return _chance(level, mean, (common + own).clamp_max(_HEAVIEST), rate)

    low, high = _STEEPEST, _HEAVIEST
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_many = float((-chance(middle) * tokens).exp().mean()) > silent
        low, high = (middle, high) if too_many else (low, middle)
    shape = (low + high) / 2
    # A latent whose level is positive fires too often for its tail to matter.
    chances = torch.where(level < 0, chance(shape), fired / tokens)
    return chances, shape


def _chance(level: Tensor, mean: Tensor, shape: Tensor, rate: Tensor) -> Float[Tensor, "latents"]:
    """rate (1 - shape level / scale)^(-1 / shape): how often a margin exceeds zero, of which a share `rate` exceeds
    the level with excesses of that mean and shape; scale = mean (1 - shape).
    """
    shape = torch.where(shape.abs() < 1e-6, 1e-6, shape)
    scale = (mean * (1 - shape)).clamp_min(1e-300)
    return (rate * (1 - shape * level / scale).clamp_min(0).pow(-1 / shape)).clamp_max(1)


def _log_choose(n: Int[Tensor, "latents"], k: int) -> Float[Tensor, "latents"]:
    """log of n over k, -inf where n < k."""
    n = n.double()
    logs = torch.lgamma(n + 1) - torch.lgamma(torch.tensor(k + 1.0)) - torch.lgamma((n - k).clamp_min(0) + 1)
    return torch.where(n >= k, logs, -torch.inf)
