"""Coverage by logistic probes on one latent's code each: the variant of the paper (A.3)."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.features.codes import Codes, gather_columns
from autopsae.features.counts import leave_out_tokens
from autopsae.features.coverage_result import COVERED, LIMITS, Coverage
from autopsae.features.labels import Labels, runs_of
from autopsae.features.probes import import_sklearn
from autopsae.features.split import TEST, VALIDATION, split_documents
from autopsae.tables import Result
from autopsae.words import show

CANDIDATES = 8
"""Latents that are probed for each concept: those of the largest F1 by thresholds on validation documents."""


@dataclass(frozen=True, kw_only=True)
class LatentProbe:
    """The best logistic probe of a concept on the code of one latent."""

    concept: str
    """The concept."""
    latent: int | None
    """The latent, chosen by F1 on validation documents, on which the probe is fitted; None where all candidates are
    silent there."""
    validation_f1: float
    """F1 over tokens on validation documents."""
    f1: float
    """F1 over tokens on test documents."""
    weight: float
    """The probe says yes where weight * code + bias > 0."""
    bias: float
    """The bias."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ProbeCoverage(Result):
    """A probe for each concept (`probe_coverage`)."""

    probes: tuple[LatentProbe, ...]
    """The best one for each concept."""
    candidates: int
    """Latents that were probed for each concept."""

    def count(self, limit: float = COVERED) -> int:
        """Concepts whose F1 exceeds the limit on validation and test documents."""
        return sum(min(probe.validation_f1, probe.f1) > limit for probe in self.probes)

    def to_dict(self) -> dict[str, Any]:
        """JSON: the curve and the probes."""
        curve = {str(limit): self.count(limit) for limit in LIMITS}
        return {"candidates": self.candidates, "curve": curve, "probes": [asdict(probe) for probe in self.probes]}

    def __str__(self) -> str:
        known = f"{self.count():,} of {len(self.probes):,} concepts"
        return f"{known} have a latent whose logistic probe exceeds F1 {COVERED:g}"


@whole_arguments("candidates")
def probe_coverage(
    codes: Codes, labels: Labels, coverage: Coverage, *, candidates: int = CANDIDATES
) -> ProbeCoverage:
    """A logistic regression from one latent's code to one concept, for the most promising latents of each concept.

    Fitted on the tokens of validation documents with class weights of 1 (so that it says yes where the concept is
    more likely than not) and hardly any penalty (C = 1e6, codes in units of the latent's largest). The latent of
    the largest F1 there is scored on test documents. Precision and recall are over tokens for every concept.

    coverage: of the same codes and labels, which chooses the candidates and splits the documents. One more
    pass over the codes.

    Raises InputError for candidates below 1, for codes, labels and a coverage that are not of one another, and
    where scikit-learn is missing.
    """
    if candidates < 1:
        raise InputError(f"candidates: expected at least 1 latent for each concept, got {candidates}")
    _check_coverage(codes, labels, coverage)
    splits = split_documents(labels.documents, validation=coverage.validation, seed=coverage.seed)
    splits = np.where(labels.is_counted, splits, np.int8(-1))
    order = np.argsort(-coverage.validation_f1, axis=0, kind="stable")[:candidates]
    columns = gather_columns(leave_out_tokens(codes, labels), np.unique(order))
    probes = []
    for c, score in enumerate(coverage.scores):
        mask = labels.mask(labels.concepts.index(score.concept))
        tried = [_probe(score.concept, n, *columns[n], mask, splits) for n in map(int, order[:, c])]
        none = LatentProbe(concept=score.concept, latent=None, validation_f1=0.0, f1=0.0, weight=0.0, bias=0.0)
        probes.append(max(filter(None, tried), key=lambda probe: probe.validation_f1, default=none))
    return ProbeCoverage(probes=tuple(probes), candidates=candidates)


def _check_coverage(codes: Codes, labels: Labels, coverage: Coverage) -> None:
    """InputError unless the coverage can be of these codes and labels."""
    if coverage.d_sae != codes.d_sae:
        raise InputError(
            f"coverage: expected one of {codes.d_sae:,} latents, as the codes have, got {coverage.d_sae:,}; pass "
            "the coverage of the same SAE"
        )
    tokens, documents = int(labels.is_counted.sum()), len(runs_of(labels.documents)[0])
    strange = [score.concept for score in coverage.scores if score.concept not in labels.concepts]
    if strange or (coverage.tokens, coverage.documents) != (tokens, documents):
        raise InputError(
            f"coverage: expected one of these labels ({len(labels.concepts):,} concepts, {tokens:,} tokens, "
            f"{documents:,} documents), got {'the concept ' + show(strange[0], 60) if strange else 'others'} on "
            f"{coverage.tokens:,} tokens of {coverage.documents:,} documents; compute it with these labels"
        )


def _probe(
    concept: str,
    latent: int,
    tokens: Int[np.ndarray, "firings"],
    values: Float[np.ndarray, "firings"],
    mask: NDArray[np.bool_],
    splits: Int[np.ndarray, "tokens"],
) -> LatentProbe | None:
    """The probe of one latent; None for one that is silent on validation documents.

    The tokens on which the latent is silent are two rows with a weight each: with the concept, and without.
    """
    fit = splits[tokens] == VALIDATION
    if not fit.any():
        return None
    linear = import_sklearn("sklearn.linear_model")
    unit = float(values[fit].max())
    y, silent = mask[tokens[fit]], np.array([0, 0])
    for label in (0, 1):
        silent[label] = int(((splits == VALIDATION) & (mask == label)).sum()) - int((y == label).sum())
    x = np.append(values[fit].astype(np.float64) / unit, [0.0, 0.0])[:, None]
    weights = np.append(np.ones(len(y)), silent)
    model = linear.LogisticRegression(C=1e6, max_iter=1000, tol=1e-8)
    model.fit(x, np.append(y, [False, True]), sample_weight=weights)
    weight, bias = float(model.coef_[0, 0]) / unit, float(model.intercept_[0])
    f1 = [_f1(tokens, weight * values + bias > 0, bias > 0, mask, splits == side) for side in (VALIDATION, TEST)]
    return LatentProbe(concept=concept, latent=latent, validation_f1=f1[0], f1=f1[1], weight=weight, bias=bias)


def _f1(
    tokens: NDArray[np.int64],
    says_yes: NDArray[np.bool_],
    silent_says_yes: bool,
    mask: NDArray[np.bool_],
    side: NDArray[np.bool_],
) -> float:
    """F1 = 2 both / (yes + positives) over the tokens of one side."""
    yes = np.full(len(mask), silent_says_yes)
    yes[tokens] = says_yes
    total = int((yes & side).sum()) + int((mask & side).sum())
    return 2 * int((yes & mask & side).sum()) / total if total else 0.0
