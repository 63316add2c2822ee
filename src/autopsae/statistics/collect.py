"""All statistics of a layer in one pass over its tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens, chunks
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.kernels.workspace import Workspace
from autopsae.memory import check_memory
from autopsae.passes import known_tokens
from autopsae.progress import Progress, tell_progress
from autopsae.statistics.moments import Marginals, Moments, RunningMoments, layer_norm, normalize
from autopsae.statistics.norms import NormHistogram
from autopsae.statistics.repeats import RowCounter, RowCounts
from autopsae.statistics.room import bytes_of_moments
from autopsae.statistics.sample import Reservoir, Rows
from autopsae.statistics.spectrum import Spectrum
from autopsae.statistics.wide import RunningMarginals, is_wide, reservoir_size, with_correlations
from autopsae.tables import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Statistics(Result):
    """What a diagnosis needs to know of the tokens; its size does not grow with their number."""

    raw: Moments
    """Moments of the activations."""
    normed: Moments
    """Moments after per-token LayerNorm (paper Sec. 4); `collect` says how exact they are."""
    norms: NormHistogram
    """The tokens' L2 norms."""
    reservoir: Reservoir
    """A uniform sample."""
    rows: RowCounts
    """How many tokens are the same vector."""
    covariance_tokens: int
    """Tokens that the correlations between dimensions are from: all, or of a wide layer a sample
    (`collect(wide=...)`)."""

    @property
    def tokens(self) -> int:
        """Tokens seen."""
        return self.raw.tokens

    @property
    def d_in(self) -> int:
        """Dimensions of a token."""
        return len(self.raw.mean)

    @property
    def sample(self) -> Float[Tensor, "sample d_in"]:
        """Tokens drawn uniformly from all, in the order of the stream."""
        return self.reservoir.tokens()

    @cached_property
    def spectrum(self) -> Spectrum:
        """The principal variances and directions of the activations as they are, found once. Raises InputError if
        they would not fit in memory.
        """
        return Spectrum.of(self.raw.covariance)

    def merge(self, other: "Statistics") -> "Statistics":
        """Statistics of two parts of one stream, as if they had been collected in one pass."""
        if self.d_in != other.d_in:
            raise InputError(f"merge: expected statistics of one width, got d_in = {self.d_in} and {other.d_in}")
        return Statistics(
            raw=self.raw.merge(other.raw),
            normed=self.normed.merge(other.normed),
            norms=self.norms.merge(other.norms),
            reservoir=self.reservoir.merge(other.reservoir),
            rows=self.rows.merge(other.rows),
            covariance_tokens=self.covariance_tokens + other.covariance_tokens,
        )

    def __str__(self) -> str:
        return f"statistics of {self.tokens:,} tokens in {self.d_in:,} dimensions; {self.norms}"


def _of_covariances(d_in: int) -> int:
    return bytes_of_moments(d_in, streams=2)


@whole_arguments("start", "sample_tokens", "seed", "wide")
def collect(
    tokens: Tokens,
    *,
    start: int = 0,
    sample_tokens: int = SAMPLE_TOKENS,
    seed: int = 0,
    wide: int | None = None,
    device: torch.device | str | None = None,
    needs: Callable[[int], int] = _of_covariances,
    progress: Progress | None = None,
) -> Statistics:
    """Statistics of a token stream in one pass, sums in float64, memory independent of its length.

    All is computed in float64, with one exception: after LayerNorm, deviations from the mean of tokens that come in
    float32 or less are multiplied in float32. Off its diagonal, `normed.covariance` is then right to 1e-6 of its
    norm; float64 tokens are multiplied in float64. `raw.covariance` is float64 in any case, as whitening divides by
    its smallest eigenvalues.

    start: place of the first token in the whole stream, where this is a part that will be merged with others (the
    parts' samples then merge into the whole stream's sample); sample_tokens: size of the uniform sample; wide: of
    layers of over `wide` dimensions, the correlations between dimensions are from a sample of four tokens for each
    dimension, and only means and variances from all tokens (default: all is from all tokens); device: where to
    compute (default: where the tokens are); needs: bytes of memory that must be free for tokens of a width, asked
    before any are taken (default: those of the two covariances); progress: told the tokens read, as "statistics".

    Raises InputError as `chunks`, for d_in < 2, for a layer so wide that it would not fit in memory, and for norms
    whose squares would overflow (one over 2^480 = 3e144) or vanish (all under 2^-480, but not all zero).
    """
    collector = Collector(start=start, sample_tokens=sample_tokens, seed=seed, wide=wide)
    blocks = chunks(tokens, dtype=None, device=device)
    for number, x in enumerate(tell_progress(blocks, progress, "statistics", known_tokens(tokens))):
        if number == 0:
            what = f"for tokens of d_in = {x.shape[1]:,}, whose covariances take [d_in, d_in] numbers each"
            check_memory(needs(x.shape[1]), x.device, what, "use a machine with more, or a narrower layer")
        collector.add(x)
    return collector.statistics()


class Collector:
    """The statistics of a stream that is shown block by block: `collect` for whoever cannot give it as a whole."""

    def __init__(
        self,
        *,
        start: int = 0,
        sample_tokens: int = SAMPLE_TOKENS,
        seed: int = 0,
        wide: int | None = None,
        memory: Workspace | None = None,
    ) -> None:
        """Arguments as `collect`. memory: for what is needed while a block is added; collectors that take turns may
        share it. How much memory is free is not asked.
        """
        self._place, self._size, self._seed, self._wide = start, sample_tokens, seed, wide
        self._reservoir = Reservoir(sample_tokens, seed=seed)
        self._from: Rows | None = None
        self._rows, self._memory = RowCounter(), memory or Workspace()
        self._layer: _Covariances | _Marginals | None = None
        self._norms: NormHistogram | None = None

    def move_to(self, place: int, *, rows: Rows | None = None) -> None:
        """The next block begins at another place of the stream. rows: as for `Reservoir.add`."""
        self._place, self._from = place, rows

    def add(self, x: Float[Tensor, "tokens d_in"]) -> None:
        """Add a block in float32 or float64. Raises InputError as `collect`."""
        d_in = x.shape[1]
        if d_in < 2:
            raise InputError(f"expected d_in of at least 2, got {d_in}; gamma and rank need directions")
        if self._layer is None:
            kept = reservoir_size(d_in, self._size, wide=self._wide)
            self._reservoir = Reservoir(kept, seed=self._seed)
            self._layer = (_Marginals if is_wide(d_in, self._wide) else _Covariances)(self._memory)
        self._reservoir.add(x, self._place, rows=self._from)
        self._place += len(x)
        self._from = self._from and Rows(self._from.file, self._from.first + len(x))
        self._rows.add(x)
        part = NormHistogram.of(x)  # first, as it refuses what would overflow
        self._norms = self._norms.merge(part) if self._norms else part
        out = self._memory.take("normed", tuple(x.shape), x.new_empty(0, dtype=torch.float64))
        self._layer.add(x, normalize(x, out))

    def statistics(self) -> Statistics:
        """Of all blocks, at least one. Raises InputError where all norms vanish."""
        return self.partial().statistics()

    def partial(self) -> "PartialStatistics":
        """What was collected of all blocks, at least one, to be merged with that of other parts of the stream."""
        assert self._norms is not None
        assert self._layer is not None
        return PartialStatistics(
            raw=self._layer.raw.moments(),
            normed=self._layer.normed.moments(),
            norms=self._norms,
            reservoir=self._reservoir,
            rows=self._rows.counts(),
            sample_tokens=self._size,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PartialStatistics:
    """What is kept of a part of a stream until all parts are there: sums that merge exactly, in any order."""

    raw: Moments | Marginals
    """Of the activations; of a wide layer only the moments of each dimension."""
    normed: Moments | Marginals
    """After per-token LayerNorm."""
    norms: NormHistogram
    """The tokens' L2 norms."""
    reservoir: Reservoir
    """As many tokens as the sample and the correlations of a wide layer take."""
    rows: RowCounts
    """How many tokens are the same vector."""
    sample_tokens: int
    """Size of the sample."""

    def merge(self, other: "PartialStatistics") -> "PartialStatistics":
        """Those of two parts together. Raises InputError for parts of another width or another sample."""
        if self.raw.mean.shape != other.raw.mean.shape:
            widths = f"{len(self.raw.mean)} and {len(other.raw.mean)}"
            raise InputError(f"merge: expected statistics of one width, got d_in = {widths}")
        return PartialStatistics(
            raw=_merge_moments(self.raw, other.raw),
            normed=_merge_moments(self.normed, other.normed),
            norms=self.norms.merge(other.norms),
            reservoir=self.reservoir.merge(other.reservoir),
            rows=self.rows.merge(other.rows),
            sample_tokens=self.sample_tokens,
        )

    def statistics(self) -> Statistics:
        """The statistics of the stream. Raises InputError where all norms vanish."""
        if self.norms.vanishing:
            raise InputError(
                f"expected activations with norms over 3.2e-145, got {self.norms.largest:.1e} at most, whose "
                "squares vanish; multiply all tokens by a constant first"
            )
        raw, normed, tokens = self.raw, self.normed, self.raw.tokens
        if isinstance(raw, Marginals) or isinstance(normed, Marginals):
            # Only now, of the sample of the whole stream: correlations of samples of parts would not merge to them.
            sample = self.reservoir.tokens()
            raw, tokens = with_correlations(raw.marginals, Moments.of(sample)), len(sample)
            normed = with_correlations(normed.marginals, Moments.of(layer_norm(sample)))
        return Statistics(
            raw=raw,
            normed=normed,
            norms=self.norms,
            reservoir=self.reservoir.part(self.sample_tokens),
            rows=self.rows,
            covariance_tokens=tokens,
        )


def _merge_moments(one: Moments | Marginals, other: Moments | Marginals) -> Moments | Marginals:
    if isinstance(one, Moments) and isinstance(other, Moments):
        return one.merge(other)
    if isinstance(one, Moments) or isinstance(other, Moments):
        raise InputError("merge: expected parts that are all of a wide layer or all not, got both")
    return one.merge(other)


class _Covariances:
    """Moments of all tokens, raw and after LayerNorm."""

    def __init__(self, memory: Workspace) -> None:
        self.raw, self.normed = RunningMoments(memory), RunningMoments(memory)

    def add(self, x: Float[Tensor, "tokens d_in"], normed: Float[Tensor, "tokens d_in"]) -> None:
        self.raw.add(x)
        self.normed.add(normed, products=x.dtype)


class _Marginals:
    """The same of each dimension of a wide layer; its correlations will be those of its sample."""

    def __init__(self, memory: Workspace) -> None:
        self.raw, self.normed = RunningMarginals(memory), RunningMarginals(memory)

    def add(self, x: Float[Tensor, "tokens d_in"], normed: Float[Tensor, "tokens d_in"]) -> None:
        self.raw.add(x)
        self.normed.add(normed)
