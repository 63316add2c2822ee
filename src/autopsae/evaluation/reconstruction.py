"""How well an SAE does on held-out tokens, in the space of the raw activations, and who of its latents lives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens, chunks
from autopsae.modules import evaluation_mode
from autopsae.passes import known_tokens, same_passes
from autopsae.progress import Progress, tell_progress
from autopsae.sae.death import Census, Fates
from autopsae.sae.model import SAE
from autopsae.statistics.norms import NormHistogram
from autopsae.statistics.strays import STRAY
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

    def __str__(self) -> str:
        fvu = "none, as the tokens do not differ" if self.fvu_raw is None else f"{self.fvu_raw:.4f}"
        return f"raw FVU {fvu}, L0 {self.l0:.1f}; {self.fates}"


@torch.no_grad()
def evaluate(sae: SAE, tokens: Tokens, *, progress: Progress | None = None) -> Evaluation:
    """Evaluate on raw tokens in two passes (the norms, then the errors), sums in float64.

    progress: told the tokens of each pass, as "norms" and "errors".

    Raises InputError as `chunks`, for passes that differ, for tokens of another width than the SAE's, for those
    that its type cannot hold in its own unit, and for weights that are not finite.
    """
    sae.check_finite("evaluate")
    weight, tokens = sae.W_enc, same_passes(tokens)
    limit = STRAY * _norms(tokens, sae.d_in, weight.device, progress).typical
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
    return Evaluation(
        tokens=n,
        fvu_raw=both.fvu,
        fvu_typical=typical.fvu,
        strays=stray.tokens / n,
        mse_raw=both.error / (n * sae.d_in),
        l0=float(fates.fired.sum()) / n,
        bias_captured=sae.bias_captured(entered / n),
        fates=fates,
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


def _norms(tokens: Tokens, d_in: int, device: torch.device, progress: Progress | None) -> NormHistogram:
    """How long the tokens are. Raises InputError for another width than `d_in`."""
    norms: NormHistogram | None = None
    blocks = chunks(tokens, dtype=torch.float64, device=device)
    for x in tell_progress(blocks, progress, "norms", known_tokens(tokens)):
        if x.shape[1] != d_in:
            raise InputError(
                f"evaluate: expected tokens of d_in = {d_in}, as the SAE's, got {x.shape[1]}; choose the layer "
                "that it was trained on"
            )
        seen = NormHistogram.of(x)
        norms = norms.merge(seen) if norms else seen
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
