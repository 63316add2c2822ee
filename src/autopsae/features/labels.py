"""Annotations laid on the tokens of a source: which concepts each token has, and which tokens make up a domain."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations, check_range
from autopsae.features.codes import Documents
from autopsae.features.token_table import TokenTable
from autopsae.kernels.concepts import places_from
from autopsae.tables import Result
from autopsae.vectors import Vector, document_numbers, truth_values


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Labels(Result):
    """The concepts of each token of a source. Spans are in places of the source, not of a document."""

    concepts: tuple[str, ...]
    """The names of the concepts."""
    by_domain: Bool[np.ndarray, "concepts"]
    """Concepts whose spans are domains, of which recall is counted."""
    documents: Documents
    """The number of each token's document."""
    is_counted: Bool[np.ndarray, "tokens"]
    """Tokens that count; the others (special tokens) are left out of the codes and of the labels."""
    firsts: Int[np.ndarray, "spans"]
    """Place of each span's first token in the source, in rising order."""
    lasts: Int[np.ndarray, "spans"]
    """Place after each span's last token."""
    numbers: Int[np.ndarray, "spans"]
    """The number of each span's concept in `concepts`."""

    def __post_init__(self) -> None:
        # Both are used as an index, in which integers would be places.
        object.__setattr__(self, "is_counted", truth_values("is_counted", self.is_counted, len(self.documents)))
        by_domain = truth_values("by_domain", self.by_domain, len(self.concepts), unit="concepts")
        object.__setattr__(self, "by_domain", by_domain)

    def __str__(self) -> str:
        return f"{len(self.firsts):,} spans of {len(self.concepts):,} concepts on {len(self.documents):,} tokens"

    @cached_property
    def pairs(self) -> tuple[Int[np.ndarray, "labels"], Int[np.ndarray, "labels"]]:
        """(token, concept) of every token that counts and has a concept, each pair once, by token."""
        lengths = self.lasts - self.firsts
        token = places_from(self.firsts, lengths)
        key = token * len(self.concepts) + np.repeat(self.numbers, lengths)
        key = np.unique(key[self.is_counted[token]])
        return key // len(self.concepts), (key % len(self.concepts)).astype(np.int32)

    @cached_property
    def ends(self) -> Int[np.ndarray, "tokens_and_one"]:
        """0, then where the pairs of each token end."""
        return np.searchsorted(self.pairs[0], np.arange(len(self.documents) + 1))

    def mask(self, concept: int) -> Bool[np.ndarray, "tokens"]:
        """The tokens that have one concept."""
        mask, (tokens, numbers) = np.zeros(len(self.documents), bool), self.pairs
        mask[tokens[numbers == concept]] = True
        return mask

    def keep(self, concepts: Int[np.ndarray, "some"]) -> "Labels":
        """The labels of some concepts, in this order."""
        new = np.full(len(self.concepts), -1, np.int32)
        new[concepts] = np.arange(len(concepts))
        kept = new[self.numbers] >= 0
        return replace(
            self,
            concepts=tuple(self.concepts[n] for n in concepts),
            by_domain=self.by_domain[concepts],
            firsts=self.firsts[kept],
            lasts=self.lasts[kept],
            numbers=new[self.numbers[kept]],
        )

    def beside(self, other: "Labels") -> "Labels":
        """These labels, and those of `other` on the same tokens as further concepts of the same names."""
        firsts = np.concatenate([self.firsts, other.firsts])
        order = np.argsort(firsts, kind="stable")
        numbers = np.concatenate([self.numbers, other.numbers + np.int32(len(self.concepts))])
        return replace(
            self,
            concepts=self.concepts + other.concepts,
            by_domain=np.concatenate([self.by_domain, other.by_domain]),
            firsts=firsts[order],
            lasts=np.concatenate([self.lasts, other.lasts])[order],
            numbers=numbers[order],
        )


def align_annotations(annotations: Annotations, documents: Vector, tokens: TokenTable | None = None) -> Labels:
    """The annotations on the tokens of a source.

    documents: the number of each token's document (`Codes.documents`); tokens: which letters each token covers.
    With it, the positions of the annotations count letters, a token has a concept if it covers a letter of a span,
    and special tokens are left out; without it, positions count tokens, and all tokens count.

    Raises InputError for documents that are no vector of integers, for a document whose tokens do not stand side by
    side, for annotations of a document that the source does not have, for a span beyond the end of its document,
    and for a table of other tokens.
    """
    documents = document_numbers(documents)
    is_counted = np.ones(len(documents), bool)
    if tokens is not None:
        tokens.check_source(documents)
        is_counted = tokens.is_letter
    starts, names = runs_of(documents)
    order = np.argsort(names)
    at = np.minimum(np.searchsorted(names[order], annotations.documents), len(names) - 1)
    run = order[at]
    if (unknown := names[run] != annotations.documents).any():
        raise InputError(
            f"annotations: expected documents of the source ({len(names):,}, {names.min()} to {names.max()}), got "
            f"document {annotations.documents[unknown][0]} and {int(unknown.sum()) - 1:,} more such spans; number "
            "them as the source does, or keep those of its documents (Annotations.within)"
        )
    stops = np.append(starts[1:], len(documents))
    if tokens is None:
        firsts, lasts = starts[run] + annotations.starts, starts[run] + annotations.ends
        check_range(annotations, lasts > stops[run], (stops - starts)[run], "tokens")
    else:
        firsts, lasts = tokens.places(annotations, starts[run], stops[run])
    order = np.argsort(firsts, kind="stable")
    order = order[lasts[order] > firsts[order]]
    return Labels(
        concepts=annotations.concepts,
        by_domain=np.array([name in annotations.domains for name in annotations.concepts]),
        documents=documents,
        is_counted=is_counted,
        firsts=firsts[order],
        lasts=lasts[order],
        numbers=annotations.numbers[order],
    )


def runs_of(documents: Documents) -> tuple[Int[np.ndarray, "runs"], Int[np.ndarray, "runs"]]:
    """(place of the first token, number) of each document, in the order of the source.

    Raises InputError for no token, and where the tokens of a document do not stand side by side.
    """
    if not len(documents):
        raise InputError("documents: expected a number for each token, got none")
    starts = np.flatnonzero(np.append(True, documents[1:] != documents[:-1]))
    names = documents[starts]
    if len(np.unique(names)) < len(names):
        listed, counts = np.unique(names, return_counts=True)
        raise InputError(
            f"documents: expected the tokens of a document side by side, got document {listed[counts > 1][0]} in "
            "several places; read the source in its own order, whole"
        )
    return starts, names
