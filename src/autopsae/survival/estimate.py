"""The fraction of latents that stay silent beyond the sample, with its interval.

Two ways to continue from the sample to more tokens are averaged, because their errors mostly have opposite signs:

- **The tails:** each latent's own tail of margins says how often it fires (`tails`).
- **The curve:** within the sample it is known exactly how the silent fraction falls with the number of tokens
  (rarefaction), and with the number of documents (incidence-based rarefaction). It is continued as it would fall if
  margins were Gaussian, and so were the latents' means: `Curve`.
"""

from dataclasses import dataclass
from functools import cached_property
from math import log, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.statistics.intervals import jackknife
from autopsae.survival.outlook import Expected
from autopsae.survival.tails import Margins, Tail

FORM_ERROR = 0.05
"""Real tails are not exactly Pareto. One standard error for that is this share of the extrapolated change, which is
the fraction dead on the sample minus the fraction in the forecast."""

_SPANS = (2, 4)
"""The slope of the curve is taken between the sample and these fractions of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """How the silent fraction falls within the sample, and how it goes on beyond it: `silent`.

    If the margins of latent i are Gaussian around -h_i, in units of their standard deviation, it is silent on t
    tokens with probability 1/2 where h_i = u(t) = -Phi^-1(log 2 / t). If the h_i are Gaussian too, the probit of
    the silent fraction is linear in u(t). The line starts at the sample. Up to the end of the stream its slope is
    that of the curve over tokens: they are from the same documents. From there on it is that of the curve over
    groups of tokens, because tokens of new documents differ more.
    """

    tail: Tail
    start: float
    """The silent fraction on the sample."""
    by_token: float
    """The slope of the probit over u(t), of the curve over tokens."""
    by_group: float
    """The same of the curve over groups of tokens."""

    @staticmethod
    def of(tail: Tail) -> "Curve":
        """The curve of the sample to which the tail was fitted."""
        sample, groups = tail.tokens, tail.groups
        start = tail.silent(sample)
        if start in (0, 1):
            return Curve(tail=tail, start=start, by_token=0.0, by_group=0.0)
        of_tokens = {float(sample // span): tail.silent(sample // span) for span in _SPANS if sample >= span}
        of_groups = {
            sample * (groups // span) / groups: tail.silent_in(groups // span) for span in _SPANS if groups >= span
        }
        by_token = _slope(sample, start, of_tokens)
        by_group = _slope(sample, start, of_groups) if of_groups else by_token
        return Curve(tail=tail, start=start, by_token=by_token, by_group=by_group)

    def silent(self, tokens: int, stream_tokens: int) -> float:
        """The silent fraction on `tokens` tokens. stream_tokens: that the sample is spread over."""
        sample = self.tail.tokens
        if tokens <= sample:
            return self.tail.silent(tokens)
        if self.start in (0, 1):
            return self.start
        within = min(tokens, max(sample, stream_tokens))
        rise = self.by_token * (_level(within) - _level(sample))
        if tokens > within:
            rise += self.by_group * (_level(tokens) - _level(within))
        return float(torch.special.ndtr(_probit(self.start) + rise))


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """The tails fitted to the whole sample, and to the sample without each of its groups of tokens."""

    whole: Tail
    """The fit to the whole sample."""
    without: tuple[Tail, ...]
    """The fit without each group, for the jackknife."""
    clumping: float
    """The design effect of the groups on firings, at least 1."""
    effect: float
    """The design effect that is reckoned with: `clumping`, or what is assumed at least where documents are unknown
    (`Groups.least_effect`)."""
    silent_on_sample: float
    """The fraction of all latents, followed or not, that are silent on the sample."""
    stream_tokens: int
    """Number of tokens of the stream that the sample is spread over evenly."""

    @staticmethod
    def of(margins: Margins, silent_on_sample: float, stream_tokens: int, least_effect: float = 1.0) -> "Estimate":
        """The estimate from the tails of the followed latents. least_effect: see `Groups`."""
        clumping = margins.clumping
        return Estimate(
            whole=margins.tail(),
            without=margins.tails_without(),
            clumping=clumping,
            effect=max(clumping, least_effect),
            silent_on_sample=silent_on_sample,
            stream_tokens=stream_tokens,
        )

    def silent(self, tokens: int) -> Expected:
        """The fraction of latents expected silent on `tokens` tokens, and its interval.

        The variance is a sum of four: from the choice of tokens (the jackknife, which leaves out groups), from the
        form of the tails (FORM_ERROR), from the distance between tails and curve, and from the choice of latents
        (binomial).
        """
        sample = self.whole.tokens
        at_sample = self.whole.silent(min(tokens, sample))
        share = self._share_of_tails(tokens)
        tails = self.whole.silent(tokens)
        curve, *curves_without = [curve.silent(tokens, self.stream_tokens) for curve in self._curves]
        followed = share * tails + (1 - share) * curve
        value = followed
        if tokens >= sample:
            # On the sample itself all latents were counted. The followed ones give the factor by which the fraction
            # falls from the sample to `tokens`.
            value = self.silent_on_sample * (followed / at_sample if at_sample else 1.0)
        left_out = torch.tensor(
            [
                share * tail.silent(tokens) + (1 - share) * of_curve
                for tail, of_curve in zip(self.without, curves_without, strict=True)
            ],
            dtype=torch.float64,
            device="cpu",
        )
        sampling, errors = jackknife(left_out)
        sampling *= self.effect / self.clumping
        # The variance of a choice between the two with these shares as probabilities.
        form = (FORM_ERROR * (at_sample - followed)) ** 2 + share * (1 - share) * (tails - curve) ** 2
        drawing = value * (1 - value) / len(self.whole.chance)
        half = errors * sqrt(sampling + form + drawing)
        return Expected(value=value, low=max(0.0, value - half), high=min(1.0, value + half))

    @cached_property
    def _curves(self) -> list[Curve]:
        """That of the whole sample, and of the sample without each group."""
        return [Curve.of(tail) for tail in (self.whole, *self.without)]

    def _share_of_tails(self, tokens: int) -> float:
        """The weight of the tails in the average. The tails know tokens and not documents. So beyond the stream,
        where documents are new, they count the less the more the firings clump in documents.
        """
        return 1 / 2 if tokens <= self.stream_tokens else 1 / (1 + self.effect)


def _slope(tokens: int, silent: float, curve: dict[float, float]) -> float:
    """The slope of the probit of the silent fraction over u(t), by least squares through (tokens, silent).

    curve: {number of tokens: silent fraction} at smaller numbers.
    """
    run = torch.stack([_level(span) - _level(tokens) for span in curve])
    rise = torch.stack([_probit(fraction) - _probit(silent) for fraction in curve.values()])
    return float((rise * run).sum() / run.square().sum())


def _level(tokens: int | float) -> Float[Tensor, ""]:
    """u(t) = -Phi^-1(log 2 / t): the level that t standard normal numbers exceed half of the time."""
    level: Tensor = -torch.special.ndtri(torch.tensor(log(2) / tokens, dtype=torch.float64, device="cpu"))
    return level


def _probit(fraction: float) -> Float[Tensor, ""]:
    probit: Tensor = torch.special.ndtri(torch.tensor(fraction, dtype=torch.float64, device="cpu"))
    return probit
