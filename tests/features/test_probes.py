"""Laws of probes: they find a planted latent, score at chance on shuffled labels, and are scikit-learn's."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from autopsae.arrays import InputError
from autopsae.features import tasks
from autopsae.features.pool import pool_codes, pool_tokens
from autopsae.features.probes import fit_probes, representations
from autopsae.features.tasks import probe_task_names, read_probe_task
from tests.features.sources import codes_of, sparse_matrix

pytestmark = pytest.mark.quick

N, D_SAE, D_IN = 300, 30, 10
LABELS = np.random.default_rng(1).random(N) < 0.4
IS_TEST = np.arange(N) % 3 == 0


def planted() -> dict[str, object]:
    """One latent that fires for the label in nine documents of ten; activations that know nothing."""
    dense = sparse_matrix(N, D_SAE)
    flip = np.random.default_rng(2).random(N) < 0.05
    dense[:, 17] = np.where(LABELS ^ flip, 5.0, 0.0)
    x = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(0))
    return representations(codes_of(dense), x, IS_TEST)


def test_a_probe_finds_the_planted_latent_and_the_controls_are_at_chance() -> None:
    probes = fit_probes(planted(), LABELS, IS_TEST, ks=(1, 4))
    assert probes.best("latents", 1).columns == (17,)
    assert probes.best("latents", 1).auc > 0.9
    assert probes.best("latents", 4).columns[0] == 17
    for name in ("neurons", "principal components", "random directions"):
        for k in (1, 4):
            assert abs(probes.best(name, k).auc - 0.5) < 0.2
    assert probes.test == (int((~LABELS & IS_TEST).sum()), int((LABELS & IS_TEST).sum()))
    assert str(probes).startswith("AUC on 100 test rows: latents k 1: 0.9")
    assert len(probes.to_dict()["scores"]) == len(probes.to_dict()["shuffled"]) == 8


def test_probes_score_at_chance_on_shuffled_labels() -> None:
    aucs = []
    for seed in range(10):
        mixed = np.random.default_rng(seed + 5).permutation(LABELS)
        aucs.append(fit_probes(planted(), mixed, IS_TEST, ks=(1,)).best("latents", 1).auc)
    assert abs(float(np.mean(aucs)) - 0.5) < 3 * 0.06 / np.sqrt(10)


def test_the_shuffled_labels_of_a_result_are_its_own_and_at_chance() -> None:
    probes = [fit_probes(planted(), LABELS, IS_TEST, ks=(1, 4), seed=seed) for seed in range(8)]
    aucs = [score.auc for one in probes for score in one.shuffled if score.representation == "latents"]
    assert len({*aucs}) > 8  # another seed shuffles otherwise
    assert abs(float(np.mean(aucs)) - 0.5) < 0.05
    again = fit_probes(planted(), LABELS, IS_TEST, ks=(1, 4), seed=3)
    assert again.to_dict() == probes[3].to_dict()


def test_several_saes_stand_under_their_names_and_none_is_named_as_a_control() -> None:
    x = torch.randn(N, D_IN)
    one, two = codes_of(sparse_matrix(N, D_SAE)), codes_of(sparse_matrix(N, 7, seed=1))
    named = representations({"one": one, "two": two}, x, IS_TEST)
    assert [*named] == ["one", "two", "neurons", "principal components", "random directions"]
    assert named["two"].shape == (N, 7)
    with pytest.raises(InputError, match="expected SAEs of other names than the controls, got neurons"):
        representations({"neurons": one}, x, IS_TEST)


def test_a_probe_is_scikit_learns_on_the_columns_that_differ_most() -> None:
    x = np.random.default_rng(0).normal(size=(N, 6)) * [1, 10, 1, 1, 0.1, 1] + LABELS[:, None] * [
        0,
        5,
        0.1,
        1,
        0.2,
        0,
    ]
    probes = fit_probes({"x": x}, LABELS, IS_TEST, ks=(2, 100))
    assert [score.k for score in probes.scores] == [2, 6]
    train = ~IS_TEST
    strength = abs(x[train & LABELS].mean(0) - x[train & ~LABELS].mean(0)) / x[train].std(0)
    columns = np.argsort(-strength)[:2]
    assert probes.scores[0].columns == tuple(columns)
    z = (x - x[train].mean(0)) / x[train].std(0)
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(z[train][:, columns], LABELS[train])
    score = model.decision_function(z[IS_TEST][:, columns])
    assert probes.scores[0].auc == pytest.approx(roc_auc_score(LABELS[IS_TEST], score), abs=1e-12)
    assert probes.scores[0].accuracy == pytest.approx(float((LABELS[IS_TEST] == (score > 0)).mean()), abs=1e-12)


def test_principal_components_are_fitted_on_training_rows_alone() -> None:
    x = torch.randn(N, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[torch.from_numpy(IS_TEST)] *= 100
    codes = codes_of(sparse_matrix(N, D_SAE))
    one, two = (representations(codes, of, IS_TEST)["principal components"] for of in (x, changed))
    np.testing.assert_allclose(one[~IS_TEST], two[~IS_TEST], atol=1e-12)
    np.testing.assert_allclose(np.triu(np.cov(one[~IS_TEST].T), 1), 0, atol=1e-12)


def test_fewer_rows_than_neurons_have_no_component_of_rounding_errors() -> None:
    chance, wide = np.random.default_rng(0), 4 * N
    x = torch.from_numpy(chance.normal(size=(N, wide)) + 3 * LABELS[:, None])
    named = representations(codes_of(sparse_matrix(N, D_SAE)), x, IS_TEST)
    components = named["principal components"]
    assert components.shape == (N, int((~IS_TEST).sum()) - 1)  # the mean takes one
    assert components[~IS_TEST].std(axis=0).min() > 1
    probes = fit_probes({"components": components}, LABELS, IS_TEST, ks=(1, 4))
    assert [score.auc > 0.99 for score in probes.scores] == [True, True]
    constant = representations(codes_of(sparse_matrix(N, D_SAE)), torch.ones(N, 3), IS_TEST)
    assert fit_probes(constant, LABELS, IS_TEST, ks=(1,)).best("neurons", 1).auc == 0.5


OF = np.repeat([4, 2, 9], [5, 1, 6])


@pytest.mark.parametrize("block", [1, 4, 100])
def test_pooled_codes_and_tokens_are_those_of_each_document(block: int) -> None:
    dense, leave_out = sparse_matrix(12, 5, share=0.5), np.array([0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0], bool)
    parts = [np.flatnonzero((n == OF) & ~leave_out) for n in (4, 2, 9)]
    expected = {
        "max": [dense[part].max(0) for part in parts],
        "mean": [dense[part].mean(0) for part in parts],
        "last": [dense[part[-1]] for part in parts],
    }
    for how, rows in expected.items():
        [pooled] = pool_codes(codes_of(dense, OF, block), how, leave_out=leave_out)
        got = np.zeros((3, 5))
        got[pooled.tokens, pooled.latents] = pooled.values
        np.testing.assert_allclose(got, rows, rtol=1e-6)
        x = torch.from_numpy(dense)
        tokens = pool_tokens([x[:7], x[7:]], OF, how, leave_out=leave_out)
        np.testing.assert_allclose(tokens.numpy(), rows, rtol=1e-6)
    assert pool_codes(codes_of(dense, OF)).documents.tolist() == [4, 2, 9]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: fit_probes(planted(), np.ones(N, int), IS_TEST),
            "expected 0 and 1 among the training rows, got one",
        ),
        (lambda: fit_probes(planted(), LABELS, np.ones(N, bool)), "among the training rows, got no row"),
        (
            lambda: fit_probes(planted(), LABELS & ~IS_TEST, IS_TEST),
            "expected 0 and 1 among the test rows, got one",
        ),
        (
            lambda: fit_probes(planted(), LABELS + 1, IS_TEST),
            r"expected a 0 or 1 for each of 300 rows, got int64 of shape \(300,\), such as \[",
        ),
        (
            lambda: fit_probes(planted(), LABELS[1:], IS_TEST[1:]),
            "latents: expected a row for each of 299 labels, got 300",
        ),
        (
            lambda: fit_probes(planted(), LABELS, IS_TEST, ks=(0,)),
            r"ks: expected numbers of columns of at least 1, got \[0\]",
        ),
        (
            lambda: fit_probes({"x": np.where(np.eye(N, 3) > 0, np.nan, 1.0)}, LABELS, IS_TEST),
            "x: expected finite features, got 3 that are NaN or infinite",
        ),
        (
            lambda: fit_probes({"x": np.ones(N)}, LABELS, IS_TEST),
            r"x: expected a matrix of numbers \[rows, columns\]",
        ),
        (lambda: fit_probes(planted(), LABELS, IS_TEST).best("words", 1), "probes: expected one of latents 1,"),
        (
            lambda: representations(codes_of(sparse_matrix(9, 3)), torch.ones(8, 2), np.ones(9, bool)),
            "got 9, 8 and 9",
        ),
        (
            lambda: pool_codes(codes_of(sparse_matrix(9, 3))),
            "pool_codes: expected to know the document of each token",
        ),
        (
            lambda: pool_tokens(torch.ones(9, 2), np.zeros(9, int), "sum"),
            "expected to pool by max, mean, last, got 'sum'",
        ),
        (lambda: pool_tokens(torch.ones(9, 2), np.zeros(8, int)), "got 8 for more tokens"),
    ],
)
def test_bad_probes_are_one_clear_line(act: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()


# sae-probes


def package(folder: Path) -> Path:
    """Files laid out as in sae-probes."""
    zstandard = pytest.importorskip("zstandard", reason="needs the extra [features]")
    (folder / "cleaned_data").mkdir()
    master = "Data type,Dataset save name\nBinary Classification,cleaned_data/5_a.csv\n"
    master += "Continuous Data,cleaned_data/6_b.csv\n"
    rows = 'prompt,prompt_len,target\n"one, two\nthree",4,yes\nfour,1,no\nboth,1,no\nfour,1,no\nfive,1,yes\n'
    rows += "both,1,yes\n"
    for name, text in (("probing_datasets_MASTER.csv.zst", master), ("cleaned_data/5_a.csv.zst", rows)):
        (folder / name).write_bytes(zstandard.compress(text.encode()))
    return folder


def test_a_task_of_sae_probes_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    package(data)
    assert probe_task_names(data) == ["5_a"]
    task = read_probe_task("5_a", data)
    assert task.texts == ("one, two\nthree", "four", "five")
    assert task.labels.tolist() == [True, False, True]
    assert task.classes == ("no", "yes")
    assert str(task) == "5_a: 3 texts, 67% of them 'yes'"
    # "four" is there twice; "both" has both targets.
    assert task.left_out == 3
    assert len(read_probe_task("5_a", data, most=2).texts) == 2
    found_at = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(tasks, "find_spec", lambda name: found_at)
    assert read_probe_task("5_a").texts == task.texts


def test_bad_tasks_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zstandard, data = pytest.importorskip("zstandard", reason="needs the extra [features]"), package(tmp_path)
    with pytest.raises(InputError, match="task '6_b': expected a binary one of sae-probes, such as 5_a"):
        read_probe_task("6_b", data)
    with pytest.raises(InputError, match="most: expected at least 2 texts, got 1"):
        read_probe_task("5_a", data, most=1)
    rows = "prompt,target\none,yes\ntwo,yes\nthree,no\n"
    (data / "cleaned_data" / "5_a.csv.zst").write_bytes(zstandard.compress(rows.encode()))
    with pytest.raises(InputError, match="expected two targets, got yes; read more texts"):
        read_probe_task("5_a", data, most=2)
    (data / "cleaned_data" / "5_a.csv.zst").write_bytes(b"no table")
    with pytest.raises(InputError, match="expected a zstd-compressed table of sae-probes"):
        read_probe_task("5_a", data)
    monkeypatch.setattr(tasks, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"sae-probes is not installed; pip install --no-deps sae-probes==0.4.2"):
        read_probe_task("5_a")
