"""How often each latent, over each threshold, fires on the tokens and the domains of each concept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from autopsae.arrays import InputError
from autopsae.features.codes import CodeBlock, Codes, check_documents, maxima
from autopsae.features.labels import Labels
from autopsae.features.rows import without_pairs
from autopsae.features.split import check_splits
from autopsae.kernels import concepts as kernel
from autopsae.memory import check_memory
from autopsae.tables import Result
from autopsae.vectors import Vector, items_of
from autopsae.words import show

THRESHOLDS = (0.0, 0.15, 0.5, 0.6, 0.8)
"""Shares of a latent's largest code over which it counts as firing (InterPLM, Simon and Zou 2025)."""

Scores = Float[np.ndarray, "d_sae levels concepts"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ConceptCounts(Result):
    """Counts of tokens and domains on validation (0) and test (1) documents."""

    thresholds: tuple[float, ...]
    """The thresholds, in rising order. A latent is over one on a token if code / its largest code exceeds it."""
    concepts: tuple[str, ...]
    """The names of the concepts."""
    by_domain: NDArray[np.bool_]
    """Concepts whose recall is counted by domain."""
    largest: Float[np.ndarray, "d_sae"]
    """Largest code of each latent over all tokens that count; 0 for a dead one."""
    fired: Int[np.ndarray, "splits d_sae levels"]
    """Tokens on which a latent is over a threshold."""
    both: Int[np.ndarray, "splits d_sae levels concepts"]
    """Those of them that have the concept."""
    hit: Int[np.ndarray, "splits d_sae levels concepts"] | None
    """Domains of the concept with at least one such token; None where no concept is counted by domain."""
    positives: Int[np.ndarray, "splits concepts"]
    """Tokens that have the concept."""
    domains: Int[np.ndarray, "splits concepts"]
    """Domains of the concept; 0 where it is counted by token."""

    def precision(self, split: int) -> Scores:
        """Share of the tokens with a firing latent that have the concept; 0 for a latent that is never over t."""
        return _divide(self.both[split], self.fired[split][:, :, None])

    def recall(self, split: int) -> Scores:
        """Share of the concept's tokens on which the latent fires; of its domains where it is counted by domain."""
        of_tokens = _divide(self.both[split], self.positives[split])
        if self.hit is None:
            return of_tokens
        return np.where(self.by_domain, _divide(self.hit[split], self.domains[split]), of_tokens)

    def f1(self, split: int) -> Scores:
        """2 precision recall / (precision + recall) of every latent, threshold and concept; 0 where both are 0."""
        precision, recall = self.precision(split), self.recall(split)
        return _divide(2 * precision * recall, precision + recall)

    def of_concept(self, number: int) -> "ConceptCounts":
        """The counts of one concept, without a copy."""
        one = slice(number, number + 1)
        return replace(
            self,
            concepts=self.concepts[one],
            by_domain=self.by_domain[one],
            both=self.both[..., one],
            hit=None if self.hit is None else self.hit[..., one],
            positives=self.positives[:, one],
            domains=self.domains[:, one],
        )

    def __str__(self) -> str:
        d_sae, levels = self.fired.shape[1:]
        return f"counts of {d_sae:,} latents x {levels} thresholds x {len(self.concepts):,} concepts"


def count_concepts(
    codes: Codes,
    labels: Labels,
    splits: Vector,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> ConceptCounts:
    """Two passes over sparse codes: the largest code of each latent, then the counts. No [tokens, d_sae] matrix is
    made; memory grows with d_sae x thresholds x concepts and with the longest domain.

    splits: 0 for the tokens of validation documents and 1 for those of test documents (`split_documents`).

    Raises InputError for thresholds that do not rise in [0, 1), for labels of other tokens or documents, for splits
    other than a 0 or 1 for each token, and where the counts would not fit in memory.
    """
    levels = _levels(thresholds)
    sides = check_splits(splits, len(labels.documents))
    shape = (2, codes.d_sae, len(levels), len(labels.concepts))
    any_domain = bool(labels.by_domain.any())
    needed = 4 * (1 + any_domain) * int(np.prod(shape))
    check_memory(needed, torch.device("cpu"), "for the counts", "annotate with fewer concepts or thresholds")
    counted = leave_out_tokens(codes, labels)
    largest = maxima(counted)
    fired, both = np.zeros(shape[:3], np.int32), np.zeros(shape, np.int32)
    hit = np.zeros(shape, np.int32) if any_domain else None
    domains = _Domains(labels, sides) if any_domain else None
    for block in counted:
        reached = kernel.levels(block.values, block.latents, largest, levels)
        at = slice(block.start, block.start + len(block))
        first, last = labels.ends[at.start], labels.ends[at.stop]
        numbers, ends = labels.pairs[1][first:last], labels.ends[at.start : at.stop + 1] - first
        kernel.count_tokens(block.latents, reached, block.ends, numbers, ends, sides[at], fired, both)
        if domains is not None and hit is not None:
            domains.add(block, reached, hit)
    # What was counted by the highest threshold that is exceeded is over all lower ones too.
    for counts in (fired, both, hit):
        if counts is not None:
            counts[:] = counts[:, :, ::-1].cumsum(axis=2, dtype=np.int32)[:, :, ::-1]
    return ConceptCounts(
        thresholds=tuple(map(float, levels)),
        concepts=labels.concepts,
        by_domain=labels.by_domain,
        largest=largest,
        fired=fired,
        both=both,
        hit=hit,
        positives=count_positives(labels, sides),
        domains=domains.totals if domains is not None else np.zeros((2, len(labels.concepts)), np.int64),
    )


def _levels(thresholds: Sequence[float]) -> Float[np.ndarray, "levels"]:
    """The thresholds, checked."""
    given = items_of("thresholds", thresholds, "numbers")
    levels = np.array(given, np.float64) if all(isinstance(one, Real) for one in given) else np.empty(0)
    if not len(levels) or not (np.diff(levels) > 0).all() or not (levels[0] >= 0 and levels[-1] < 1):
        raise InputError(f"thresholds: expected rising numbers of at least 0 and under 1, got {show(given)}")
    return levels


def count_positives(labels: Labels, splits: Int[np.ndarray, "tokens"]) -> Int[np.ndarray, "splits concepts"]:
    """Tokens that count and have each concept, on validation and on test documents."""
    tokens, numbers = labels.pairs
    return count_by_split(splits[tokens], numbers, len(labels.concepts))


def count_by_split(
    splits: Int[np.ndarray, "items"], numbers: Int[np.ndarray, "items"], concepts: int
) -> Int[np.ndarray, "splits concepts"]:
    """How many items each split and concept has. numbers: the concept of each item, of so many concepts."""
    return np.bincount(splits.astype(np.int64) * concepts + numbers, minlength=2 * concepts).reshape(2, concepts)


def leave_out_tokens(codes: Codes, labels: Labels) -> Codes:
    """The codes, of which tokens that do not count have no pairs. Raises InputError where codes and labels are of
    other documents.
    """
    check_documents(codes, labels.documents, "labels")
    return Codes(blocks=_Counted(codes, labels), d_sae=codes.d_sae, documents=labels.documents)


class _Counted:
    """Blocks of codes on as many tokens as the labels have, without the pairs of tokens that do not count."""

    def __init__(self, codes: Codes, labels: Labels) -> None:
        self._codes, self._labels = codes, labels

    def __iter__(self) -> Iterator[CodeBlock]:
        tokens, expected = 0, len(self._labels.documents)
        for block in self._codes:
            tokens += len(block)
            if tokens > expected:
                break
            yield without_pairs(block, self._labels.is_counted[block.start : block.start + len(block)])
        if tokens != expected:
            got = "more" if tokens > expected else f"{tokens:,}"
            raise InputError(
                f"labels: expected those of the codes' tokens, got labels of {expected:,} tokens and codes of "
                f"{got}; are they of another source?"
            )


class _Domains:
    """Counts a domain when its last token is read. Until then, the pairs from its first token on are held."""

    def __init__(self, labels: Labels, splits: Int[np.ndarray, "tokens"]) -> None:
        mine = labels.by_domain[labels.numbers]
        # By their end, as they are counted.
        order = np.argsort(labels.lasts[mine], kind="stable")
        self._firsts, self._lasts = labels.firsts[mine][order], labels.lasts[mine][order]
        self._numbers = labels.numbers[mine][order]
        self._splits = splits[self._firsts]
        # The first token that a domain at this place or after it begins with.
        self._earliest = np.minimum.accumulate(self._firsts[::-1])[::-1]
        self._next = 0
        self._held: tuple[int, NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]] | None = None
        self.totals = count_by_split(self._splits, self._numbers, len(labels.concepts))

    def add(self, block: CodeBlock, reached: NDArray[np.int8], hit: NDArray[np.int32]) -> None:
        start, ends, latents = block.start, block.ends, block.latents
        if self._held is not None:
            start, held_ends, held_latents, held_reached = self._held
            ends = np.concatenate([held_ends, held_ends[-1] + ends[1:]])
            latents, reached = np.concatenate([held_latents, latents]), np.concatenate([held_reached, reached])
        stop = start + len(ends) - 1
        done = int(np.searchsorted(self._lasts, stop, side="right"))
        now = slice(self._next, done)
        kernel.count_domains(
            latents,
            reached,
            ends,
            self._firsts[now] - start,
            self._lasts[now] - start,
            self._numbers[now],
            self._splits[now],
            hit,
        )
        self._next = done
        keep = min(int(self._earliest[done]), stop) if done < len(self._earliest) else stop
        cut = int(ends[keep - start])
        self._held = (keep, ends[keep - start :] - cut, latents[cut:], reached[cut:]) if keep < stop else None


def _divide(part: NDArray[np.generic], whole: NDArray[np.generic]) -> NDArray[np.float64]:
    """part / whole in float64, 0 where whole is 0."""
    whole = np.broadcast_to(whole, np.broadcast_shapes(part.shape, whole.shape)).astype(np.float64)
    quotient: NDArray[np.float64] = np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0)
    return quotient
