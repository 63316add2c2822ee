"""Death of a trained SAE on more tokens than were counted, from its margins on a sample of a few thousand.

The forecast at birth is the mean of two estimates, tails and curve. For a trained SAE, the tails are kept, and the
curve has another part. Some trained latents fire often and the others on few tokens of a kind, so how often latents
fire is far from Gaussian, and a continued curve falls too slowly. But within the sample the curve is exact, and the
tails are fitted to it: besides the common shape, a *shrinkage* of the latents' differences is set, such that as
many latents are expected silent on a half and on a quarter of the sample as are.

A latent that fired on a counted token is alive. Nothing is left to forecast for it.
"""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, matrix
from autopsae.sae.death import Fates
from autopsae.sae.model import SAE
from autopsae.statistics.groups import sample_groups
from autopsae.statistics.intervals import jackknife
from autopsae.survival.clumping import most_clumped
from autopsae.survival.forecast import FOLLOWED
from autopsae.survival.margins import margins
from autopsae.survival.outlook import DeadForecast, Expected
from autopsae.survival.tails import LEAST_TAIL, Margins, Tail, tails_of
from autopsae.tables import Result

FORM_ERROR = 0.25
"""One standard error for the form of the tails is this share of the change between the count and the forecast."""

SHRINKAGES = (0.7, 1.1)
"""The range of the shrinkage. Over 1, the latents differ more than their tails say."""

_TRIED = (0.9, 1.1)
"""The shrinkages of which the error on parts of the sample is computed. Between them it is nearly linear."""

_SPANS = (2, 4)
"""The tails are fitted to the curve on these fractions of the sample."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrainedForecast(Result):
    """The dead fraction of a trained SAE at any number of tokens: `dead(tokens)`."""

    tokens: int
    """Number of tokens in the sample."""
    d_sae: int
    """Number of latents of the SAE."""
    silent_on_sample: float
    """The fraction of all latents that are silent on the sample."""
    shrinkage: float
    """What the differences of the latents' log chances were multiplied with, so that the curve is met."""
    effective_tokens: float
    """Number of independent tokens that the sample is worth; see `Outlook.effective_tokens`."""
    stream_tokens: int
    """Number of tokens that the sample is spread over evenly. Further tokens are from other documents."""
    whole: Tail
    """The tails of the followed latents, fitted to the whole sample."""
    without: tuple[Tail, ...]
    """The fit without each group of tokens, for the jackknife."""
    inflation: float
    """What the variance of the jackknife is multiplied with where documents are assumed (`Groups.least_effect`)."""

    @whole_arguments("tokens")
    def dead(self, tokens: int) -> Expected:
        """The fraction of latents expected to fire on none of `tokens` tokens, the sample among them.

        Raises InputError for fewer tokens than the sample has.
        """
        return self.dead_after(tokens, counted=self.silent_on_sample, counted_tokens=self.tokens)

    @whole_arguments("tokens", "counted_tokens")
    def dead_after(self, tokens: int, *, counted: float, counted_tokens: int) -> Expected:
        """The same, where the fraction `counted` was silent on `counted_tokens` of them, the sample among these.

        The tails give the factor by which the fraction falls from there. The variance is a sum of three: from the
        choice of tokens (the jackknife, which leaves out groups), from the form of the tails (FORM_ERROR), and from
        the choice of the latents that are followed (binomial). The tails know tokens and not documents. So beyond
        the stream the second is multiplied with the design effect.

        Raises InputError unless sample <= counted_tokens <= tokens.
        """
        if not self.tokens <= counted_tokens <= tokens:
            raise InputError(
                f"forecast: expected at least as many tokens as were counted, and to have counted the sample of "
                f"{self.tokens:,}, got {tokens:,} tokens, of which {counted_tokens:,} were counted"
            )
        value, *left_out = (
            counted * _part(tail.silent(tokens), tail.silent(counted_tokens))
            for tail in (self.whole, *self.without)
        )
        sampling, errors = jackknife(torch.tensor(left_out, dtype=torch.float64, device="cpu"))
        form = (FORM_ERROR * (counted - value)) ** 2
        if tokens > self.stream_tokens:
            form *= self.tokens / self.effective_tokens
        drawing = value * (1 - value) / len(self.whole.chance)
        half = errors * sqrt(self.inflation * sampling + form + drawing)
        return Expected(value=value, low=max(0.0, value - half), high=min(counted, value + half))

    def __str__(self) -> str:
        return (
            f"from {self.tokens:,} tokens, on which {self.silent_on_sample:.1%} of {self.d_sae:,} latents are dead"
        )


@torch.no_grad()
@whole_arguments("stream_tokens", "followed")
def forecast_trained(
    sae: SAE,
    sample: Float[Tensor, "sample d_in"] | NDArray[Any],
    *,
    documents: Int[Tensor, "sample"] | NDArray[Any] | None = None,
    stream_tokens: int | None = None,
    followed: int = FOLLOWED,
) -> TrainedForecast:
    """Forecast which fraction of a trained SAE's latents fires on none of many tokens: `dead(tokens)`.

    sample: at least 40 raw tokens, spread over the stream and in its order. documents, stream_tokens: as for
    `forecast`. followed: the largest number of latents whose tails are fitted. They are spread evenly over all
    latents, because neighbours may be alike, as in Matryoshka SAEs.

    Raises InputError for tokens that are no finite matrix, for fewer than 40 tokens, and for documents that are not
    one whole number for each token.
    """
    y = sae.enter(matrix(sample))[0]
    return _forecast(sae, y, documents=documents, stream_tokens=stream_tokens or len(y), followed=followed)


@torch.no_grad()
def forecast_dead(
    sae: SAE,
    y: Float[Tensor, "sample d_in"],
    fates: Fates,
    *,
    at_tokens: int,
    documents: Int[Tensor, "sample"] | None,
    stream_tokens: int,
) -> DeadForecast | None:
    """The fraction of the latents expected to fire on none of `at_tokens` tokens, those of `fates` among them.

    None if at least as many tokens were counted, so that `fates.dead` is the answer, for a sample of fewer than 40
    tokens, and for one of copies of one token.

    y: a sample of the tokens that were counted, in the SAE's space; documents: the document of each, or None;
    stream_tokens: the number of tokens that the counted ones are spread over.
    """
    if at_tokens <= fates.tokens or len(y) < 2 * LEAST_TAIL:
        return None
    if bool((y == y[0]).all()):
        return None  # copies say nothing of other tokens
    if fates.dead == 0:
        return DeadForecast(0.0, 0.0, 0.0, at_tokens)
    forecast = _forecast(sae, y, documents=documents, stream_tokens=stream_tokens, followed=FOLLOWED)
    expected = forecast.dead_after(at_tokens, counted=fates.dead, counted_tokens=fates.tokens)
    return DeadForecast(expected.value, expected.low, expected.high, at_tokens)


def _forecast(
    sae: SAE,
    y: Float[Tensor, "sample d_in"],
    *,
    documents: Int[Tensor, "sample"] | NDArray[Any] | None,
    stream_tokens: int,
    followed: int,
) -> TrainedForecast:
    """The forecast from a sample in the SAE's space."""
    # At least float32: the excesses over a level are small differences of margins.
    dtype = torch.promote_types(sae.W_enc.dtype, torch.float32)
    groups = sample_groups(y, documents, stream_tokens)
    order, followed = _follow(sae, followed)
    b_enc, threshold = (
        tensor if tensor is None or tensor.ndim == 0 else tensor[order] for tensor in (sae.b_enc, sae.threshold)
    )
    sampled = margins(
        (y - sae.encoder_center).to(dtype),
        sae.W_enc[order].to(dtype),
        sae.sparsity,
        b_enc=None if b_enc is None else b_enc.to(dtype),
        threshold=None if threshold is None else threshold.to(dtype),
        followed=followed,
    )
    groups = groups.reorder(sampled.order)
    observed = tails_of(sampled.over, most_clumped(sampled.over, groups.guesses))
    observed = replace(observed, shrinkage=_shrinkage(observed))
    clumping = observed.clumping
    effect = max(clumping, groups.least_effect)
    return TrainedForecast(
        tokens=len(y),
        d_sae=sae.d_sae,
        silent_on_sample=sampled.silent,
        shrinkage=observed.shrinkage,
        effective_tokens=len(y) / effect,
        stream_tokens=stream_tokens,
        whole=observed.tail(),
        without=observed.tails_without(),
        inflation=effect / clumping,
    )


def _shrinkage(observed: Margins) -> float:
    """The shrinkage under which as many latents are expected silent on parts of the sample as are. It is on the
    line through the errors of two shrinkages. 1 if every latent fired.
    """
    tails = [replace(observed, shrinkage=tried).tail() for tried in _TRIED]
    low, high = (sum(_error(tail, tail.tokens // span) for span in _SPANS) for tail in tails)
    if low <= high:  # the less shrunk, the fewer are silent on parts; else the tails have no say
        return 1.0
    root = _TRIED[0] + (_TRIED[1] - _TRIED[0]) * low / (low - high)
    return min(max(root, SHRINKAGES[0]), SHRINKAGES[1])


def _error(tail: Tail, tokens: int) -> float:
    """The fraction of latents expected silent on `tokens` tokens of the sample, minus the fraction that is."""
    return float((-tail.chance * tokens).exp().mean()) - tail.silent(tokens)


def _part(part: float, whole: float) -> float:
    """part / whole; 1 where the tails say that nothing is silent, and so nothing of what is counted."""
    return part / whole if whole else 1.0


def _follow(sae: SAE, most: int) -> tuple[slice | Int[Tensor, "d_sae"], int]:
    """(the order of the latents in which those to follow come first, how many these are). They are spread evenly.

    Latents that choose among themselves stay together (`Sparsity.block_size`).
    """
    if sae.d_sae <= most:
        return slice(None), sae.d_sae
    size = sae.sparsity.block_size(sae.d_sae)
    blocks, number = sae.d_sae // size, max(1, most // size)
    first = torch.arange(number, device="cpu") * blocks // number
    is_first = torch.zeros(blocks, dtype=torch.bool, device="cpu")
    is_first[first] = True
    order = torch.cat([first, (~is_first).nonzero()[:, 0]])
    latents = (order[:, None] * size + torch.arange(size, device="cpu")).flatten()
    return latents.to(sae.W_enc.device), number * size
