import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from autopsae.arrays import InputError
from autopsae.survival.closed_form import predicted_dead, predicted_dead_by_relu, reach

pytestmark = pytest.mark.quick

AUTHORS = Path(__file__).parents[2] / "experiments/outliers_2605_31518/authors/init_stats.csv"


def test_reach_is_the_papers_constant() -> None:
    assert [round(reach(10**n), 2) for n in (3, 4, 5, 6)] == [3.09, 3.72, 4.26, 4.75]
    assert reach(1) == reach(2) == 0.0


@pytest.mark.parametrize("gamma", [0.3, 1.0, 4.0, 51.8])
def test_closed_forms_equal_scipys_normal(gamma: float) -> None:
    C = stats.norm.isf(1 / 100_000)
    assert predicted_dead_by_relu(gamma, 100_000) == pytest.approx(stats.norm.cdf(-C / gamma), rel=1e-9)
    expected = stats.norm.cdf(stats.norm.isf(64 / 8192) - C / gamma)
    assert predicted_dead(gamma, 100_000, d_sae=8192, k=64) == pytest.approx(expected, rel=1e-9)


def test_limits_of_the_closed_forms() -> None:
    assert predicted_dead_by_relu(0.0, 1000) == predicted_dead(0.0, 1000, d_sae=100, k=5) == 0.0
    assert predicted_dead_by_relu(1e9, 1000) == pytest.approx(0.5)
    assert predicted_dead(1e9, 1000, d_sae=8192, k=64) == pytest.approx(1 - 64 / 8192)
    assert predicted_dead(3.0, 1000, d_sae=100, k=100) == 0.0


@pytest.mark.parametrize("k", [0, -1, 101])
def test_k_outside_the_dictionary_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=rf"expected 1 <= k <= d_sae = 100, got k = {k}"):
        predicted_dead(1.0, 1000, d_sae=100, k=k)


@pytest.mark.parametrize("gamma", [float("nan"), -1.0])
def test_a_gamma_that_is_no_ratio_of_norms_is_refused(gamma: float) -> None:
    for predict in (predicted_dead_by_relu, lambda g, n: predicted_dead(g, n, d_sae=100, k=5)):
        with pytest.raises(InputError, match="gamma: expected a number of at least 0"):
            predict(gamma, 1000)


@pytest.mark.parametrize("tokens", [0, -5, 10**20])
def test_numbers_of_tokens_that_nobody_has_are_refused(tokens: int) -> None:
    for predict in (predicted_dead_by_relu, lambda g, n: predicted_dead(g, n, d_sae=100, k=5)):
        with pytest.raises(InputError, match="tokens: expected a whole number from 1 to 1,000,000,000,000,000"):
            predict(2.0, tokens)


def test_authors_454_layers_give_the_figures_of_the_released_table() -> None:
    with AUTHORS.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 454
    gamma = np.array([float(row["gamma"]) for row in rows])
    by_topk = np.array([float(row["dead_pct_init_topk"]) for row in rows])
    by_relu = np.array([float(row["dead_pct_init_relu"]) for row in rows])
    predicted_topk = np.array([100 * predicted_dead(g, 100_000, d_sae=8192, k=64) for g in gamma])
    predicted_relu = np.array([100 * predicted_dead_by_relu(g, 100_000) for g in gamma])
    assert stats.spearmanr(gamma, by_topk).statistic == pytest.approx(0.914, abs=5e-4)
    assert stats.spearmanr(gamma, by_relu).statistic == pytest.approx(0.830, abs=5e-4)
    assert np.abs(predicted_topk - by_topk).mean() == pytest.approx(8.2, abs=0.05)
    assert np.abs(predicted_relu - by_relu).mean() == pytest.approx(1.2, abs=0.05)
    between = (gamma >= 1) & (gamma < 2)
    assert predicted_topk[between].mean() == pytest.approx(32.7, abs=0.05)
    assert by_topk[between].mean() == pytest.approx(41.4, abs=0.05)
