"""What a coverage says: a score for each concept, how many are covered at any limit, and by how many latents."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from autopsae.arrays import InputError
from autopsae.seeds import hash_seed
from autopsae.tables import Result, frame, html_table, save_table

COVERED = 0.5
"""A concept is covered if F1 exceeds it on validation and on test documents (InterPLM)."""
LIMITS = tuple(round(0.05 * n, 2) for n in range(20))
"""The limits of the curve."""

_SHOWN = 20  # concepts in the table of a notebook
_DRAWS = 100  # random choices of live latents over which `count_with` takes the mean


@dataclass(frozen=True, kw_only=True)
class ConceptScore:
    """The best latent of a concept, chosen on validation documents, with its scores on test documents."""

    concept: str
    """Its name."""
    unit: str
    """What its recall counts: "token" or "domain"."""
    latent: int
    """The latent that was chosen."""
    threshold: float
    """Share of the latent's largest code over which it counts as firing."""
    validation_f1: float
    """F1 of the pair on validation documents, the largest of all pairs."""
    precision: float
    """On test documents: share of the tokens with the firing latent that have the concept."""
    recall: float
    """On test documents: share of the concept's tokens or domains on which the latent fires."""
    f1: float
    """On test documents: 2 precision recall / (precision + recall)."""
    positives: tuple[int, int]
    """Tokens with the concept in validation and test documents."""
    domains: tuple[int, int]
    """Its domains there; 0 where the unit is the token."""
    documents: tuple[int, int]
    """Documents with the concept among those for validation and for the test."""

    def exceeds(self, limit: float) -> bool:
        """Whether F1 exceeds the limit on validation and on test documents."""
        return min(self.validation_f1, self.f1) > limit


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Coverage(Result):
    """Which concepts an SAE has a latent for (`concept_coverage`)."""

    d_sae: int
    """Number of latents."""
    tokens: int
    """Number of tokens that count."""
    documents: int
    """Number of documents."""
    thresholds: tuple[float, ...]
    """Shares of a latent's largest code that were tried."""
    validation: float
    """Share of the documents on which the latents were chosen."""
    seed: int
    """Of the split and the shuffling."""
    scores: tuple[ConceptScore, ...]
    """The best latent of each concept that was not left out."""
    shuffled: tuple[ConceptScore, ...]
    """The same with annotations of other documents: what is reached by chance."""
    left_out: Mapping[str, str]
    """{concept: why it was left out}."""
    is_live: Bool[np.ndarray, "d_sae"]
    """Latents that fire on some token that counts."""
    validation_f1: Float[np.ndarray, "d_sae concepts"]
    """Largest F1 of each latent for each concept over the thresholds, on validation documents."""
    test_f1: Float[np.ndarray, "d_sae concepts"]
    """F1 on test documents at the threshold that was best on validation documents."""
    tallies: Int[np.ndarray, "concepts documents five"]
    """Counts of the chosen latent of each concept on each test document (`tallies.TALLIES`)."""

    @property
    def live(self) -> int:
        """Number of latents that fire on some token."""
        return int(self.is_live.sum())

    def count(self, limit: float = COVERED) -> int:
        """Number of concepts whose F1 exceeds the limit on validation and test documents."""
        return sum(score.exceeds(limit) for score in self.scores)

    def count_by_chance(self, limit: float = COVERED) -> int:
        """The same with annotations of other documents."""
        return sum(score.exceeds(limit) for score in self.shuffled)

    @property
    def curve(self) -> dict[float, int]:
        """{limit: concepts covered at it}."""
        return {limit: self.count(limit) for limit in LIMITS}

    def latents_per_concept(self, limit: float = COVERED) -> dict[str, int]:
        """{concept: live latents whose F1 for it exceeds the limit on validation and test documents}."""
        counts = self._is_over(limit).sum(axis=0)
        return {score.concept: int(n) for score, n in zip(self.scores, counts, strict=True)}

    def concepts_per_live_latent(self, limit: float = COVERED) -> float | None:
        """Mean over the live latents of the number of concepts that each covers; None where no latent is live."""
        return float(self._is_over(limit)[self.is_live].sum(axis=1).mean()) if self.live else None

    def count_with(self, latents: int, limit: float = COVERED) -> float:
        """Expected number of concepts covered by so many of the live latents, drawn at random.

        At equal numbers of live latents, what is left of a gain is due to better latents, not to more of them.
        Mean over 100 draws; of each draw, the best latent for each concept is chosen on validation documents anew.

        Raises InputError for more latents than are live.
        """
        if not 1 <= latents <= self.live:
            raise InputError(f"count_with: expected 1 to {self.live:,} live latents, got {latents:,}")
        chance = np.random.default_rng(hash_seed(self.seed, "some of the live latents"))
        alive, total = np.flatnonzero(self.is_live), 0
        for _ in range(_DRAWS if latents < self.live else 1):
            some = chance.choice(alive, latents, replace=False)
            best = self.validation_f1[some].argmax(axis=0)[None]
            both = [np.take_along_axis(f1[some], best, axis=0)[0] for f1 in (self.validation_f1, self.test_f1)]
            total += int((np.minimum(*both) > limit).sum())
        return total / (_DRAWS if latents < self.live else 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON: the counts, the curve, and a row for each concept."""
        return {
            "d_sae": self.d_sae,
            "live": self.live,
            "tokens": self.tokens,
            "documents": self.documents,
            "thresholds": list(self.thresholds),
            "validation": self.validation,
            "seed": self.seed,
            "concepts": len(self.scores),
            "covered": self.count(),
            "covered_by_chance": self.count_by_chance(),
            "mean_f1": float(np.mean([score.f1 for score in self.scores])),
            "curve": {str(limit): n for limit, n in self.curve.items()},
            "curve_by_chance": {str(limit): self.count_by_chance(limit) for limit in LIMITS},
            "latents_per_concept": self.latents_per_concept(),
            "concepts_per_live_latent": self.concepts_per_live_latent(),
            "left_out": dict(self.left_out),
            "scores": [asdict(score) for score in self.scores],
        }

    def columns(self) -> dict[str, list[Any]]:
        """A row for each concept, as columns."""
        chance = {score.concept: score.f1 for score in self.shuffled}
        latents = self.latents_per_concept()
        rows = [
            asdict(score) | {"chance_f1": chance[score.concept], "latents": latents[score.concept]}
            for score in self.scores
        ]
        pairs = ("positives", "domains", "documents")
        columns = {name: [row[name] for row in rows] for name in rows[0] if name not in pairs}
        for name in pairs:
            columns |= {
                f"{name}_{side}": [row[name][n] for row in rows] for n, side in enumerate(("validation", "test"))
            }
        return columns

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each concept. Raises InputError where pandas is missing."""
        return frame(self.columns())

    def save_table(self, path: str | Path) -> None:
        """Write the rows as .csv or .parquet, whole or not at all."""
        save_table(self.columns(), path)

    def _html_table(self) -> str:
        """The latent of each concept, the best first."""
        best = sorted(self.scores, key=lambda score: -min(score.validation_f1, score.f1))
        rows = [
            (
                one.concept,
                str(one.latent),
                *(f"{f1:.2f}" for f1 in (one.validation_f1, one.f1, one.precision, one.recall)),
            )
            for one in best[:_SHOWN]
        ]
        header = ("concept", "latent", "F1, validation", "F1, test", "precision, test", "recall, test")
        more = [f"{len(best) - _SHOWN} further concepts have a lower F1."] if len(best) > _SHOWN else []
        return html_table(header, rows, more, [str(self)])

    def __str__(self) -> str:
        left = f"; {len(self.left_out):,} more are too rare" if self.left_out else ""
        return (
            f"{self.count():,} of {len(self.scores):,} concepts are covered (F1 over {COVERED:g} on validation and "
            f"test documents; {self.count_by_chance():,} by chance) by {self.live:,} live latents of "
            f"{self.d_sae:,}, on {self.tokens:,} tokens of {self.documents:,} documents{left}"
        )

    def _is_over(self, limit: float) -> Bool[np.ndarray, "d_sae concepts"]:
        is_over: NDArray[np.bool_] = np.minimum(self.validation_f1, self.test_f1) > limit
        return is_over
