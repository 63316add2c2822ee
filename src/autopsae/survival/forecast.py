"""Death expected at any number of tokens, by pathway and with an interval, from a few thousand tokens."""

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
"""Latents whose tails are fitted, at most."""

PARTS = 16
"""Parts of the sample, in the stream's order, of which each is left out once for the interval."""

FORM_ERROR = 0.05
"""Standard error of the fitted tails' form, as a share of the fall from the sample's count to the forecast."""

_NINE_OF_TEN = 1.645


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tails:
    """The tails of the whole sample, and of the sample without each of its parts."""

    whole: Tail
    without: tuple[Tail, ...]
    silent_on_sample: float
    """Of all latents, followed or not."""

    @staticmethod
    def of(margins: Margins, silent_on_sample: float) -> "_Tails":
        parts = range(len(margins.sizes))
        without = tuple(margins.tail(without=part) for part in parts)
        return _Tails(whole=margins.tail(), without=without, silent_on_sample=silent_on_sample)

    def silent(self, tokens: int) -> Expected:
        """Leaving out a part at a time (the jackknife) tells what the choice of the sampled tokens is worth; tokens
        of one document, which are alike, are left out together. To this come the error of the tails' form, in
        proportion to what they were asked, and that of the drawn latents.
        """
        sample = self.whole.tokens
        followed, at_sample = self.whole.silent(tokens), self.whole.silent(min(tokens, sample))
        value = followed
        if tokens >= sample:
            # How many of all latents are silent on the sample is known; the followed ones say how that changes.
            value = self.silent_on_sample * (followed / at_sample if at_sample else 1.0)
        left_out = torch.tensor([tail.silent(tokens) for tail in self.without], dtype=torch.float64)
        parts = len(left_out)
        sampling = (parts - 1) * float(left_out.var(correction=0))
        drawing = value * (1 - value) / len(self.whole.chance)
        half = _NINE_OF_TEN * sqrt(sampling + (FORM_ERROR * (at_sample - followed)) ** 2 + drawing)
        return Expected(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Forecast(Result):
    """Death of an SAE at any number of tokens."""

    tokens: int
    """Tokens in the sample that it was made from."""
    d_sae: int
    """Latents of the SAE."""
    followed: int
    """Latents whose tails were fitted."""
    usage: float
    """As of `Outlook`."""
    dominance: float
    """As of `Outlook`."""
    effective_tokens: float
    """As of `Outlook`."""
    fires: _Tails
    """Tails of the margins: who fires on how many tokens."""
    positive: _Tails
    """Tails of the pre-activations: who is positive on how many tokens."""

    @whole_arguments("tokens")
    def dead(self, tokens: int) -> Expected:
        """Fraction of latents that do not fire on `tokens` tokens of this kind, the dead-by-ReLU included."""
        return self.fires.silent(tokens)

    @whole_arguments("tokens")
    def dead_by_relu(self, tokens: int) -> Expected:
        """Fraction of latents that are positive on none of `tokens` tokens: no more than are dead, which are fitted
        apart from them.
        """
        dead, by_relu = self.dead(tokens), self.positive.silent(tokens)
        return Expected(*(min(of_all, own) for of_all, own in zip(astuple(dead), astuple(by_relu), strict=True)))

    @whole_arguments("tokens")
    def at(self, tokens: int) -> Outlook:
        """Both, dead and dead-by-ReLU. Raises InputError for less than one token."""
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
    """The forecast for an encoder W y + b_enc, where y is what it sees: the tokens, less b_dec, after any remedy.

    y: a sample of at least 40 tokens, in the stream's order (neighbours may be of one document), evenly or randomly
    spread over the stream that death is asked for; threshold: of a sparsity that learns one (default: that at
    birth; a BatchTopK SAE without one judges 512 tokens of the sample as a batch). Costs about two encodings of
    the sample, and the memory of two matrices [followed, sample].

    Raises InputError for tokens as `chunks`, for a sample too small, and for thresholds under zero or that the
    sparsity does not have.
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
    """What a sample says of the latents, the tokens in another order.

    over, pre: margins and pre-activations of the followed latents, in units of the token's norm, as their tails
    would otherwise be those of the norms; part: which of the PARTS of the sample each token is from; silent,
    never_positive: fractions of all latents that did not fire, and were not positive, on any token.
    """

    over: Float[Tensor, "followed sample"]
    pre: Float[Tensor, "followed sample"]
    part: Int[Tensor, "sample"]
    silent: float
    never_positive: float


def margins(
    y: Float[Tensor, "sample d_in"],
    W: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    b_enc: Float[Tensor, "d_sae"] | None,
    threshold: Float[Tensor, "..."] | None,
    followed: int,
) -> Sampled:
    """The one pass over the sample; as `forecast`."""
    order = spread(len(y), y.device)
    over, pre = (y.new_empty(followed, len(y)) for _ in range(2))
    fired, positive = (torch.zeros(len(W), dtype=torch.bool, device=y.device) for _ in range(2))
    for start in range(0, len(y), BLOCK):
        rows = order[start : start + BLOCK]
        product = y[rows] @ W.T
        if b_enc is not None:
            product += b_enc
        margin = sparsity.margins(product, threshold)
        fired |= margin.amax(dim=0) > 0
        positive |= product.amax(dim=0) > 0
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
    """The forecast for a freshly drawn SAE under each remedy, by the remedy's name; all see the same drawn rows.

    sample: raw tokens, as for `forecast`. Raises InputError for tokens as `chunks`, and for a sample too small.
    """
    sample = matrix(sample)
    rows = draw_rows(d_sae, sample.shape[1], generator=generator).to(sample.device)
    return {r.name: forecast_birth(r.enters(sample), rows, sparsity, followed=followed) for r in remedies}


def forecast_birth(
    view: View, drawn: Float[Tensor, "d_sae d_in"], sparsity: Sparsity, *, followed: int = FOLLOWED
) -> Forecast:
    """The forecast for an SAE of the rows `drawn`, born under the remedy that `view` is of, from the view's sample;
    otherwise as `forecast_births`.
    """
    return _forecast(view.seen, view.rows(drawn), sparsity, followed=followed)


def _usage(fired: Int[Tensor, "latents"]) -> float:
    """exp(entropy of the latents' shares of the firings) / latents; 0 where none fires."""
    return effective_rank(fired.double()) / len(fired) if bool(fired.any()) else 0.0


def _dominance(y: Float[Tensor, "sample d_in"]) -> float:
    """The largest eigenvalue of the covariance over the sum of all; 0 for tokens that do not differ."""
    centered = y.double() - y.double().mean(dim=0)
    covariance = centered.T @ centered
    total = float(covariance.trace())
    return float(torch.linalg.eigvalsh(covariance)[-1]) / total if total > 0 else 0.0
