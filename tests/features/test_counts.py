"""Laws of the counts: precision, recall and F1 are those of scikit-learn, a double loop, and pencil and paper."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations
from autopsae.features.counts import THRESHOLDS, ConceptCounts, count_concepts, leave_out_tokens
from autopsae.features.labels import Labels, align_annotations
from tests.features.sources import codes_of, spans, sparse_matrix
from tests.ways import without_numba

pytestmark = pytest.mark.quick

LENGTH, DOCUMENTS, D_SAE = 11, 8, 6
OF = np.repeat(np.arange(DOCUMENTS), LENGTH)
SPLITS = (OF % 2).astype(np.int8)


@pytest.fixture(params=["numba", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        without_numba(monkeypatch)
    return str(request.param)


def labelled(domains: tuple[str, ...] = ("phrase", "long")) -> Labels:
    return align_annotations(Annotations.of(spans(LENGTH, DOCUMENTS), domains=domains), OF)


def counted(dense: NDArray[np.float64], labels: Labels, block: int = 7) -> ConceptCounts:
    return count_concepts(codes_of(dense, OF, block), labels, SPLITS)


def by_a_double_loop(dense: NDArray[np.float64], labels: Labels, split: int) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 of every latent, threshold and concept, token by token and domain by domain."""
    shape = (D_SAE, len(THRESHOLDS), len(labels.concepts))
    scores = {name: np.zeros(shape) for name in ("precision", "recall", "f1")}
    for latent, level, concept in np.ndindex(*shape):
        fires = [
            dense[t, latent] > 0 and dense[t, latent] / dense[:, latent].max() > THRESHOLDS[level]
            for t in range(len(dense))
        ]
        has = [False] * len(dense)
        domains = []
        for first, last, number in zip(labels.firsts, labels.lasts, labels.numbers, strict=True):
            if number == concept:
                domains.append(range(first, last))
                for t in range(first, last):
                    has[t] = True
        mine = [t for t in range(len(dense)) if SPLITS[t] == split]
        both = sum(fires[t] and has[t] for t in mine)
        fired, positives = sum(fires[t] for t in mine), sum(has[t] for t in mine)
        precision = both / fired if fired else 0.0
        recall = both / positives if positives else 0.0
        if labels.by_domain[concept]:
            of_split = [domain for domain in domains if SPLITS[domain[0]] == split]
            recall = sum(any(fires[t] for t in domain) for domain in of_split) / len(of_split)
        total = precision + recall
        f1 = 2 * precision * recall / total if total else 0.0
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            scores[name][latent, level, concept] = value
    return scores


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("block", [3, 7, 1000])
def test_scores_are_those_of_a_double_loop(block: int) -> None:
    dense, labels = sparse_matrix(len(OF), D_SAE), labelled()
    counts = counted(dense, labels, block)
    for split in (0, 1):
        expected = by_a_double_loop(dense, labels, split)
        np.testing.assert_allclose(counts.precision(split), expected["precision"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(counts.recall(split), expected["recall"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(counts.f1(split), expected["f1"], rtol=0, atol=1e-12)
    assert (counts.f1(0) > 0).any()


@pytest.mark.usefixtures("way")
def test_scores_by_token_are_those_of_scikit_learn() -> None:
    dense, labels = sparse_matrix(len(OF), D_SAE), labelled(domains=())
    counts = counted(dense, labels)
    assert counts.hit is None
    for split in (0, 1):
        mine = split == SPLITS
        for latent, level, concept in np.ndindex(D_SAE, len(THRESHOLDS), 3):
            fires = dense[:, latent] / dense[:, latent].max() > THRESHOLDS[level]
            expected = precision_recall_fscore_support(
                labels.mask(concept)[mine], fires[mine], average="binary", zero_division=0.0
            )
            of = (counts.precision(split), counts.recall(split), counts.f1(split))
            got = [scores[latent, level, concept] for scores in of]
            np.testing.assert_allclose(got, expected[:3], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
def test_precision_recall_and_f1_of_a_case_by_hand() -> None:
    # One latent, ten tokens, all of one document per split; its largest code is 10.
    #   token      0  1  2  3  4 | 5  6  7  8  9
    #   code       0 10  4  0  6 | 0  9  1  0  0
    #   concept    .  x  x  x  . | x  x  .  .  .
    dense = np.array([[0, 10, 4, 0, 6, 0, 9, 1, 0, 0]], float).T
    documents, splits = np.repeat([0, 1], 5), np.repeat([0, 1], 5).astype(np.int8)
    labels = align_annotations(Annotations.of([(0, 1, 4, "c"), (1, 0, 2, "c")]), documents)
    counts = count_concepts(codes_of(dense, documents), labels, splits, thresholds=(0.0, 0.5))
    # Over 0 it fires on tokens 1, 2, 4: two of three have the concept, which has three tokens.
    assert counts.precision(0)[0, 0, 0] == pytest.approx(2 / 3, abs=1e-15)
    assert counts.recall(0)[0, 0, 0] == pytest.approx(2 / 3, abs=1e-15)
    assert counts.f1(0)[0, 0, 0] == pytest.approx(2 / 3, abs=1e-15)
    # Over 0.5 (a code over 5) on tokens 1 and 4: precision 1/2, recall 1/3, F1 = 2 (1/6) / (5/6) = 2/5.
    assert counts.f1(0)[0, 1, 0] == pytest.approx(2 / 5, abs=1e-15)
    # In the second document, over 0 on tokens 6 and 7: precision 1/2, recall 1/2; over 0.5 on token 6 alone:
    # precision 1, recall 1/2, F1 2/3.
    assert counts.f1(1)[0, :, 0] == pytest.approx([1 / 2, 2 / 3], abs=1e-15)


@pytest.mark.usefixtures("way")
def test_recall_by_domain_is_interplms_on_a_case_by_hand() -> None:
    # InterPLM: precision counts residues, recall counts domains, and a domain is found if any residue of it fires.
    #   residue    0  1  2  3  4  5  6  7  8  9
    #   code       0  8  0  0  2  5  0  0  0  3         largest code 8
    #   domain     [A  A  A] .  [B  B] .  [C  C] .      one concept, three domains
    # Over 0: fires on 1, 4, 5, 9, of which 1, 4, 5 have the concept: precision 3/4. A and B are hit: recall 2/3.
    #   F1 = 2 (3/4)(2/3) / (3/4 + 2/3) = 1 / (17/12) = 12/17.
    # Over 0.5 (a code over 4): fires on 1 and 5: precision 1, recall 2/3 (a domain needs one residue), F1 4/5.
    # Over 0.8 (a code over 6.4): fires on 1: precision 1, recall 1/3, F1 1/2.
    # By residue, the recall over 0 would be 3/7.
    codes = [0, 8, 0, 0, 2, 5, 0, 0, 0, 3]
    rows = [(0, 0, 3, "DOMAIN"), (0, 4, 6, "DOMAIN"), (0, 7, 9, "DOMAIN")]
    documents = np.repeat([0, 1], 10)
    splits = documents.astype(np.int8)
    dense = np.array([codes + [0] * 10], float).T
    for block in (2, 100):  # domains that lie in several blocks, and in one
        labels = align_annotations(Annotations.of([*rows, (1, 0, 2, "DOMAIN")], domains=["DOMAIN"]), documents)
        counts = count_concepts(codes_of(dense, documents, block), labels, splits, thresholds=(0.0, 0.5, 0.8))
        assert counts.domains[:, 0].tolist() == [3, 1]
        assert counts.recall(0)[0, :, 0] == pytest.approx([2 / 3, 2 / 3, 1 / 3], abs=1e-15)
        assert counts.f1(0)[0, :, 0] == pytest.approx([12 / 17, 4 / 5, 1 / 2], abs=1e-15)
    by_residue = align_annotations(Annotations.of([*rows, (1, 0, 2, "DOMAIN")]), documents)
    counts = count_concepts(codes_of(dense, documents), by_residue, splits, thresholds=(0.0,))
    assert counts.recall(0)[0, 0, 0] == pytest.approx(3 / 7, abs=1e-15)


def test_a_code_at_the_threshold_does_not_fire_and_one_over_it_does() -> None:
    dense = np.array([[16.0, 8.0, 8.0625, 4.0]]).T
    labels = align_annotations(Annotations.of([(0, 0, 1, "c")]), np.zeros(4, np.int64))
    splits = np.zeros(4, np.int8)
    counts = count_concepts(codes_of(dense), labels, splits, thresholds=(0.25, 0.5))
    assert counts.fired[0, 0].tolist() == [3, 2]


def test_tokens_that_do_not_count_are_neither_fired_on_nor_scale_a_latent() -> None:
    dense = np.array([[100.0, 1.0, 2.0, 0.0]]).T
    labels = align_annotations(Annotations.of([(0, 0, 2, "c")]), np.zeros(4, np.int64))
    object.__setattr__(labels, "is_counted", np.array([False, True, True, True]))
    counts = count_concepts(codes_of(dense), labels, np.zeros(4, np.int8), thresholds=(0.0,))
    assert counts.largest.tolist() == [2.0]
    assert counts.fired[0, 0].tolist() == [2]
    assert counts.positives[0].tolist() == [1]
    assert [block.values.tolist() for block in leave_out_tokens(codes_of(dense, block=2), labels)] == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda c, lab: count_concepts(c, lab, SPLITS, thresholds=(0.5, 0.2)),
            r"thresholds: expected rising numbers",
        ),
        (lambda c, lab: count_concepts(c, lab, SPLITS, thresholds=(0.5, 1.0)), r"under 1, got \[0.5, 1.0\]"),
        (lambda c, lab: count_concepts(c, lab, SPLITS, thresholds=()), r"thresholds: expected rising numbers"),
        (
            lambda c, lab: count_concepts(c, lab, SPLITS[1:]),
            r"splits: expected a truth value for each of 88 tokens, got int8 of shape \(87,\)",
        ),
        (
            lambda c, lab: count_concepts(codes_of(sparse_matrix(80, D_SAE)), lab, SPLITS),
            r"labels of 88 tokens and codes of 80; are they of another source",
        ),
        (
            lambda c, lab: count_concepts(codes_of(sparse_matrix(99, D_SAE)), lab, SPLITS),
            r"labels of 88 tokens and codes of more",
        ),
    ],
)
def test_bad_counts_are_one_clear_line(act: Callable[..., object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        act(codes_of(sparse_matrix(len(OF), D_SAE), OF), labelled())
