"""Concept coverage: which concepts does an SAE have a latent for? The best latent of each is chosen on validation
documents and scored on test documents.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.features.codes import Codes
from autopsae.features.counts import THRESHOLDS, ConceptCounts, count_by_split, count_concepts, count_positives
from autopsae.features.coverage_result import ConceptScore, Coverage
from autopsae.features.labels import Labels, runs_of
from autopsae.features.split import TEST, VALIDATION, shuffle_documents, split_documents
from autopsae.features.tallies import tally_documents

LEAST_POSITIVES = 10
"""Tokens of a concept that each split must have."""
LEAST_DOCUMENTS = 2
"""Documents with a concept that each split must have."""


@whole_arguments("least_positives", "least_documents", "seed")
def concept_coverage(
    codes: Codes,
    labels: Labels,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    validation: float = 0.5,
    least_positives: int = LEAST_POSITIVES,
    least_documents: int = LEAST_DOCUMENTS,
    seed: int = 0,
) -> Coverage:
    """The best latent and threshold for each concept, with its scores, and how many concepts are covered.

    For every latent, threshold and concept: precision over tokens, recall over tokens or domains, and their F1
    (`ConceptCounts`). For each concept the pair of the largest F1 on validation documents is chosen, and scored on
    test documents. A concept is covered if F1 exceeds 0.5 on both (InterPLM, Simon and Zou 2025); `Coverage.curve`
    has all other limits. The same is done with annotations of other documents (`shuffle_documents`): how many
    concepts would be covered by chance.

    thresholds: shares of a latent's largest code; validation: share of the documents that latents are chosen on;
    least_positives, least_documents: what a concept must have in each split, or it is left out, which the result
    says; seed: of the split and the shuffling. Equal arguments give equal results. Three passes over the codes.

    Raises InputError as `count_concepts` and `split_documents`, and where every concept is left out.
    """
    splits = split_documents(labels.documents, validation=validation, seed=seed)
    kept, left_out = choose_concepts(
        labels, splits, least_positives=least_positives, least_documents=least_documents
    )
    # Real and shuffled concepts are counted in the same passes.
    both = kept.beside(shuffle_documents(kept, splits, seed=seed))
    counts = count_concepts(codes, both, splits, thresholds=thresholds)
    latent, level, validation_f1, test_f1 = _best_pairs(counts)
    limits = np.array(counts.thresholds)[level]
    tallies = tally_documents(codes, both, splits, latents=latent, limits=limits, largest=counts.largest)
    documents = count_documents(both, splits)
    scores = [
        _score(counts, n, latent=int(latent[n]), level=int(level[n]), documents=documents[:, n])
        for n in range(len(both.concepts))
    ]
    real = len(kept.concepts)
    return Coverage(
        d_sae=codes.d_sae,
        tokens=int(labels.is_counted.sum()),
        documents=len(runs_of(labels.documents)[0]),
        thresholds=counts.thresholds,
        validation=validation,
        seed=seed,
        scores=tuple(scores[:real]),
        shuffled=tuple(scores[real:]),
        left_out=left_out,
        is_live=counts.largest > 0,
        validation_f1=validation_f1[:, :real],
        test_f1=test_f1[:, :real],
        tallies=tallies[:real],
    )


def choose_concepts(
    labels: Labels, splits: Int[np.ndarray, "tokens"], *, least_positives: int, least_documents: int
) -> tuple[Labels, dict[str, str]]:
    """(the labels of concepts that are frequent enough in both splits and not on every token, {each of the others:
    why it is left out}). Raises InputError where none remains.
    """
    positives, documents = count_positives(labels, splits), count_documents(labels, splits)
    tokens = np.bincount(splits[labels.is_counted], minlength=2)
    kept, left_out = [], {}
    for n, concept in enumerate(labels.concepts):
        if (positives[:, n] < least_positives).any() or (documents[:, n] < least_documents).any():
            left_out[concept] = (
                f"too rare: {positives[VALIDATION, n]} and {positives[TEST, n]} tokens, {documents[VALIDATION, n]} "
                f"and {documents[TEST, n]} documents for validation and test"
            )
        elif (positives[:, n] == tokens).all():
            left_out[concept] = "on every token"
        else:
            kept.append(n)
    if not kept:
        first = next(iter(left_out.items()), ("none", "no concept"))
        raise InputError(
            f"labels: expected a concept with at least {least_positives} tokens and {least_documents} documents in "
            f"both splits, got none of {len(labels.concepts)} ({first[0]}: {first[1]}); annotate more documents, "
            "or ask for fewer"
        )
    return labels.keep(np.array(kept)), left_out


def count_documents(labels: Labels, splits: Int[np.ndarray, "tokens"]) -> Int[np.ndarray, "splits concepts"]:
    """Documents with each concept, on both splits."""
    starts, _ = runs_of(labels.documents)
    (tokens, numbers), n = labels.pairs, len(labels.concepts)
    run = np.searchsorted(starts, tokens, side="right") - 1
    once = np.unique(run * n + numbers)
    return count_by_split(splits[starts[once // n]], once % n, n)


def _best_pairs(
    counts: ConceptCounts,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """(latent, level) of the largest F1 on validation documents for each concept, the first of equal ones; then for
    every latent and concept the F1 on validation at its own best level, and on test at the same level.
    """
    n, d_sae = len(counts.concepts), counts.fired.shape[1]
    latents, levels = np.zeros(n, np.int64), np.zeros(n, np.int64)
    validation, test = np.zeros((d_sae, n), np.float32), np.zeros((d_sae, n), np.float32)
    for c in range(n):  # one by one: the scores of all concepts would take several times the memory of the counts
        one = counts.of_concept(c)
        f1, of_test = one.f1(VALIDATION)[:, :, 0], one.f1(TEST)[:, :, 0]
        latents[c], levels[c] = np.unravel_index(f1.argmax(), f1.shape)
        best = f1.argmax(axis=1)[:, None]
        validation[:, c] = np.take_along_axis(f1, best, axis=1)[:, 0]
        test[:, c] = np.take_along_axis(of_test, best, axis=1)[:, 0]
    return latents, levels, validation, test


def _score(
    counts: ConceptCounts, n: int, *, latent: int, level: int, documents: Int[np.ndarray, "splits"]
) -> ConceptScore:
    one = counts.of_concept(n)
    return ConceptScore(
        concept=counts.concepts[n],
        unit="domain" if counts.by_domain[n] else "token",
        latent=latent,
        threshold=counts.thresholds[level],
        validation_f1=float(one.f1(VALIDATION)[latent, level, 0]),
        precision=float(one.precision(TEST)[latent, level, 0]),
        recall=float(one.recall(TEST)[latent, level, 0]),
        f1=float(one.f1(TEST)[latent, level, 0]),
        positives=(int(one.positives[VALIDATION, 0]), int(one.positives[TEST, 0])),
        domains=(int(one.domains[VALIDATION, 0]), int(one.domains[TEST, 0])),
        documents=(int(documents[VALIDATION]), int(documents[TEST])),
    )
