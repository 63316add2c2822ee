"""The forecast: the fraction of latents expected dead on any number of tokens, from a sample of a few thousand.

The forecast extends the tail of each latent's margins (`tails`) beyond the sample, and gives an interval. It fits
twice: `fires`, fitted to the margins, gives all dead latents; `positive`, fitted to the pre-activations, gives the
dead-by-ReLU latents.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, matrix
from autopsae.remedies.remedy import Remedy
from autopsae.remedies.view import View
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import Sparsity
from autopsae.statistics.sample import BLOCK, spread
from autopsae.statistics.spectrum import effective_rank
from autopsae.survival.outlook import Expected, Outlook
from autopsae.survival.tails import Margins, Tail, observe_tails
from autopsae.tables import Result

FOLLOWED = 2048
"""The largest number of latents whose tails are fitted. The others are only counted on the sample."""
PARTS = 16
"""Number of parts of the sample, each a stretch of the stream. The jackknife leaves each out once."""
FORM_ERROR = 0.05
"""Real tails are not exactly Pareto. The standard error for that is this share of the extrapolated change, which is
the fraction dead on the sample minus the fraction in the forecast."""

_HELD = 1 << 22
"""The largest number of pre-activations that are held at once, so that a wide SAE takes no more memory."""
_NINE_OF_TEN = 1.645  # standard errors on each side of an interval that holds in 9 cases of 10


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tails:
    """The tails fitted to the whole sample, and to the sample without each of its parts."""

    whole: Tail
    """The fit to the whole sample."""
    without: tuple[Tail, ...]
    """The fit without each part, for the jackknife."""
    silent_on_sample: float
    """The fraction of all latents, followed or not, that are silent on the sample."""

    @staticmethod
    def of(margins: Margins, silent_on_sample: float) -> "_Tails":
        parts = range(len(margins.sizes))
        without = tuple(margins.tail(without=part) for part in parts)
        return _Tails(whole=margins.tail(), without=without, silent_on_sample=silent_on_sample)

    def silent(self, tokens: int) -> Expected:
        """The fraction of latents expected silent on `tokens` tokens, and its interval.

        The variance is a sum of three: from the choice of tokens (the jackknife), from the form of the tails
        (FORM_ERROR), and from the choice of latents (binomial). A part of the sample is a stretch of the stream, so
        the tokens of a document, which are alike, are left out together.
        """
        sample = self.whole.tokens
        followed, at_sample = self.whole.silent(tokens), self.whole.silent(min(tokens, sample))
        value = followed
        if tokens >= sample:
            # On the sample itself all latents were counted. The followed ones give the factor by which the fraction
            # falls from the sample to `tokens`.
            value = self.silent_on_sample * (followed / at_sample if at_sample else 1.0)
        left_out = torch.tensor([tail.silent(tokens) for tail in self.without], dtype=torch.float64)
        parts = len(left_out)
        # Jackknife variance: (n - 1) / n * sum of squared deviations, for n parts.
        sampling = (parts - 1) * float(left_out.var(correction=0))
        drawing = value * (1 - value) / len(self.whole.chance)
        half = _NINE_OF_TEN * sqrt(sampling + (FORM_ERROR * (at_sample - followed)) ** 2 + drawing)
        return Expected(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Forecast(Result):
    """The dead fraction of an SAE at any number of tokens: `at(tokens)`."""

    tokens: int
    """Number of tokens in the sample."""
    d_sae: int
    """Number of latents of the SAE."""
    followed: int
    """Number of latents whose tails were fitted."""
    usage: float
    """How evenly the latents share the firings, in [0, 1]; see `Outlook.usage`."""
    dominance: float
    """Share of the variance that lies in one direction; see `Outlook.dominance`."""
    effective_tokens: float
    """Number of independent tokens that the sample is worth; see `Outlook.effective_tokens`."""
    fires: _Tails
    """The tails of the margins. They say how many tokens it takes until a latent fires."""
    positive: _Tails
    """The tails of the pre-activations. They say how many tokens it takes until a latent is positive."""

    @whole_arguments("tokens")
    def dead(self, tokens: int) -> Expected:
        """Fraction of latents expected to fire on none of `tokens` tokens, dead-by-ReLU included."""
        return self.fires.silent(tokens)

    @whole_arguments("tokens")
    def dead_by_relu(self, tokens: int) -> Expected:
        """Fraction of latents expected to be positive on none of `tokens` tokens. It is a part of `dead`, but is
        fitted separately; if the fit exceeds `dead`, it is set to `dead`.
        """
        dead, by_relu = self.dead(tokens), self.positive.silent(tokens)
        return Expected(*(min(of_all, own) for of_all, own in zip(astuple(dead), astuple(by_relu), strict=True)))

    @whole_arguments("tokens")
    def at(self, tokens: int) -> Outlook:
        """The dead and the dead-by-ReLU fraction on `tokens` tokens. Raises InputError for fewer than one token."""
        if tokens < 1:
            raise InputError(f"forecast: expected at least one token, got {tokens}")
        return Outlook(
            tokens=tokens,
            dead=self.dead(tokens),
            dead_by_relu=self.dead_by_relu(tokens),
            usage=self.usage,
            dominance=self.dominance,
            effective_tokens=self.effective_tokens,
        )

    def __str__(self) -> str:
        return f"from {self.tokens:,} tokens, on which {self.dead(self.tokens)} of {self.d_sae:,} latents are dead"


@whole_arguments("followed")
def forecast(
    y: Float[Tensor, "sample d_in"] | NDArray[Any],
    W: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    b_enc: Float[Tensor, "d_sae"] | None = None,
    threshold: Float[Tensor, "..."] | None = None,
    followed: int = FOLLOWED,
) -> Forecast:
    """Forecast the dead fraction of an SAE whose pre-activations are W y + b_enc.

    y: a sample of at least 40 tokens as the encoder sees them: after any remedy, and minus b_dec. They are spread
        over the stream and in its order, so that tokens of one document are neighbours.
    threshold: for a sparsity that learns thresholds; by default the threshold at birth. BatchTopK without a
        threshold takes blocks of 512 tokens of the sample as its batches.
    followed: the largest number of latents whose tails are fitted. The forecast takes about twice as long as
        encoding the sample, and the memory of two matrices [followed, sample].

    Raises InputError for tokens that are no finite matrix, for fewer than 40 tokens, and for thresholds that are
    negative or that the sparsity does not have.
    """
    return _forecast(matrix(y).to(W), W, sparsity, b_enc=b_enc, threshold=threshold, followed=followed)


def _forecast(
    y: Float[Tensor, "sample d_in"],
    W: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    b_enc: Float[Tensor, "d_sae"] | None = None,
    threshold: Float[Tensor, "..."] | None = None,
    followed: int = FOLLOWED,
) -> Forecast:
    if threshold is not None and bool((threshold < 0).any()):
        raise InputError(f"expected thresholds of at least 0, got {float(threshold.min()):g}")
    sampled = margins(y, W, sparsity, b_enc=b_enc, threshold=threshold, followed=min(followed, len(W)))
    fires, positive = observe_tails(sampled.over, sampled.part), observe_tails(sampled.pre, sampled.part)
    return Forecast(
        tokens=len(y),
        d_sae=len(W),
        followed=len(sampled.over),
        usage=_usage(fires.fired.sum(dim=1)),
        dominance=_dominance(y),
        effective_tokens=len(y) / fires.clumping,
        fires=_Tails.of(fires, sampled.silent),
        positive=_Tails.of(positive, sampled.never_positive),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Margins and pre-activations of the latents on a sample. The tokens are in the order of `spread`.

    Margins and pre-activations are divided by the norm of the token. Otherwise their tails would be the tail of the
    norms: a few tokens with huge norms would decide the fit.
    """

    over: Float[Tensor, "followed sample"]
    """Margin over the norm of the token, for each followed latent."""
    pre: Float[Tensor, "followed sample"]
    """Pre-activation over the norm of the token, for each followed latent."""
    part: Int[Tensor, "sample"]
    """The part of the sample that each token is from, in 0 ... PARTS - 1."""
    silent: float
    """The fraction of all latents that fired on no token of the sample."""
    never_positive: float
    """The fraction of all latents that were positive on no token of the sample."""


def margins(
    y: Float[Tensor, "sample d_in"],
    W: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    b_enc: Float[Tensor, "d_sae"] | None,
    threshold: Float[Tensor, "..."] | None,
    followed: int,
) -> Sampled:
    """Compute the pre-activations of the sample once, and keep what the fits need. Arguments as `forecast`."""
    # A block is a batch for BatchTopK, so it has tokens from all over the sample.
    order = spread(len(y), y.device)
    block = BLOCK if sparsity.judges_batches else min(BLOCK, max(1, _HELD // len(W)))
    over, pre = (y.new_empty(followed, len(y)) for _ in range(2))
    fired, positive = (torch.zeros(len(W), dtype=torch.bool, device=y.device) for _ in range(2))
    for start in range(0, len(y), block):
        rows = order[start : start + block]
        product = y[rows] @ W.T
        if b_enc is not None:
            product += b_enc
        margin = sparsity.margins(product, threshold)
        fired |= margin.amax(dim=0) > 0
        positive |= product.amax(dim=0) > 0
        # The first `followed` latents are followed. Rows are drawn at random, so these are as good as any others.
        size = y[rows].norm(dim=1).clamp_min(torch.finfo(y.dtype).tiny)
        columns = slice(start, start + len(rows))
        torch.div(margin[:, :followed].T, size, out=over[:, columns])
        torch.div(product[:, :followed].T, size, out=pre[:, columns])
    return Sampled(
        over=over,
        pre=pre,
        part=order * PARTS // len(y),
        silent=float((~fired).double().mean()),
        never_positive=float((~positive).double().mean()),
    )


@whole_arguments("d_sae", "followed")
def forecast_births(
    sample: Float[Tensor, "sample d_in"] | NDArray[Any],
    remedies: Sequence[Remedy],
    sparsity: Sparsity,
    *,
    d_sae: int,
    generator: torch.Generator,
    followed: int = FOLLOWED,
) -> dict[str, Forecast]:
    """{name of the remedy: forecast} for a freshly drawn SAE under each remedy, with the same drawn rows for all.

    sample: at least 40 raw tokens in the order of the stream, before any remedy.

    Raises InputError for tokens that are no finite matrix, and for fewer than 40 tokens.
    """
    sample = matrix(sample)
    rows = draw_rows(d_sae, sample.shape[1], generator=generator).to(sample.device)
    return {r.name: forecast_birth(r.enters(sample), rows, sparsity, followed=followed) for r in remedies}


def forecast_birth(
    view: View, drawn: Float[Tensor, "d_sae d_in"], sparsity: Sparsity, *, followed: int = FOLLOWED
) -> Forecast:
    """The forecast for an SAE with the rows `drawn`, born under the remedy of `view`, from the view's sample."""
    return _forecast(view.seen, view.rows(drawn), sparsity, followed=followed)


def _usage(fired: Int[Tensor, "latents"]) -> float:
    """exp(entropy of the latents' shares of all firings) / number of latents; 0 if no latent fires."""
    return effective_rank(fired.double()) / len(fired) if bool(fired.any()) else 0.0


def _dominance(y: Float[Tensor, "sample d_in"]) -> float:
    """The largest eigenvalue of the covariance divided by the sum of all; 0 if all tokens are equal."""
    centered = y.double() - y.double().mean(dim=0)
    covariance = centered.T @ centered
    total = float(covariance.trace())
    return float(torch.linalg.eigvalsh(covariance)[-1]) / total if total > 0 else 0.0
