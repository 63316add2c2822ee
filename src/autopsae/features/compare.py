"""Coverages of several SAEs of one layer side by side: paired differences, with bootstrap intervals."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from autopsae.arguments import check_whole, whole_arguments
from autopsae.arrays import InputError
from autopsae.features.coverage_result import COVERED, Coverage
from autopsae.features.tallies import f1_of
from autopsae.seeds import hash_seed
from autopsae.tables import Result
from autopsae.words import printable, show

RESAMPLES = 1000
"""Bootstrap samples."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class CoverageGain:
    """What an SAE covers beyond the baseline, on the same concepts and documents, with intervals of 90%."""

    name: str
    """The SAE."""
    covered: int
    """Concepts that it covers."""
    live: int
    """Its live latents."""
    more_covered: int
    """Concepts covered, minus those of the baseline."""
    more_covered_by_concepts: Interval
    """The interval of that difference over concepts drawn anew."""
    more_covered_by_documents: Interval
    """The interval over test documents drawn anew, the chosen latents unchanged."""
    mean_f1: float
    """Mean F1 of the best latents on test documents."""
    more_f1: float
    """Mean F1 minus that of the baseline."""
    more_f1_by_concepts: Interval
    """The interval of that difference over concepts."""
    more_f1_by_documents: Interval
    """The interval of that difference over test documents."""
    equal_live: int
    """Live latents of whichever of the two has fewer."""
    covered_by_equal_live: float
    """Concepts expected to be covered by so many of its live latents, drawn at random."""
    baseline_by_equal_live: float
    """The same for the baseline. A gain that is left at equal numbers is due to better latents, not to more."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CoverageComparison(Result):
    """Several SAEs against one of them (`compare_coverages`)."""

    baseline: str
    """The SAE that the others are compared with."""
    coverages: Mapping[str, Coverage]
    """The coverage of each, the baseline first."""
    gains: tuple[CoverageGain, ...]
    """One for each of the others."""

    def __str__(self) -> str:
        first = self.coverages[self.baseline]
        lines = [f"{printable(self.baseline)} covers {first.count():,} of {len(first.scores):,} concepts"]
        for gain in self.gains:
            low, high = gain.more_covered_by_documents
            lines.append(
                f"{printable(gain.name)}: {gain.covered:,} ({gain.more_covered:+,}; {low:+.0f} to {high:+.0f} over "
                f"documents; with {gain.equal_live:,} live latents each {gain.covered_by_equal_live:.1f} against "
                f"{gain.baseline_by_equal_live:.1f})"
            )
        return "\n".join(lines[:11])

    def to_dict(self) -> dict[str, Any]:
        """JSON: every coverage, and the gains."""
        return {
            "baseline": self.baseline,
            "coverages": {name: coverage.to_dict() for name, coverage in self.coverages.items()},
            "gains": [asdict(gain) for gain in self.gains],
        }


@whole_arguments("resamples", "seed")
def compare_coverages(
    coverages: Mapping[str, Coverage],
    *,
    baseline: str | None = None,
    limit: float = COVERED,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CoverageComparison:
    """Paired differences of each coverage from the baseline, with percentile bootstrap intervals (Efron 1979).

    baseline: the name of one of them, by default the first; limit: the F1 over which a concept is covered;
    resamples: bootstrap samples, which are the same for all SAEs, so that the differences are paired; seed: theirs.

    Raises InputError for fewer than two, for a baseline that is not among them, for coverages of other concepts,
    tokens, documents or thresholds, for a limit outside [0, 1), and for resamples below 1.
    """
    check_whole("resamples", resamples, least=1, most=10**9)
    if not 0 <= limit < 1:
        raise InputError(f"limit: expected an F1 of at least 0 and under 1, got {show(limit)}")
    baseline = next(iter(coverages), "") if baseline is None else baseline
    if baseline not in coverages or len(coverages) < 2:
        raise InputError(
            f"compare_coverages: expected at least two coverages and one of them as baseline, got "
            f"{', '.join(coverages) or 'none'} and {baseline!r}"
        )
    ordered = {baseline: coverages[baseline]} | {n: c for n, c in coverages.items() if n != baseline}
    first = coverages[baseline]
    for name, other in ordered.items():
        _check_same(name, first, other)
    drawn = {name: _by_documents(coverage, limit, resamples, seed) for name, coverage in ordered.items()}
    gains = [
        _gain(name, other, first, drawn[name] - drawn[baseline], limit=limit, resamples=resamples, seed=seed)
        for name, other in ordered.items()
        if name != baseline
    ]
    return CoverageComparison(baseline=baseline, coverages=ordered, gains=tuple(gains))


def _gain(
    name: str,
    own: Coverage,
    other: Coverage,
    by_documents: Float[np.ndarray, "two resamples"],
    *,
    limit: float,
    resamples: int,
    seed: int,
) -> CoverageGain:
    """by_documents: the differences of `_by_documents`."""
    pair = (own, other)
    f1 = np.array([[score.f1 for score in coverage.scores] for coverage in pair])
    is_over = np.array([[score.exceeds(limit) for score in coverage.scores] for coverage in pair])
    n = len(own.scores)
    chance = np.random.default_rng(hash_seed(seed, "concepts drawn anew"))
    drawn = chance.integers(0, n, (resamples, n))
    of_concepts = (is_over[0].astype(int) - is_over[1])[drawn].sum(axis=1)
    f1_of_concepts = (f1[0] - f1[1])[drawn].mean(axis=1)
    equal = min(own.live, other.live)
    by_equal = [coverage.count_with(equal, limit) if equal else 0.0 for coverage in pair]
    return CoverageGain(
        name=name,
        covered=int(is_over[0].sum()),
        live=own.live,
        more_covered=int(is_over[0].sum()) - int(is_over[1].sum()),
        more_covered_by_concepts=_interval(of_concepts),
        more_covered_by_documents=_interval(by_documents[0]),
        mean_f1=float(f1[0].mean()),
        more_f1=float((f1[0] - f1[1]).mean()),
        more_f1_by_concepts=_interval(f1_of_concepts),
        more_f1_by_documents=_interval(by_documents[1]),
        equal_live=equal,
        covered_by_equal_live=by_equal[0],
        baseline_by_equal_live=by_equal[1],
    )


def _by_documents(
    coverage: Coverage, limit: float, resamples: int, seed: int
) -> Float[np.ndarray, "two resamples"]:
    """Concepts covered, and the mean F1, on test documents that are drawn anew. The same draws for every SAE."""
    chance = np.random.default_rng(hash_seed(seed, "documents drawn anew"))
    by_domain = np.array([score.unit == "domain" for score in coverage.scores])
    is_valid = np.array([score.validation_f1 > limit for score in coverage.scores])
    tallies, documents = coverage.tallies.astype(np.float64), coverage.tallies.shape[1]
    covered, mean_f1 = np.zeros((2, resamples))
    for r in range(resamples):
        times = chance.multinomial(documents, np.full(documents, 1 / documents)).astype(np.float64)
        f1 = f1_of(np.einsum("cdt,d->ct", tallies, times), by_domain)
        covered[r], mean_f1[r] = (is_valid & (f1 > limit)).sum(), f1.mean()
    return np.array([covered, mean_f1])


def _interval(values: NDArray[Any]) -> Interval:
    low, high = np.percentile(values, (5, 95))
    return float(low), float(high)


def _check_same(name: str, first: Coverage, other: Coverage) -> None:
    def about(coverage: Coverage) -> tuple[object, ...]:
        concepts = [(score.concept, score.unit, score.positives, score.documents) for score in coverage.scores]
        return concepts, coverage.tokens, coverage.documents, (coverage.validation, coverage.seed)

    if first.thresholds != other.thresholds:
        raise InputError(
            f"compare_coverages: expected coverages with the same thresholds, got {show(other.thresholds)} for "
            f"{name} instead of {show(first.thresholds)}; compute all with one list"
        )
    if about(first) != about(other):
        raise InputError(
            f"compare_coverages: expected coverages of the same concepts, tokens, documents and seed, got others "
            f"for {name} ({len(other.scores):,} concepts on {other.tokens:,} tokens instead of "
            f"{len(first.scores):,} on {first.tokens:,}); compute all on one source with one table"
        )
