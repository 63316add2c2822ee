"""The forecast: the fraction of latents expected dead on any number of tokens, from a sample of a few thousand.

The forecast extends the tail of each latent's margins (`tails`) and the curve of silent latents beyond the sample,
and gives an interval (`estimate`). It fits twice: `fires`, fitted to the margins, gives all dead latents;
`positive`, fitted to the pre-activations, gives the dead-by-ReLU latents.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
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
from autopsae.statistics.groups import Groups, sample_groups
from autopsae.statistics.spectrum import effective_rank
from autopsae.survival.clumping import most_clumped
from autopsae.survival.estimate import Estimate
from autopsae.survival.margins import Sampled, margins, margins_if_silent, margins_of_centered
from autopsae.survival.outlook import Expected, Outlook
from autopsae.survival.tails import observe_tails, tails_of
from autopsae.tables import Result

FOLLOWED = 2048
"""The largest number of latents whose tails are fitted. The others are only counted on the sample."""


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
    fires: Estimate
    """From the margins. It says how many tokens it takes until a latent fires."""
    positive: Estimate
    """From the pre-activations. It says how many tokens it takes until a latent is positive."""

    @whole_arguments("tokens")
    def dead(self, tokens: int) -> Expected:
        """Fraction of latents expected to fire on none of `tokens` tokens, dead-by-ReLU included."""
        return self.fires.silent(tokens)

    @whole_arguments("tokens")
    def dead_by_relu(self, tokens: int) -> Expected:
        """Fraction of latents expected to be positive on none of `tokens` tokens. It is a part of `dead`, but is
        fitted separately; if the fit exceeds `dead`, it is set to `dead`.
        """
        return self._part_of(self.dead(tokens), tokens)

    def _part_of(self, dead: Expected, tokens: int) -> Expected:
        by_relu = self.positive.silent(tokens)
        return Expected(*(min(of_all, own) for of_all, own in zip(astuple(dead), astuple(by_relu), strict=True)))

    @whole_arguments("tokens")
    def at(self, tokens: int) -> Outlook:
        """The dead and the dead-by-ReLU fraction on `tokens` tokens. Raises InputError for fewer than one token."""
        if tokens < 1:
            raise InputError(f"forecast: expected at least one token, got {tokens}")
        dead = self.dead(tokens)
        return Outlook(
            tokens=tokens,
            dead=dead,
            dead_by_relu=self._part_of(dead, tokens),
            usage=self.usage,
            dominance=self.dominance,
            effective_tokens=self.effective_tokens,
        )

    def __str__(self) -> str:
        return f"from {self.tokens:,} tokens, on which {self.dead(self.tokens)} of {self.d_sae:,} latents are dead"


@whole_arguments("stream_tokens", "followed")
def forecast(
    y: Float[Tensor, "sample d_in"] | NDArray[Any],
    W: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    b_enc: Float[Tensor, "d_sae"] | None = None,
    threshold: Float[Tensor, "..."] | None = None,
    documents: Int[Tensor, "sample"] | NDArray[Any] | None = None,
    stream_tokens: int | None = None,
    followed: int = FOLLOWED,
) -> Forecast:
    """Forecast the dead fraction of an SAE whose pre-activations are W y + b_enc.

    y: a sample of at least 40 tokens as the encoder sees them: after any remedy, and minus b_dec. They are spread
        over the stream and in its order, so that tokens of one document are neighbours.
    documents: the number of the document, image or sequence that each token is from, in any order. Default: unknown
        (`autopsae.statistics.groups` says what is guessed and assumed then).
    stream_tokens: the number of tokens that y is spread over evenly. Further tokens count as from other documents.
        Default: as many as y has. Pass it if y was drawn at random: where neither documents nor the order of the
        tokens say how many documents there are, it does.
    threshold: for a sparsity that learns thresholds; by default the threshold at birth. BatchTopK without a
        threshold takes blocks of 512 tokens of the sample as its batches.
    followed: the largest number of latents whose tails are fitted. The forecast takes about twice as long as
        encoding the sample, and the memory of two matrices [followed, sample].

    Raises InputError for tokens that are no finite matrix, for fewer than 40 tokens, for documents that are not one
    whole number for each token, and for thresholds that are negative or that the sparsity does not have.
    """
    y = matrix(y).to(W)
    stream_tokens = stream_tokens or len(y)
    groups = sample_groups(y, documents, stream_tokens)
    if threshold is not None and bool((threshold < 0).any()):
        raise InputError(f"expected thresholds of at least 0, got {float(threshold.min()):g}")
    followed = min(followed, len(W))
    sampled = margins(y, W, sparsity, b_enc=b_enc, threshold=threshold, followed=followed)
    return _of_sampled(sampled, len(W), groups, stream_tokens, _dominance(y))


def _of_sampled(
    sampled: Sampled,
    d_sae: int,
    groups: Groups,
    stream_tokens: int,
    dominance: float,
) -> Forecast:
    tokens = sampled.over.shape[1]
    groups = groups.reorder(sampled.order)
    fired = most_clumped(sampled.over, groups.guesses)
    fires, positive = tails_of(sampled.over, fired), observe_tails(sampled.pre, fired.group)
    firing = Estimate.of(fires, sampled.silent, stream_tokens, groups.least_effect)
    return Forecast(
        tokens=tokens,
        d_sae=d_sae,
        followed=len(sampled.over),
        usage=_usage(fires.fired.sum(dim=1)),
        dominance=dominance,
        effective_tokens=tokens / firing.effect,
        fires=firing,
        positive=Estimate.of(positive, sampled.never_positive, stream_tokens, groups.least_effect),
    )


@whole_arguments("d_sae", "stream_tokens", "followed")
def forecast_births(
    sample: Float[Tensor, "sample d_in"] | NDArray[Any],
    remedies: Sequence[Remedy],
    sparsity: Sparsity,
    *,
    d_sae: int,
    generator: torch.Generator,
    documents: Int[Tensor, "sample"] | NDArray[Any] | None = None,
    stream_tokens: int | None = None,
    followed: int = FOLLOWED,
) -> dict[str, Forecast]:
    """{name of the remedy: forecast} for a freshly drawn SAE under each remedy, with the same drawn rows for all.

    sample: at least 40 raw tokens in the order of the stream, before any remedy.
    documents, stream_tokens: as for `forecast`.

    Raises InputError for tokens that are no finite matrix, for fewer than 40 tokens, and for documents that are not
    one whole number for each token.
    """
    sample = matrix(sample)
    rows = draw_rows(d_sae, sample.shape[1], generator=generator).to(sample.device)
    views = {remedy.name: remedy.enters(sample) for remedy in remedies}
    stream_tokens = stream_tokens or len(sample)
    groups = sample_groups(sample, documents, stream_tokens)
    return forecast_views(views, rows, sparsity, groups, stream_tokens, followed=followed)


def forecast_views(
    views: Mapping[str, View],
    drawn: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    groups: Groups,
    stream_tokens: int,
    *,
    followed: int = FOLLOWED,
    if_silent: Collection[str] = (),
) -> dict[str, Forecast]:
    """{name: forecast} for SAEs with the rows `drawn`, each as it is born under a view, from the views' sample.
    Those that only center tokens share a matrix product.

    groups: `sample_groups` of the sample; stream_tokens: number of tokens that the sample is from; if_silent: names
        whose forecast is left out if every latent fires on the sample, because none can be dead then.
    """
    followed = min(followed, len(drawn))
    seen = {name: view.seen.to(drawn) for name, view in views.items()}
    centered = [name for name, view in views.items() if view.only_centers and view.subspace is None]
    sampled: dict[str, Sampled | None] = {}
    # A batch under BatchTopK must stay whole, and tokens near a centre would get a product of their own.
    if len(centered) > 1 and not sparsity.judges_batches:
        parts = [views[name] for name in centered], [seen[name] for name in centered]
        places = {place for place, name in enumerate(centered) if name in if_silent}
        shared = margins_of_centered(*parts, drawn, sparsity, followed=followed, if_silent=places)
        sampled = dict(zip(centered, shared, strict=True))
    forecasts = {}
    dominance = _dominance(seen[centered[0]]) if centered else None  # the same under every centre
    for name, view in views.items():
        y = seen[name]
        if name not in sampled:
            through = margins_if_silent if name in if_silent else margins
            sampled[name] = through(y, view.rows(drawn), sparsity, followed=followed)
        if (own := sampled.pop(name)) is not None:
            of_view = dominance if name in centered and dominance is not None else _dominance(y)
            forecasts[name] = _of_sampled(own, len(drawn), groups, stream_tokens, of_view)
    return forecasts


def _usage(fired: Int[Tensor, "latents"]) -> float:
    """exp(entropy of the latents' shares of all firings) / number of latents; 0 if no latent fires."""
    return effective_rank(fired.double()) / len(fired) if bool(fired.any()) else 0.0


def _dominance(y: Float[Tensor, "sample d_in"]) -> float:
    """The largest eigenvalue of the covariance divided by the sum of all; 0 if all tokens are equal."""
    centered = y.double() - y.double().mean(dim=0)
    covariance = centered.T @ centered
    total = float(covariance.trace())
    return float(torch.linalg.eigvalsh(covariance)[-1]) / total if total > 0 else 0.0
