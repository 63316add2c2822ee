"""Probes of many labels on the same rows: the concepts of annotations, of documents or of tokens, and tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens, chunks
from autopsae.defaults import PROBE_KS, Pool, ProbeRows
from autopsae.features.codes import Codes, Documents, check_documents
from autopsae.features.labels import Labels, runs_of
from autopsae.features.pool import pool_codes, pool_tokens
from autopsae.features.probes import Probes, fit_probes, representations, score_at
from autopsae.features.rows import SomeTokens, select_codes
from autopsae.features.split import TEST, split_documents
from autopsae.memory import check_memory
from autopsae.seeds import hash_seed, keys
from autopsae.tables import Result
from autopsae.vectors import Vector, document_numbers, truth_values

LEAST_ROWS = 10
"""Rows with and without a label that training and test must have each."""
MOST_ROWS = 10_000
"""Tokens that are probed at most; of more, so many are drawn."""

Values = Mapping[str, Bool[np.ndarray, "rows"]]
"""{label: whether each row has it}."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ProbeSurvey(Result):
    """Probes of several labels (`probe_concepts`, `probe_documents`)."""

    probes: Mapping[str, Probes]
    """{label: its probes}."""
    left_out: Mapping[str, str]
    """{label: why it was not probed}."""

    def mean_auc(self, representation: str, k: int, *, shuffled: bool = False) -> float:
        """Mean over the labels of the AUC of a representation at k columns (or at all, where it has fewer).

        Raises InputError for a representation that was not probed.
        """
        of_each = [probes.shuffled if shuffled else probes.scores for probes in self.probes.values()]
        return float(np.mean([score_at(scores, representation, k).auc for scores in of_each]))

    def columns(self) -> dict[str, list[Any]]:
        """A row for each label, representation and number of columns."""
        rows = [
            {
                "label": label,
                "representation": score.representation,
                "k": score.k,
                "auc": score.auc,
                "accuracy": score.accuracy,
                "f1": score.f1,
                "shuffled_auc": chance.auc,
                "best_column": score.columns[0],
                "train": sum(probes.train),
                "test": sum(probes.test),
                "test_positives": probes.test[1],
            }
            for label, probes in self.probes.items()
            for score, chance in zip(probes.scores, probes.shuffled, strict=True)
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def to_dict(self) -> dict[str, Any]:
        """JSON: the probes of each label."""
        return {
            "probes": {label: probes.to_dict() for label, probes in self.probes.items()},
            "left_out": dict(self.left_out),
        }

    def __str__(self) -> str:
        first = next(iter(self.probes.values())).scores[0]
        mean, chance = (self.mean_auc(first.representation, first.k, shuffled=mixed) for mixed in (False, True))
        rare = f"; {len(self.left_out):,} more are left out" if self.left_out else ""
        return (
            f"probes of {len(self.probes):,} labels: mean AUC {mean:.3f} of {first.representation} at k {first.k} "
            f"({chance:.3f} on shuffled labels){rare}"
        )


@whole_arguments("seed")
def probe_documents(
    codes: Mapping[str, Codes],
    tokens: Tokens,
    documents: Vector,
    values: Mapping[str, Vector],
    *,
    leave_out: Vector | None = None,
    pool: Pool = "max",
    validation: float = 0.5,
    ks: Sequence[int] = PROBE_KS,
    seed: int = 0,
) -> ProbeSurvey:
    """Probes of labels of whole documents (`fit_probes`): on the pooled codes of each SAE, and on the controls of
    `representations`.

    codes: {name: codes of an SAE}; tokens, documents: the activations and their documents; values: {label: whether
    each document has it}, in the order of the source; leave_out, pool: as `pool_codes`; validation: the share of
    the documents on which probes are fitted (`split_documents`), the others test them; seed: of all that is drawn.

    Raises InputError where no label has 10 documents with it and 10 without on either side, for values of another
    number of documents or other than booleans, 0 and 1, for codes of other documents, and as `pool_codes`,
    `split_documents` and `fit_probes`.
    """
    numbers = document_numbers(documents)
    _check_codes(codes, numbers, "documents")
    splits = split_documents(numbers, validation=validation, seed=seed)
    is_test = splits[runs_of(numbers)[0]] == TEST
    has = {label: truth_values(label, each, len(is_test), unit="documents") for label, each in values.items()}
    kept, left_out = _frequent(has, is_test, "documents")
    pooled = {name: pool_codes(own, pool, leave_out=leave_out) for name, own in codes.items()}
    x = pool_tokens(tokens, numbers, pool, leave_out=leave_out)
    return _survey(pooled, x, kept, left_out, is_test, ks, seed)


@whole_arguments("most", "seed")
def probe_concepts(
    codes: Mapping[str, Codes],
    tokens: Tokens,
    labels: Labels,
    *,
    rows: str = "documents",
    pool: Pool = "max",
    validation: float = 0.5,
    ks: Sequence[int] = PROBE_KS,
    most: int = MOST_ROWS,
    seed: int = 0,
) -> ProbeSurvey:
    """Probes of the concepts of annotations. rows: "documents" asks whether a document has the concept on some
    token, "tokens" whether a token has it. Tokens that do not count are left out.

    most: tokens that are probed at most, drawn uniformly; all other arguments are those of `probe_documents`.
    Test tokens are of other documents than those that probes are fitted on.

    Raises InputError for another value of `rows`, for codes and labels of other documents, and as
    `probe_documents`.
    """
    if rows not in get_args(ProbeRows):
        raise InputError(f"rows: expected {' or '.join(get_args(ProbeRows))}, got {rows!r}")
    names = range(len(labels.concepts))
    if rows == "documents":
        starts, _ = runs_of(labels.documents)
        run_of = np.searchsorted(starts, labels.pairs[0], side="right") - 1
        values = {labels.concepts[n]: np.zeros(len(starts), bool) for n in names}
        for n in names:
            values[labels.concepts[n]][run_of[labels.pairs[1] == n]] = True
        shared: dict[str, Any] = {"pool": pool, "validation": validation, "ks": ks, "seed": seed}
        return probe_documents(codes, tokens, labels.documents, values, leave_out=~labels.is_counted, **shared)
    _check_codes(codes, labels.documents, "labels")
    splits = split_documents(labels.documents, validation=validation, seed=seed)
    keep = _draw(labels.is_counted, most, seed)
    is_test = splits[keep] == TEST
    kept, left_out = _frequent({labels.concepts[n]: labels.mask(n)[keep] for n in names}, is_test, "tokens")
    some = {name: select_codes(own, keep) for name, own in codes.items()}
    return _survey(some, _rows(SomeTokens(tokens, keep), len(is_test)), kept, left_out, is_test, ks, seed)


def _survey(
    codes: Mapping[str, Codes],
    x: Float[Tensor, "rows d_in"],
    values: Values,
    left_out: Mapping[str, str],
    is_test: NDArray[np.bool_],
    ks: Sequence[int],
    seed: int,
) -> ProbeSurvey:
    fit = partial(fit_probes, representations(codes, x, is_test, seed=seed), is_test=is_test, ks=ks, seed=seed)
    return ProbeSurvey(probes={label: fit(labels=has) for label, has in values.items()}, left_out=left_out)


def _check_codes(codes: Mapping[str, Codes], documents: Documents, name: str) -> None:
    """InputError unless the codes are named, and as far as they know, of these documents. name: of the argument
    that tells the documents.
    """
    if not isinstance(codes, Mapping):
        raise InputError(
            f"codes: expected {{name: codes}}, got {type(codes).__name__}; give it a name, such as "
            '{"latents": codes}'
        )
    for own in codes.values():
        check_documents(own, documents, name)


def _frequent(values: Values, is_test: NDArray[np.bool_], unit: str) -> tuple[Values, dict[str, str]]:
    """(the labels that can be probed, {each of the others: why not}). Raises InputError where none can."""
    kept, left_out = dict[str, NDArray[np.bool_]](), dict[str, str]()
    for label, has in values.items():
        counts = [[int((has[side] == value).sum()) for value in (True, False)] for side in (~is_test, is_test)]
        if np.min(counts) >= LEAST_ROWS:
            kept[label] = has
        else:
            (a, b), (c, d) = counts
            left_out[label] = f"{a:,} {unit} with and {b:,} without it to fit on, {c:,} and {d:,} to test on"
    if not kept:
        first = next(iter(left_out.items()), ("none", "no label"))
        raise InputError(
            f"probes: expected a label with at least {LEAST_ROWS} {unit} with and without it on either side, got "
            f"none of {len(values):,} ({first[0]}: {first[1]}); annotate more documents"
        )
    return kept, left_out


def _draw(is_counted: Bool[np.ndarray, "tokens"], most: int, seed: int) -> Bool[np.ndarray, "tokens"]:
    """A mask of `most` of the tokens that count, or of all of them. A token is drawn by its place alone."""
    if most < 1:
        raise InputError(f"most: expected at least 1 token, got {most}")
    places: Int[np.ndarray, counted] = np.flatnonzero(is_counted)
    order = np.argsort(keys(places, hash_seed(seed, "tokens that are probed")))
    keep = np.zeros(len(is_counted), bool)
    keep[places[order[:most]]] = True
    return keep


def _rows(tokens: Tokens, expected: int) -> Float[Tensor, "rows d_in"]:
    parts = list[Tensor]()
    for x in chunks(tokens):
        if not parts:
            needed = 40 * expected * x.shape[1]  # here, and four times in float64 as controls
            check_memory(needed, torch.device("cpu"), "for the tokens that are probed", "probe fewer tokens")
        parts.append(x.cpu())
    return torch.cat(parts)
