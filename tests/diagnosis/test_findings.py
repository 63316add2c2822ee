"""Both sides of every threshold, and what each finding says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from autopsae.diagnosis.findings import findings
from autopsae.diagnosis.prescribe import Prescription
from autopsae.diagnosis.severity import Severity, severity
from autopsae.remedies.affine import Affine
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.survival.birth import Birth
from autopsae.survival.revival import Revival
from tests import oracles

CALM = Severity(
    gamma=0.5,
    gamma_raw=0.5,
    effective_rank=50.0,
    effective_rank_fraction=0.5,
    effective_rank_raw=50.0,
    kurtosis=0.0,
    mean_norm=1.0,
    median_norm=1.0,
    mean_median_distance=0.0,
    mean_median_angle=33.0,
    token_norm_median=1.0,
    token_norm_p99=2.0,
    token_norm_max=3.0,
    stray_tokens=0.02,
    stray_square=0.0,
)
ALIVE = Birth(dead=0.0, relu=0.0, topk=0.0)


def found(
    severity: Severity = CALM,
    *,
    predicted: float = 0.0,
    tokens: int = 100_000,
    effective: float = 4000.0,
    revival: Revival | None = None,
    **dead: float,
) -> dict[str, str]:
    births = dict.fromkeys(("none", "mean", "median", "zscore", "whiten"), ALIVE)
    births |= {name: Birth(dead=value, relu=value / 4, topk=value * 3 / 4) for name, value in dead.items()}
    prescription = Prescription(
        remedy="median",
        advice="center by the median",
        reason="",
        layer="hs1",
        d_sae=1000,
        k=10,
        affine=Affine.identity(100),
    )
    listed = findings(
        severity,
        births,
        prescription,
        predicted,
        tokens=tokens,
        effective_tokens=effective,
        revival=revival,
        acceptable=0.01,
    )
    return {finding.name: str(finding) for finding in listed}


def test_a_calm_layer_has_no_findings() -> None:
    assert found() == {}


@pytest.mark.parametrize(("gamma", "said"), [(1.0, False), (1.001, True)])
def test_gamma_over_one_is_a_finding(gamma: float, said: bool) -> None:
    text = found(replace(CALM, gamma=gamma), none=0.4)
    assert ("gamma" in text) == said
    assert ("dead at birth" in text) != said
    if said:
        assert text["gamma"] == (
            "gamma 1 (over 1, n = 100,000 tokens): the mean outweighs the spread: 40.0% of 1,000 latents would be "
            "born dead; center by the median (0.0%)"
        )


@pytest.mark.parametrize(("dead", "said"), [(0.01, False), (0.011, True)])
def test_death_that_gamma_does_not_explain_is_a_finding(dead: float, said: bool) -> None:
    assert ("dead at birth" in found(none=dead)) == said


def test_a_mean_that_layer_norm_hides_is_named() -> None:
    text = found(replace(CALM, gamma=0.01, gamma_raw=5.0), none=0.4)["dead at birth"]
    assert "the mean outweighs the spread 5 times, but LayerNorm hides it from gamma" in text
    assert "LayerNorm" not in found(none=0.4)["dead at birth"]


@pytest.mark.parametrize(
    ("distance", "mean", "said"), [(0.5, 0.3, False), (0.51, 0.3, True), (0.51, 0.06, False), (0.51, 0.062, True)]
)
def test_a_dragged_mean_that_costs_latents_is_a_finding(distance: float, mean: float, said: bool) -> None:
    text = found(replace(CALM, mean_median_distance=distance), mean=mean, median=0.05)
    assert ("mean-median distance" in text) == said
    if said:
        assert "33 degrees off" in text["mean-median distance"]
        assert f"leaves {mean:.1%} dead; never center by the mean here" in text["mean-median distance"]


@pytest.mark.parametrize(("share", "said"), [(0.5, False), (0.51, True)])
def test_stray_tokens_that_hold_half_the_square_are_a_finding(share: float, said: bool) -> None:
    text = found(replace(CALM, stray_square=share))
    assert (list(text) == ["stray tokens' share of the squared norm"]) == said
    assert not said or "2.00% of the tokens" in next(iter(text.values()))


@pytest.mark.parametrize(("fraction", "said"), [(0.1, False), (0.099, True)])
def test_low_rank_is_a_finding(fraction: float, said: bool) -> None:
    text = found(replace(CALM, effective_rank_fraction=fraction), median=0.03, whiten=0.002)
    assert (list(text) == ["effective rank / d_in"]) == said
    assert not said or "centering leaves 3.0% dead at birth" in text["effective rank / d_in"]


@pytest.mark.parametrize(
    ("kurtosis", "predicted", "said"),
    [(0.5, 0.3, False), (0.51, 0.3, True), (0.51, 0.11, False), (0.51, 0.112, True), (None, 0.3, False)],
)
def test_heavy_tails_that_mislead_the_formula_are_a_finding(
    kurtosis: float | None, predicted: float, said: bool
) -> None:
    text = found(replace(CALM, gamma=2.0, kurtosis=kurtosis), predicted=predicted, none=0.4)  # 10 % by ReLU
    assert ("excess kurtosis" in text) == said
    assert not said or f"predicts {predicted:.1%} dead-by-ReLU, where 10.0% are" in text["excess kurtosis"]


@pytest.mark.parametrize(("tokens", "said"), [(1000, False), (999, True)])
def test_few_tokens_for_the_width_are_a_finding(tokens: int, said: bool) -> None:
    text = found(tokens=tokens)
    assert (list(text) == ["tokens per dimension"]) == said
    assert not said or "use at least 1,000 tokens" in text["tokens per dimension"]


@pytest.mark.parametrize(("effective", "said"), [(500.0, False), (499.0, True)])
def test_a_sample_of_few_documents_is_a_finding(effective: float, said: bool) -> None:
    text = found(effective=effective)
    assert (list(text) == ["effective tokens"]) == said
    assert not said or "the sample is worth 499 independent tokens" in text["effective tokens"]
    # A sample of few tokens is another matter.
    assert "effective tokens" not in found(effective=effective, tokens=499)


def test_every_value_of_the_severity_equals_the_plain_way() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 20, generator=generator).exp() + torch.randn(20, generator=generator)
    x[::200] *= 30
    statistics = collect(x)
    median = geometric_median(x)
    measured = severity(statistics, median)
    plain, middle = x.double().numpy(), median.numpy()
    normed, mean = oracles.layer_norm(plain), plain.mean(axis=0)
    norms = np.linalg.norm(plain, axis=1)
    stray = norms > 10 * np.median(norms)
    assert 0 < stray.mean() < 0.01
    cosine = mean @ middle / np.linalg.norm(mean) / np.linalg.norm(middle)
    exact = {
        "gamma": oracles.gamma(normed),
        "gamma_raw": oracles.gamma(plain),
        "effective_rank": oracles.effective_rank(normed),
        "effective_rank_fraction": oracles.effective_rank(normed) / 20,
        "effective_rank_raw": oracles.effective_rank(plain),
        "kurtosis": stats.kurtosis(normed, axis=0).mean(),
        "mean_norm": np.linalg.norm(mean),
        "median_norm": np.linalg.norm(middle),
        "mean_median_distance": np.linalg.norm(mean - middle) / np.median(np.linalg.norm(plain - middle, axis=1)),
        "mean_median_angle": np.degrees(np.arccos(cosine)),
        "token_norm_max": norms.max(),
        "stray_tokens": stray.mean(),
        "stray_square": (norms[stray] ** 2).sum() / (norms**2).sum(),
    }
    for name, value in exact.items():
        # The median distance is that of a sample, here of all tokens; torch takes the lower of two middle values.
        tolerance = 1e-3 if name == "mean_median_distance" else 1e-6
        assert getattr(measured, name) == pytest.approx(value, rel=tolerance), name
    assert measured.token_norm_median == pytest.approx(np.median(norms), rel=4e-3)
    assert measured.token_norm_p99 == pytest.approx(np.quantile(norms, 0.99), rel=1e-2)


STUCK = Revival(
    lr=3e-4,
    steps=1000,
    travel=0.3,
    distance=24.0,
    captured=0.01,
    captured_at_most=0.02,
    born=0.25,
    at_least=0.1,
    unrevived=0.24,
    collateral=0.03,
)


def test_those_that_training_will_not_revive_are_a_finding() -> None:
    text = found(none=0.4, revival=STUCK)["dead-by-ReLU after training"]
    assert "25.0% are born dead-by-ReLU, and 1,000 steps at lr 0.0003 move b_dec by at most 0.3" in text
    assert "10.0% are out of its reach, 24.0% are not expected to be, and 3.0% more" in text
    for collateral, said in ((0.0, False), (0.001, True)):
        revival = replace(STUCK, unrevived=0.01, collateral=collateral)
        assert ("dead-by-ReLU after training" in found(none=0.4, revival=revival)) == said
