"""One rule for masks and for numbers of documents: booleans or integers 0 and 1; integers."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autopsae import features
from autopsae.arrays import InputError
from autopsae.evaluation.recentre import recentre
from autopsae.features.rows import SomeTokens, select_codes
from autopsae.statistics.groups import sample_groups
from autopsae.trial.split import split_tokens
from autopsae.vectors import document_numbers, items_of, truth_values
from tests.features.sources import codes_of, small_sae, sparse_matrix

pytestmark = pytest.mark.quick

N, D_SAE = 40, 6
OF = np.repeat(np.arange(10), 4)
DENSE, X = sparse_matrix(N, D_SAE, share=0.5), torch.randn(N, 12, generator=torch.Generator().manual_seed(0))
MASK = np.arange(N) % 3 == 1
LABELS = features.align_annotations(features.Annotations.of([(n, 0, 2, "c") for n in range(10)]), OF)


def as_dense(codes: features.Codes) -> list[Any]:
    return [(block.ends.tolist(), block.latents.tolist(), block.values.tolist()) for block in codes]


def recentre_some(mask: Any) -> list[Any]:
    sae = small_sae(d_sae=N)
    after = recentre(sae, center=torch.ones(12), is_dead=mask).b_enc
    assert after is not None
    return after.tolist()


def count_by(mask: Any) -> list[Any]:
    return features.count_concepts(codes_of(DENSE, OF), LABELS, mask).both.tolist()  # type: ignore[no-any-return]


def fit(mask: Any) -> list[Any]:
    x = X.numpy().astype(np.float64)
    return [one.auc for one in features.fit_probes({"x": x}, OF % 2, mask, ks=(2,)).scores]


def label_with(mask: Any) -> list[Any]:
    # Our own tests check the types of fields; users do not.
    new: Any = SimpleNamespace(**{**vars(LABELS), "is_counted": mask})
    features.Labels.__post_init__(new)
    return [part.tolist() for part in replace(LABELS, is_counted=new.is_counted).pairs]


TAKE_A_MASK: dict[str, Callable[[Any], object]] = {
    "pool_codes": lambda mask: as_dense(features.pool_codes(codes_of(DENSE, OF), "mean", leave_out=mask)),
    "pool_tokens": lambda mask: features.pool_tokens(X, OF, leave_out=mask).tolist(),
    "control_saes": lambda mask: features.control_saes(small_sae(), X, is_counted=mask)[
        "random rows"
    ].b_dec.tolist(),
    "select_codes": lambda mask: as_dense(select_codes(codes_of(DENSE, OF), mask)),
    "SomeTokens": lambda mask: torch.cat(list(SomeTokens(X, mask))).tolist(),
    "recentre": recentre_some,
    "count_concepts": count_by,
    "fit_probes": fit,
    "Labels": label_with,
}


@pytest.mark.parametrize("take", TAKE_A_MASK.values(), ids=TAKE_A_MASK)
def test_a_mask_means_the_same_in_every_form_that_it_may_have(take: Callable[[Any], object]) -> None:
    expected = take(MASK)
    forms = [
        MASK.astype(int),
        MASK.astype(np.uint8),
        MASK.tolist(),
        MASK.astype(int).tolist(),
        torch.from_numpy(MASK),
    ]
    for form in [*forms, torch.from_numpy(MASK).int()]:
        assert take(form) == expected
    assert take(~MASK) != expected


@pytest.mark.parametrize("take", TAKE_A_MASK.values(), ids=TAKE_A_MASK)
@pytest.mark.parametrize(
    "wrong",
    [
        MASK.astype(float),
        MASK * 2,
        -1 * MASK,
        np.arange(N),
        MASK[1:],
        MASK[None],
        [None] * N,
        [[1], [1, 0]],
    ],
    ids=range(8),
)
def test_what_is_no_mask_is_refused(take: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(InputError, match=r"expected (a truth value|an array|a 0 or 1)"):
        take(wrong)


def test_the_message_says_what_came_instead_of_a_mask() -> None:
    with pytest.raises(
        InputError, match=r"^keep: expected a truth value for each of 3 rows, got int64 of shape \(3,\) "
    ):
        truth_values("keep", np.array([0, 1, 7]), 3, unit="rows")
    with pytest.raises(InputError, match=r"with the value 7; pass booleans, or integers that are 0 or 1$"):
        truth_values("keep", np.array([0, 1, 7]))
    for wrong in (1, "mask", None):
        with pytest.raises(InputError, match=r"^keep: expected a truth value for each row, got .* of shape \(\);"):
            truth_values("keep", wrong)
    with pytest.raises(InputError, match="keep: expected a plain array, got a masked one"):
        truth_values("keep", np.ma.masked_array([True], mask=[True]))
    assert truth_values("keep", MASK) is MASK or np.shares_memory(truth_values("keep", MASK), MASK)


# Documents


TAKE_DOCUMENTS: dict[str, Callable[[Any], object]] = {
    "encode_source": lambda of: features.encode_source(small_sae(), X, documents=of).documents.tolist(),  # type: ignore[union-attr]
    "align_annotations": lambda of: features.align_annotations(
        features.Annotations.of([(1, 0, 2, "c")]), of
    ).firsts.tolist(),
    "split_documents": lambda of: features.split_documents(of).tolist(),
    "pool_tokens": lambda of: features.pool_tokens(X, of).tolist(),
    "sample_groups": lambda of: sample_groups(X, of).guesses[0].tolist(),
    "split_tokens": lambda of: next(iter(split_tokens(X, of, held_out=5)[1])).tolist(),
    "within": lambda of: features.Annotations.of([(1, 0, 2, "c"), (99, 0, 1, "d")]).within(of).rows(),
}


@pytest.mark.parametrize("take", TAKE_DOCUMENTS.values(), ids=TAKE_DOCUMENTS)
def test_documents_may_be_a_list_or_a_tensor_of_integers(take: Callable[[Any], object]) -> None:
    expected = take(OF)
    for form in (OF.tolist(), torch.from_numpy(OF), OF.astype(np.uint8)):
        assert take(form) == expected


@pytest.mark.parametrize("take", TAKE_DOCUMENTS.values(), ids=TAKE_DOCUMENTS)
@pytest.mark.parametrize(
    "wrong",
    [OF + 0.4, OF.astype(float), np.full(N, np.nan), OF.reshape(10, 4), OF.astype(str), OF > 3, [[1], [1, 2]]],
    ids=range(7),
)
def test_documents_that_are_no_vector_of_integers_are_refused(take: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(InputError, match=r"documents: expected (a whole number for each|an array)") as raised:
        take(wrong)
    assert "\n" not in str(raised.value)


def test_a_number_of_a_document_that_int64_does_not_hold_is_refused() -> None:
    assert document_numbers(np.array([2**63 - 1], np.uint64)).tolist() == [2**63 - 1]
    with pytest.raises(InputError, match="got uint64 of shape"):
        document_numbers(np.array([2**63], np.uint64))


@pytest.mark.parametrize("wrong", [3, 0.5, "0.5", None, np.array(3), torch.tensor(3)], ids=repr)
def test_a_single_item_and_a_text_are_no_sequence(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"^ks: expected a sequence of numbers, got .*; pass a tuple of them$"):
        items_of("ks", wrong, "numbers")
    assert items_of("ks", np.array([1, 2]), "numbers") == [1, 2]


UNTYPED = """
import numpy as np, torch
from autopsae import features, InputError
from tests.features.sources import codes_of, sparse_matrix
of = np.repeat(np.arange(60), 4)
codes, x = codes_of(sparse_matrix(240, 6), of), torch.randn(240, 5)
labels = features.align_annotations(features.Annotations.of([(n, 0, 2, "c") for n in range(0, 60, 2)]), of)
y, test = of % 2, of < 30
for act in (
    lambda: features.fit_probes({"x": x}, y, test, ks=3),
    lambda: features.fit_probes({"x": x}, y, test, ks=(1.5,)),
    lambda: features.concept_coverage(codes, labels, thresholds=0.5),
    lambda: features.concept_coverage(codes, labels, thresholds="0.5"),
    lambda: features.concept_coverage(codes, labels, thresholds=("0.5",)),
    lambda: features.probe_concepts(codes, x, labels),
    lambda: features.probe_concepts(codes, x, labels, rows="tokens"),
    lambda: features.Annotations.of([7]),
    lambda: features.pool_tokens(x, 7),
):
    try:
        print("no error", act())
    except InputError as error:
        print(error)
"""


def test_what_a_checker_of_types_refuses_is_one_clear_line_without_it() -> None:
    done = subprocess.run([sys.executable, "-c", UNTYPED], capture_output=True, text=True, check=True)
    expected = [
        "ks: expected a sequence of numbers of columns, got 3; pass a tuple of them",
        "ks: expected a whole number, got 1.5; pass an int",
        "thresholds: expected a sequence of numbers, got 0.5; pass a tuple of them",
        "thresholds: expected a sequence of numbers, got '0.5'; pass a tuple of them",
        "thresholds: expected rising numbers of at least 0 and under 1, got ['0.5']",
        *['codes: expected {name: codes}, got Codes; give it a name, such as {"latents": codes}'] * 2,
        "annotations: row 0: expected (document, start, end, concept), got 7",
        "documents: expected a whole number for each token, got int64 of shape (); pass the number of the document "
        "that each token is from",
    ]
    assert done.stdout.splitlines() == expected
