"""Laws of coverage: a planted latent is the best, validation documents alone choose, and chance covers nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations
from autopsae.features.codes import Codes
from autopsae.features.compare import compare_coverages
from autopsae.features.counts import count_concepts
from autopsae.features.coverage import concept_coverage
from autopsae.features.coverage_result import Coverage
from autopsae.features.labels import Labels, align_annotations
from autopsae.features.latent_probes import probe_coverage
from autopsae.features.split import TEST, VALIDATION, split_documents
from autopsae.features.tallies import f1_of
from tests.features.sources import codes_of, spans, sparse_matrix

pytestmark = pytest.mark.quick

LENGTH, DOCUMENTS, D_SAE = 40, 24, 8
OF = np.repeat(np.arange(DOCUMENTS), LENGTH)


def labels_of(rows: list[tuple[int, int, int, str]], *domains: str) -> Labels:
    return align_annotations(Annotations.of(rows, domains=domains), OF)


def planted(*, latent: int = 5, strength: float = 20.0) -> tuple[NDArray[np.float64], Labels]:
    """Noise, and one latent that fires on the tokens of the concept "phrase" and on few others."""
    labels = labels_of(spans(LENGTH, DOCUMENTS), "phrase")
    dense = sparse_matrix(len(OF), D_SAE, share=0.1)
    dense[:, latent] = np.where(labels.mask(labels.concepts.index("phrase")), strength, dense[:, latent])
    return dense, labels


def covered(dense: NDArray[np.float64], labels: Labels, **more: object) -> Coverage:
    return concept_coverage(codes_of(dense, OF), labels, **more)  # type: ignore[arg-type]


def test_a_planted_latent_is_the_best_of_its_concept_and_covers_it() -> None:
    coverage = covered(*planted())
    [score] = [score for score in coverage.scores if score.concept == "phrase"]
    assert score.latent == 5
    assert score.unit == "domain"
    assert min(score.validation_f1, score.f1) > 0.99
    assert score.threshold > 0
    assert coverage.count() == 1
    assert coverage.count_by_chance() == 0
    assert coverage.latents_per_concept() == {"long": 0, "phrase": 1, "word": 0}
    assert coverage.concepts_per_live_latent() == 1 / D_SAE
    assert str(coverage) == (
        "1 of 3 concepts are covered (F1 over 0.5 on validation and test documents; 0 by chance) by 8 live latents "
        "of 8, on 960 tokens of 24 documents"
    )


def test_the_scores_are_the_best_on_validation_documents_and_those_of_the_same_pair_on_test_documents() -> None:
    dense, labels = planted(strength=3.0)
    coverage, splits = covered(dense, labels), split_documents(OF)
    counts = count_concepts(codes_of(dense, OF), labels, splits)
    for n, score in enumerate(coverage.scores):
        f1 = counts.f1(VALIDATION)[:, :, n]
        latent, level = np.unravel_index(f1.argmax(), f1.shape)
        assert (score.latent, score.threshold) == (int(latent), counts.thresholds[level])
        assert score.validation_f1 == f1.max()
        assert score.f1 == counts.f1(TEST)[latent, level, n]
        assert score.precision == counts.precision(TEST)[latent, level, n]
        assert score.recall == counts.recall(TEST)[latent, level, n]
        assert score.positives == tuple(counts.positives[:, n])
    np.testing.assert_array_equal(coverage.validation_f1, counts.f1(VALIDATION).max(axis=1).astype(np.float32))


def test_a_concept_that_holds_on_validation_alone_is_not_covered() -> None:
    dense, labels = planted()
    dense[split_documents(OF) == TEST] = 0
    coverage = covered(dense, labels)
    [score] = [score for score in coverage.scores if score.concept == "phrase"]
    assert score.validation_f1 > 0.99
    assert score.f1 == 0
    assert coverage.count() == 0


def test_the_tallies_by_document_sum_up_to_the_score() -> None:
    coverage = covered(*planted(strength=3.0))
    by_domain = np.array([score.unit == "domain" for score in coverage.scores])
    f1 = f1_of(coverage.tallies.sum(axis=1).astype(np.float64), by_domain)
    np.testing.assert_allclose(f1, [score.f1 for score in coverage.scores], rtol=0, atol=1e-15)


def test_the_curve_falls_and_begins_with_what_is_over_zero() -> None:
    coverage = covered(*planted())
    curve = [*coverage.curve.values()]
    assert curve == sorted(curve, reverse=True)
    assert coverage.curve[0.5] == coverage.count()
    assert coverage.curve[0.0] == sum(min(s.validation_f1, s.f1) > 0 for s in coverage.scores)


def test_labels_of_noise_are_covered_no_more_than_by_chance() -> None:
    coverage = covered(sparse_matrix(len(OF), D_SAE, share=0.1), labels_of(spans(LENGTH, DOCUMENTS)))
    assert coverage.count() == coverage.count_by_chance() == 0


def test_too_rare_concepts_and_those_on_every_token_are_said_to_be_left_out() -> None:
    rows = [*spans(LENGTH, DOCUMENTS), (0, 0, 1, "rare"), *((n, 0, LENGTH, "all") for n in range(DOCUMENTS))]
    dense, _ = planted()
    coverage = covered(dense, labels_of(rows))
    assert coverage.left_out["all"] == "on every token"
    assert coverage.left_out["rare"].startswith("too rare: ")
    assert coverage.left_out["rare"].endswith("documents for validation and test")
    assert [score.concept for score in coverage.scores] == ["long", "phrase", "word"]
    kept = covered(dense, labels_of(rows), least_positives=0, least_documents=0)
    assert "rare" not in kept.left_out


def test_a_concept_at_the_least_number_of_tokens_is_kept_and_one_under_it_is_not() -> None:
    dense, labels = planted()
    least = min(covered(dense, labels).scores[-1].positives)
    assert covered(dense, labels, least_positives=least).scores[-1].concept == "word"
    assert "word" in covered(dense, labels, least_positives=least + 1).left_out


def test_no_concept_that_is_frequent_enough_is_one_clear_line() -> None:
    with pytest.raises(
        InputError, match=r"at least 10 tokens and 2 documents in both splits, got none of 1 \(rare: too"
    ):
        covered(planted()[0], labels_of([(0, 0, 1, "rare")]))


def test_equal_arguments_give_equal_results_and_a_table_says_them(tmp_path: Path) -> None:
    one, two = (covered(*planted()) for _ in range(2))
    assert one.to_dict() == two.to_dict()
    assert json.loads(json.dumps(one.to_dict()))["curve"]["0.5"] == 1
    one.save_table(tmp_path / "t.csv")
    assert (
        (tmp_path / "t.csv").read_text().splitlines()[0].startswith("concept,unit,latent,threshold,validation_f1")
    )
    assert len(one.to_frame()) == 3


def test_fewer_live_latents_cover_less_and_all_of_them_what_the_coverage_says() -> None:
    coverage = covered(*planted())
    assert coverage.count_with(D_SAE) == coverage.count()
    share = coverage.count_with(D_SAE // 2)
    assert 0.3 < share < 0.7  # the one latent is among half of them in half of the draws
    with pytest.raises(InputError, match="expected 1 to 8 live latents, got 9"):
        coverage.count_with(9)


# Comparison


def test_an_sae_with_more_latents_gains_and_one_compared_with_itself_does_not() -> None:
    dense, labels = planted()
    without = dense.copy()
    without[:, 5] = 0
    result = compare_coverages({"without": covered(without, labels), "with": covered(dense, labels)})
    [gain] = result.gains
    assert (gain.name, gain.covered, gain.more_covered, gain.live) == ("with", 1, 1, D_SAE)
    assert gain.more_covered_by_documents == (1.0, 1.0)
    low, high = gain.more_covered_by_concepts
    assert low == 0
    assert high >= 2  # one concept of three, drawn several times
    assert gain.more_f1_by_documents[0] > 0
    assert gain.equal_live == D_SAE - 1
    assert 0.8 < gain.covered_by_equal_live < 0.95  # 7 of 8 draws
    assert gain.baseline_by_equal_live == 0
    same = compare_coverages({"one": covered(dense, labels), "same": covered(dense, labels)}).gains[0]
    assert same.more_covered_by_documents == same.more_covered_by_concepts == (0.0, 0.0)
    assert same.more_f1_by_documents == (0.0, 0.0)
    assert "with: 1 (+1; +1 to +1 over documents; with 7 live latents each" in str(result)
    assert json.loads(json.dumps(result.to_dict()))["gains"][0]["name"] == "with"


def test_coverages_of_other_labels_are_not_compared() -> None:
    dense, labels = planted()
    other = covered(dense, labels_of(spans(LENGTH, DOCUMENTS, seed=1), "phrase"))
    with pytest.raises(
        InputError, match="expected coverages of the same concepts, tokens, documents and seed, got others for b"
    ):
        compare_coverages({"a": covered(dense, labels), "b": other})
    with pytest.raises(InputError, match="expected at least two coverages"):
        compare_coverages({"a": other})
    with pytest.raises(InputError, match="and 'c'"):
        compare_coverages({"a": other, "b": other}, baseline="c")


def test_coverages_of_other_thresholds_and_impossible_draws_are_refused() -> None:
    dense, labels = planted()
    one, other = covered(dense, labels), covered(dense, labels, thresholds=(0.3,))
    with pytest.raises(InputError, match=r"with the same thresholds, got \(0.3,\) for b instead of \(0.0, 0.15"):
        compare_coverages({"a": one, "b": other})
    for limit in (float("nan"), -0.1, 1.0):
        with pytest.raises(InputError, match=r"limit: expected an F1 of at least 0 and under 1, got"):
            compare_coverages({"a": one, "b": one}, limit=limit)
    with pytest.raises(InputError, match="resamples: expected a whole number from 1 to"):
        compare_coverages({"a": one, "b": one}, resamples=0)


@pytest.mark.parametrize("use", [concept_coverage, lambda c, lab: probe_coverage(c, lab, covered(*planted()))])
def test_codes_and_labels_of_other_documents_are_refused(use: Callable[[Codes, Labels], object]) -> None:
    dense, labels = planted()
    use(codes_of(dense), labels)  # codes that know no documents may be of these
    use(codes_of(dense, OF), labels)
    for of, message in (
        (
            OF[::-1].copy(),
            "labels: expected the documents of the codes' tokens, got document 0 for token 0, which is of",
        ),
        (OF[1:], "labels: expected those of the codes' tokens, got labels of 960 tokens and codes of 959"),
    ):
        with pytest.raises(InputError, match=message):
            use(codes_of(dense[: len(of)], of), labels)


# A logistic probe on one latent


def test_a_coverage_of_another_sae_or_of_other_labels_has_no_probes() -> None:
    dense, labels = planted()
    coverage, codes = covered(dense, labels), codes_of(dense, OF)
    with pytest.raises(InputError, match="coverage: expected one of 7 latents, as the codes have, got 8"):
        probe_coverage(codes_of(dense[:, 1:], OF), labels, coverage)
    renamed = labels_of([(*row[:3], "other") for row in spans(LENGTH, DOCUMENTS)])
    with pytest.raises(
        InputError, match=r"coverage: expected one of these labels .* got the concept 'long' on 960 tokens"
    ):
        probe_coverage(codes, renamed, coverage)
    fewer = replace(labels, is_counted=np.arange(len(OF)) > 0)
    with pytest.raises(InputError, match=r"coverage: expected one of these labels \(3 concepts, 959 tokens"):
        probe_coverage(codes, fewer, coverage)


def test_a_probe_of_one_latent_is_scikit_learns_on_all_tokens() -> None:
    dense, labels = planted(strength=3.0)
    codes = codes_of(dense, OF)
    coverage = covered(dense, labels)
    probes = probe_coverage(codes, labels, coverage, candidates=3)
    splits = split_documents(OF)
    for n, probe in enumerate(probes.probes):
        best = 0.0
        for latent in np.argsort(-coverage.validation_f1[:, n], kind="stable")[:3]:
            x, y = dense[:, [latent]] / dense[splits == 0, latent].max(), labels.mask(n)
            model = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000).fit(x[splits == 0], y[splits == 0])
            says = model.predict(x)
            scores = [f1_score(y[splits == side], says[splits == side]) for side in (0, 1)]
            best = max(best, scores[0])
            if latent == probe.latent:
                assert [probe.validation_f1, probe.f1] == pytest.approx(scores, abs=1e-12)
        assert probe.validation_f1 == pytest.approx(best, abs=1e-12)
    assert probes.count() == 1
    assert str(probes) == "1 of 3 concepts have a latent whose logistic probe exceeds F1 0.5"
    with pytest.raises(InputError, match="candidates: expected at least 1"):
        probe_coverage(codes, labels, coverage, candidates=0)
