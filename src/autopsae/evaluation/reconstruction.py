"""How well an SAE does on held-out tokens, in the space of the raw activations, and who of its latents lives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arguments import check_whole, whole_arguments
from autopsae.arrays import InputError, Tokens, chunks
from autopsae.defaults import AT_TOKENS, MOST_TOKENS, SAMPLE_TOKENS
from autopsae.modules import evaluation_mode
from autopsae.passes import known_tokens, same_passes, source_documents, spread_over
from autopsae.progress import Progress, tell_progress
from autopsae.sae.death import Census, Fates
from autopsae.sae.model import SAE
from autopsae.statistics.groups import documents_of_sample
from autopsae.statistics.norms import NormHistogram
from autopsae.statistics.sample import Reservoir
from autopsae.statistics.strays import STRAY
from autopsae.survival.outlook import DeadForecast
from autopsae.survival.trained import forecast_dead
from autopsae.tables import Result

NO_SPREAD = 1e-12
"""Tokens do not differ if their spread is no larger than this share of their mean's length: rounding errors are."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evaluation(Result):
    """An SAE on held-out tokens."""

    tokens: int
    """Tokens that it was evaluated on."""
    fvu_raw: float | None
    """Summed squared error over the tokens' summed squared distance from their mean, both in raw space, so that
    SAEs under different remedies compare. None where the tokens do not differ: there is no variance to explain."""
    fvu_typical: float | None
    """The same without stray tokens (over ten times the median norm), which may hold most of either sum."""
    strays: float
    """Share of the tokens that are stray."""
    mse_raw: float
    """Mean squared error per token and dimension."""
    l0: float
    """Latents that fired, per token."""
    bias_captured: float
    """b . mu / ||mu||^2, the share of the mean that the bias has taken over (b in raw space)."""
    fates: Fates
    """What each latent did."""
    dead_forecast: DeadForecast | None = None
    """The fraction of the latents expected dead on `dead_forecast.tokens` tokens, with its interval: a latent that
    is silent on few tokens may fire on further ones. None where no forecast was asked for, where at least as many
    tokens were counted, so that `fates.dead` is the answer, and on fewer than 40 tokens."""

    def __str__(self) -> str:
        fvu = "none, as the tokens do not differ" if self.fvu_raw is None else f"{self.fvu_raw:.4f}"
        later = "" if self.dead_forecast is None else f"; {self.dead_forecast}"
        return f"raw FVU {fvu}, L0 {self.l0:.1f}; {self.fates}{later}"


@torch.no_grad()
@whole_arguments("at_tokens")
def evaluate(
    sae: SAE,
    tokens: Tokens,
    *,
    documents: Sequence[int] | NDArray[Any] | None = None,
    at_tokens: int | None = AT_TOKENS,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate on raw tokens in two passes (the norms, then the errors), sums in float64.

    at_tokens: the number of tokens for which death is forecast, from a sample of 4,096 of the tokens
        (`survival.forecast_trained`); None for no forecast. The sample is encoded once more, and tails are fitted;
        nothing is computed if no latent is dead.
    documents: the number of the document, image or sequence that each token is from, in any order, for the interval
        of the forecast. Default: what the source says (`Activations.documents`), else unknown.
    progress: told the tokens of each pass, as "norms" and "errors".

    Raises InputError as `chunks`, for passes that differ, for tokens of another width than the SAE's, for those
    that its type cannot hold in its own unit, for weights that are not finite, for `at_tokens` under 1, and for
    documents that are not one whole number for each token.
    """
    sae.check_finite("evaluate")
    if at_tokens is not None:
        check_whole("evaluate: at_tokens", at_tokens, least=1, most=MOST_TOKENS)
    documents = source_documents(tokens) if documents is None else documents
    weight, tokens = sae.W_enc, same_passes(tokens)
    sample = None if at_tokens is None else Reservoir(SAMPLE_TOKENS)
    limit = STRAY * _norms(tokens, sae.d_in, weight.device, sample, progress).typical
    typical, stray = Sums(), Sums()
    entered, n = torch.zeros(sae.d_in, dtype=torch.float64, device=weight.device), 0
    census = Census(sae.d_sae, weight.device)
    with evaluation_mode(sae):
        blocks = chunks(tokens, dtype=torch.float64, device=weight.device)
        for x in tell_progress(blocks, progress, "errors", known_tokens(tokens)):
            y, back = sae.enter(x)
            _check_held(y, x, n)
            selection = sae.select(y)
            error = (x - back(sae.reconstruct(selection)).double()).square().sum(dim=1)
            beyond = torch.linalg.vector_norm(x, dim=1) > limit
            typical = typical + Sums.of(x[~beyond], error[~beyond])
            stray = stray + Sums.of(x[beyond], error[beyond])
            entered += y.sum(dim=0, dtype=torch.float64)
            census.see(selection)
            n += len(x)
    fates, both = census.fates(), typical + stray
    later = None
    if sample is not None and at_tokens is not None:
        later = forecast_dead(
            sae,
            sae.enter(sample.tokens())[0],
            fates,
            at_tokens=at_tokens,
            documents=documents_of_sample(documents, n, sample.places),
            stream_tokens=spread_over(tokens) or n,
        )
    return Evaluation(
        tokens=n,
        fvu_raw=both.fvu,
        fvu_typical=typical.fvu,
        strays=stray.tokens / n,
        mse_raw=both.error / (n * sae.d_in),
        l0=float(fates.fired.sum()) / n,
        bias_captured=sae.bias_captured(entered / n),
        fates=fates,
        dead_forecast=later,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Over some of the tokens: squared errors, and squared distances from their own mean. Parts are added by the
    formula of Chan, Golub and LeVeque (1979): a few huge tokens cost the others no digits.
    """

    tokens: int = 0
    error: float = 0.0
    square: float = 0.0
    mean: Float[Tensor, "d_in"] | None = None

    @staticmethod
    def of(x: Float[Tensor, "some d_in"], error: Float[Tensor, "some"]) -> "Sums":
        """Sums over the rows of `x`, whose squared errors are `error`; zeros where there is no row."""
        if not len(x):
            return Sums()
        mean = x.mean(dim=0)
        return Sums(tokens=len(x), error=float(error.sum()), square=float((x - mean).square().sum()), mean=mean)

    def __add__(self, other: "Sums") -> "Sums":
        if self.mean is None or other.mean is None:
            return other if self.mean is None else self
        n, delta = self.tokens + other.tokens, other.mean - self.mean
        between = float(delta @ delta) * self.tokens * other.tokens / n
        return Sums(
            tokens=n,
            error=self.error + other.error,
            square=self.square + other.square + between,
            mean=self.mean + delta * (other.tokens / n),
        )

    @property
    def fvu(self) -> float | None:
        """None where the tokens do not differ, or there are none."""
        if self.mean is None or self.square <= NO_SPREAD**2 * self.tokens * float(self.mean @ self.mean):
            return None
        return self.error / self.square


def _norms(
    tokens: Tokens, d_in: int, device: torch.device, sample: Reservoir | None, progress: Progress | None
) -> NormHistogram:
    """How long the tokens are. The sample, if there is one, is shown them. Raises InputError for another width than
    `d_in`.
    """
    norms: NormHistogram | None = None
    n = 0
    blocks = chunks(tokens, dtype=torch.float64, device=device)
    for x in tell_progress(blocks, progress, "norms", known_tokens(tokens)):
        if x.shape[1] != d_in:
            raise InputError(
                f"evaluate: expected tokens of d_in = {d_in}, as the SAE's, got {x.shape[1]}; choose the layer "
                "that it was trained on"
            )
        seen = NormHistogram.of(x)
        norms = norms.merge(seen) if norms else seen
        if sample is not None:
            sample.add(x, n)
        n += len(x)
    assert norms is not None  # chunks raises when there is no token
    return norms


def _check_held(y: Float[Tensor, "chunk d_in"], x: Float[Tensor, "chunk d_in"], start: int) -> None:
    """InputError where a token overflows in the SAE's unit and type. start: of the chunk, among all tokens."""
    if not bool(torch.isfinite(y.sum(dtype=torch.float64))) and not bool(y.isfinite().all()):
        first = int((~y.isfinite().all(dim=1)).nonzero()[0])
        raise InputError(
            f"evaluate: expected tokens that an SAE of {y.dtype} can hold in its unit, got one of norm "
            f"{float(x[first].norm()):.3g}, token {start + first:,} of those read; leave it out, or convert the "
            "SAE to float64"
        )
