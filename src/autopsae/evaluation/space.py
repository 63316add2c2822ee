"""The tokens as an SAE sees them: their centre, their spread along any row, and what a latent has to exceed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Mapped, Tokens, chunks
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.evaluation.reconstruction import NO_SPREAD
from autopsae.memory import check_memory
from autopsae.passes import same_passes
from autopsae.sae.model import SAE
from autopsae.seeds import stream
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import Moments
from autopsae.statistics.norms import NormHistogram
from autopsae.statistics.repeats import RowCounter
from autopsae.statistics.room import bytes_of_moments
from autopsae.statistics.sample import Reservoir
from autopsae.statistics.strays import STRAY, leave_out

LEAST_TOKENS = 100
"""On fewer tokens, silence says little."""

_BLOCK = 512  # tokens whose pre-activations are held at a time
_DRAWN = 1024  # directions that say what is typical


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Tokens in an SAE's space, and in numbers: their geometric median, which no stray token drags; the covariance
    of those that are not stray (over ten times the median norm); and the share of the stray.
    """

    entered: Mapped
    tokens: int
    center: Float[Tensor, "d_in"]
    covariance: Float[Tensor, "d_in d_in"]
    strays: float
    repeated: float
    """Share of the tokens that are the most frequent vector."""
    sample: Reservoir
    """4,096 of the tokens."""

    @staticmethod
    def of(sae: SAE, tokens: Tokens) -> "Space":
        """A few passes, sums in float64.

        Raises InputError as `chunks`, for passes that differ, for tokens of another width than the SAE's, for fewer
        than 100, and where a covariance would not fit in memory.
        """
        what = f"for the covariance of d_in = {sae.d_in:,}"
        needed = bytes_of_moments(sae.d_in, streams=1)
        check_memory(needed, sae.W_enc.device, what, "use a machine with more")
        entered = Mapped(same_passes(tokens), lambda x: _enter(sae, x))
        sample, rows, norms, n = Reservoir(SAMPLE_TOKENS), RowCounter(), None, 0
        for y in chunks(entered, dtype=torch.float64):
            sample.add(y, n)
            rows.add(y)
            seen = NormHistogram.of(y)
            norms, n = norms.merge(seen) if norms else seen, n + len(y)
        assert norms is not None  # chunks raises when there is no token
        if n < LEAST_TOKENS:
            raise InputError(
                f"autopsy: expected at least {LEAST_TOKENS} tokens, got {n}; silence on few says little"
            )
        limit = STRAY * norms.typical
        moments: Moments | None = None
        for y in chunks(leave_out(entered, limit), dtype=torch.float64):
            moments = moments.merge(Moments.of(y)) if moments else Moments.of(y)
        assert moments is not None  # half of the tokens are no longer than the median
        if float(moments.std.norm()) <= NO_SPREAD * float(moments.mean.norm()):
            raise InputError(
                f"autopsy: expected tokens that differ, got {moments.tokens:,} copies of one vector besides stray "
                "tokens; leave out the padding, and check the mask and the hook point"
            )
        return Space(
            entered=entered,
            tokens=n,
            center=geometric_median(entered, sample=sample.tokens(), tolerance=1e-5),
            covariance=moments.covariance,
            strays=(n - moments.tokens) / n,
            repeated=rows.counts().repeats().largest_share,
            sample=sample,
        )

    def blocks(self, like: Float[Tensor, "..."]) -> Iterator[Float[Tensor, "block d_in"]]:
        """The tokens in the type and on the device of `like`, some at a time."""
        return chunks(self.entered, _BLOCK, dtype=like.dtype, device=like.device)

    def spread(self, W: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows"]:
        """Standard deviation of W y over the tokens, in float64."""
        rows = W.detach().double()
        return ((rows @ self.covariance.to(rows.device)) * rows).sum(dim=1).clamp_min(0).sqrt()

    def typical_variance(self) -> float:
        """Variance along a typical direction: the median over directions drawn at random. It is not the mean, which
        one direction of huge variance would own.
        """
        chance = stream(0, "typical directions")
        drawn = torch.randn(_DRAWN, len(self.center), generator=chance, dtype=torch.float32, device="cpu")
        rows = torch.nn.functional.normalize(drawn, dim=1).to(self.covariance.device)
        return float(self.spread(rows).square().median())


def shift_to(sae: SAE, center: Float[Tensor, "d_in"]) -> Float[Tensor, "d_sae"]:
    """What moving b_dec to the centre takes from each pre-activation, w . (center - b_dec), as far as b_enc has not
    taken it already: what is left, w . (center - b_dec) + b_enc, is brought towards zero, not beyond. In float64.
    """
    shift = sae.W_enc.detach().double() @ (
        center.to(sae.W_enc.device).double() - sae.encoder_center.detach().double()
    )
    if sae.b_enc is None:
        return shift
    return (shift + sae.b_enc.detach().double()).clamp(shift.clamp_max(0), shift.clamp_min(0))


def margins(sae: SAE, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "tokens d_sae"]:
    """How far each pre-activation of a block is over what it has to exceed to fire (`Sparsity.margins`)."""
    threshold = sae.threshold
    return sae.sparsity.margins(pre, None if threshold is None else threshold.detach().to(pre))


def _enter(sae: SAE, x: Float[Tensor, "some d_in"]) -> Float[Tensor, "some d_in"]:
    if x.shape[1] != sae.d_in:
        raise InputError(
            f"autopsy: expected tokens of d_in = {sae.d_in}, as the SAE's, got {x.shape[1]}; choose the layer that "
            "it was trained on"
        )
    with torch.no_grad():
        return sae.enter(x)[0]
