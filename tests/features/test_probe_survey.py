"""Laws of probes of many labels: they find what was planted, in documents and in tokens."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations
from autopsae.features.codes import Codes
from autopsae.features.labels import Labels, align_annotations
from autopsae.features.pool import pool_codes, pool_tokens
from autopsae.features.probe_survey import probe_concepts, probe_documents
from autopsae.features.probes import fit_probes, representations
from autopsae.features.split import split_documents
from tests.features.sources import codes_of, sparse_matrix

pytestmark = pytest.mark.quick

LENGTH, DOCUMENTS, D_SAE = 10, 120, 8
OF = np.repeat(np.arange(DOCUMENTS), LENGTH)


def planted() -> tuple[Codes, torch.Tensor, Labels]:
    """Latent 5 fires on the tokens of "known", which every second document has; nothing tells of "unknown"."""
    chance = np.random.default_rng(0)
    rows = [(d, start, start + 3, "known") for d in range(0, DOCUMENTS, 2) for start in (2, 6)]
    rows += [(int(d), 0, 1, "unknown") for d in chance.choice(DOCUMENTS, 60, replace=False)]
    rows += [(3, 0, 1, "rare"), *((d, 4, 5, "in all") for d in range(DOCUMENTS))]
    labels = align_annotations(Annotations.of(rows), OF)
    dense = sparse_matrix(len(OF), D_SAE)
    dense[:, 5] = np.where(labels.mask(labels.concepts.index("known")), 4.0, 0.0)
    return codes_of(dense, OF), torch.randn(len(OF), 6, generator=torch.Generator().manual_seed(0)), labels


@pytest.mark.parametrize("rows", ["documents", "tokens"])
def test_the_best_latent_is_the_planted_one_and_all_else_is_at_chance(rows: Any) -> None:
    codes, x, labels = planted()
    survey = probe_concepts({"sae": codes}, x, labels, rows=rows, ks=(1, 4))
    known = survey.probes["known"]
    assert known.best("sae", 1).columns == (5,)
    assert known.best("sae", 1).auc == 1.0
    for score in (*survey.probes["unknown"].scores, *known.shuffled):
        assert abs(score.auc - 0.5) < 0.25, score
    expected = {"documents": {"known", "unknown"}, "tokens": {"known", "unknown", "in all"}}
    assert {*survey.probes} == expected[rows]
    assert {*survey.left_out} == {*labels.concepts} - expected[rows]
    assert survey.mean_auc("neurons", 100) == pytest.approx(
        np.mean([p.best("neurons", 4).auc for p in survey.probes.values()])
    )
    assert str(survey).startswith(f"probes of {len(survey.probes)} labels: mean AUC ")
    table = survey.columns()
    assert len(table["label"]) == len(survey.probes) * 4 * 2
    assert table["best_column"][table["label"].index("known")] == 5
    assert f" {rows} with and " in json.loads(json.dumps(survey.to_dict()))["left_out"]["rare"]


def test_probes_of_documents_are_fit_probes_on_the_pooled_codes() -> None:
    codes, x, _ = planted()
    has = np.arange(DOCUMENTS) % 2 == 0
    leave_out = np.arange(len(OF)) % LENGTH == 9
    survey = probe_documents(
        {"sae": codes}, x, OF, {"even": has}, leave_out=leave_out, pool="mean", ks=(2,), seed=4
    )
    is_test = split_documents(OF, seed=4)[::LENGTH] == 1
    pooled = {"sae": pool_codes(codes, "mean", leave_out=leave_out)}
    of = representations(pooled, pool_tokens(x, OF, "mean", leave_out=leave_out), is_test, seed=4)
    assert survey.probes["even"].to_dict() == fit_probes(of, has, is_test, ks=(2,), seed=4).to_dict()


def test_tokens_are_drawn_where_there_are_more_than_are_probed_and_special_ones_do_not_count() -> None:
    codes, x, labels = planted()
    some = probe_concepts({"sae": codes}, x, labels, rows="tokens", ks=(1,), most=300)
    probes = some.probes["known"]
    assert sum(probes.train) + sum(probes.test) == 300
    counted = np.arange(len(OF)) % LENGTH > 0
    labels = align_annotations(Annotations.of([(d, 2, 5, "known") for d in range(0, DOCUMENTS, 2)]), OF)
    object.__setattr__(labels, "is_counted", counted)
    probes = probe_concepts({"sae": codes}, x, labels, rows="tokens", ks=(1,)).probes["known"]
    assert sum(probes.train) + sum(probes.test) == int(counted.sum())


def test_a_label_needs_ten_rows_of_either_kind_on_either_side() -> None:
    codes, x, _ = planted()
    side = split_documents(OF)[::LENGTH]
    has = np.zeros(DOCUMENTS, bool)
    has[[*np.flatnonzero(side == 0)[:10], *np.flatnonzero(side == 1)[:10]]] = True
    assert {*probe_documents({"sae": codes}, x, OF, {"a": has}, ks=(1,)).probes} == {"a"}
    has[np.flatnonzero(side == 1)[0]] = False
    with pytest.raises(
        InputError,
        match="expected a label with at least 10 documents with and without it on either side, got none of 1 "
        r"\(a: 10 documents with and 50 without it to fit on, 9 and 51 to test on\)",
    ):
        probe_documents({"sae": codes}, x, OF, {"a": has}, ks=(1,))


def test_documents_and_values_may_be_lists_and_features_may_be_tensors() -> None:
    codes, x, _ = planted()
    has = np.arange(DOCUMENTS) % 2 == 0
    expected = probe_documents({"sae": codes}, x, OF, {"even": has}, ks=(1,)).to_dict()
    for values in (has.tolist(), has.astype(int), torch.from_numpy(has)):
        assert probe_documents({"sae": codes}, x, OF.tolist(), {"even": values}, ks=(1,)).to_dict() == expected
    is_test = np.arange(len(OF)) % 2 == 0
    of = [fit_probes({"x": form}, OF % 3 == 0, is_test, ks=(2,)).to_dict() for form in (x, x.numpy())]
    assert of[0] == of[1]


@pytest.mark.parametrize("n", [DOCUMENTS - 1, len(OF)])
def test_values_of_another_number_of_documents_are_refused(n: int) -> None:
    codes, x, _ = planted()
    with pytest.raises(
        InputError, match=r"even: expected a truth value for each of 120 documents, got bool of shape"
    ):
        probe_documents({"sae": codes}, x, OF, {"even": np.arange(n) % 2 == 0})
    for wrong in (np.arange(DOCUMENTS) % 3, np.where(np.arange(DOCUMENTS) % 2, 1, -1)):
        with pytest.raises(InputError, match=r"even: expected a truth value .* with the value (2|-1);"):
            probe_documents({"sae": codes}, x, OF, {"even": wrong})


def test_codes_of_other_documents_are_not_probed() -> None:
    codes, x, labels = planted()
    other = Codes(blocks=codes.blocks, d_sae=D_SAE, documents=OF[::-1].copy())
    for rows in ("tokens", "documents"):
        with pytest.raises(
            InputError, match="expected the documents of the codes' tokens, got document 0 for token 0"
        ):
            probe_concepts({"sae": codes, "other": other}, x, labels, rows=rows)


def test_bad_surveys_are_one_clear_line() -> None:
    codes, x, labels = planted()
    with pytest.raises(InputError, match="rows: expected documents or tokens, got 'words'"):
        probe_concepts({"sae": codes}, x, labels, rows="words")
    with pytest.raises(InputError, match="most: expected at least 1 token, got 0"):
        probe_concepts({"sae": codes}, x, labels, rows="tokens", most=0)
    with pytest.raises(InputError, match="got 1,200 for 1,199 tokens"):
        probe_concepts({"sae": codes}, x[1:], labels, rows="tokens")
    with pytest.raises(InputError, match=r"probes: expected one of sae, neurons, .*, got words"):
        probe_concepts({"sae": codes}, x, labels, ks=(1,)).mean_auc("words", 1)
