"""Both sides of every threshold, and what each finding says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from autopsae.diagnosis.findings import findings
from autopsae.diagnosis.measured import Measured
from autopsae.diagnosis.outliers import OutlierDimension
from autopsae.diagnosis.prescription import Prescription
from autopsae.diagnosis.severity import Severity, severity
from autopsae.remedies.remedy import Remedy, center, untouched, whiten
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.repeats import Repeats
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import Birth
from autopsae.survival.closed_form import Prediction
from autopsae.survival.outlook import Expected, Outlook
from autopsae.survival.recovery import Recovery
from tests import oracles

CALM = Severity(
    gamma=0.5,
    gamma_interval=(0.4, 0.6),
    gamma_raw=0.5,
    gamma_raw_interval=(0.4, 0.6),
    effective_rank=50.0,
    effective_rank_interval=(45.0, 55.0),
    effective_rank_fraction=0.5,
    effective_rank_fraction_interval=(0.45, 0.55),
    effective_rank_raw=50.0,
    kurtosis=0.0,
    mean_norm=1.0,
    median_norm=1.0,
    mean_median_distance=0.0,
    mean_median_angle=33.0,
    token_norm_median=1.0,
    token_norm_p99=2.0,
    token_norm_max=3.0,
    gamma_typical=0.5,
    stray_tokens=0.02,
    stray_square=0.0,
)
N = 100_000
ALIVE = Birth(dead=0.0, dead_by_relu=0.0, dead_by_topk=0.0, tokens=N)


NONE = untouched(100)
MEDIAN = center(torch.ones(100), "median")
WHITEN = whiten(Spectrum.of(torch.diag(torch.arange(1.0, 101.0))), torch.ones(100), alpha=0.3)


def measured(
    severity: Severity = CALM,
    *,
    remedy: Remedy = MEDIAN,
    expected: float = 0.0,
    predicted: Prediction | None = None,
    forecast: float | None = None,
    tokens: int = N,
    repeats: Repeats | None = None,
    effective: float = 4000.0,
    dominance: float = 0.1,
    revival: Recovery | None = None,
    k: int = 10,
    outliers: tuple[OutlierDimension, ...] = (),
    **dead: float,
) -> Measured:
    """A layer on which all but the `dead` by remedy are alive; the closed form agrees with the forecast."""
    births = dict.fromkeys(("none", "mean", "median", "zscore", "whiten", "whiten_0.3"), ALIVE)
    births |= {
        name: Birth(dead=value, dead_by_relu=value / 4, dead_by_topk=value * 3 / 4, tokens=tokens)
        for name, value in dead.items()
    }
    outlook = Outlook(
        tokens=10**6,
        dead=Expected(0.0, 0.0, 0.0),
        dead_by_relu=Expected(0.0, 0.0, 0.0),
        usage=1.0,
        dominance=dominance,
        effective_tokens=effective,
    )
    return Measured(
        tokens=tokens,
        severity=severity,
        outlier_dimensions=outliers,
        repeats=repeats or Repeats(tokens, tokens, tokens, 0, 1 / tokens),
        birth=births,
        expected={
            "none": replace(outlook, dead=Expected(expected, expected / 2, expected)),
            "median": outlook,
            "whiten_0.3": outlook,
        },
        predicted=predicted or Prediction(dead_by_relu=births["none"].dead_by_relu, dead=births["none"].dead),
        forecast=births["none"].dead if forecast is None else forecast,
        recovery=revival,
        travel=30.0,
        prescription=Prescription(remedy=remedy, reason="", layer="hs1", d_sae=1000, sparsity=TopK(k=k)),
        acceptable=0.01,
        documents_assumed=False,
    )


def found_outliers(severity: Severity, *shares: float) -> dict[str, str]:
    named = tuple(
        OutlierDimension(index=7 * place, mean=-9.0, std=0.5, share=share) for place, share in enumerate(shares)
    )
    return found(severity, outliers=named)


def found(*arguments: Any, **options: Any) -> dict[str, str]:
    return {finding.name: str(finding) for finding in findings(measured(*arguments, **options))}


def test_a_calm_layer_has_no_findings() -> None:
    assert found() == {}


@pytest.mark.parametrize(("gamma", "said"), [(1.0, False), (1.001, True)])
def test_gamma_over_one_is_a_finding(gamma: float, said: bool) -> None:
    text = found(replace(CALM, gamma=gamma), none=0.4, expected=0.2)
    assert ("gamma" in text) == said
    assert ("dead at birth" in text) != said
    if said:
        assert text["gamma"] == (
            "gamma 1.001 (over 1, n = 100,000 tokens): the mean outweighs the spread: 40.0% of 1,000 latents are "
            "born dead, counted on 100,000 tokens, and 20.0% are expected to be on 1,000,000; center by the median "
            "(0.0% dead as counted, 0.0% as expected)"
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
        quiet = found(replace(CALM, mean_median_distance=distance), remedy=NONE, mean=mean, median=0.05)
        assert quiet["mean-median distance"].endswith(f"leaves {mean:.1%} dead")


@pytest.mark.parametrize(("share", "said"), [(0.5, False), (0.51, True)])
def test_stray_tokens_that_hold_half_the_square_are_a_finding(share: float, said: bool) -> None:
    text = found(replace(CALM, stray_square=share))
    assert (list(text) == ["stray tokens' share of the squared norm"]) == said
    assert not said or "2.00% of the tokens" in next(iter(text.values()))


@pytest.mark.parametrize(("fraction", "said"), [(0.1, False), (0.099, True)])
@pytest.mark.parametrize("remedy", [NONE, MEDIAN, WHITEN], ids=lambda remedy: remedy.name)
def test_low_rank_is_a_finding_that_advises_no_more_than_the_verdict(
    fraction: float, said: bool, remedy: Remedy
) -> None:
    text = found(replace(CALM, effective_rank_fraction=fraction), remedy=remedy, median=0.03, whiten=0.002)
    assert (list(text) == ["effective rank / d_in"]) == said
    if said:
        advice = text["effective rank / d_in"].rpartition("; ")[2]
        assert "after centering 3.0% are counted dead" in text["effective rank / d_in"]
        assert advice.startswith(remedy.instruction if remedy is WHITEN else "watch the dead fraction in training")


@pytest.mark.parametrize(("said_by_form", "far"), [(0.499, False), (0.501, True), (0.301, False), (0.299, True)])
def test_a_closed_form_over_ten_points_from_the_forecast_is_a_finding(said_by_form: float, far: bool) -> None:
    text = found(replace(CALM, gamma=2.0), predicted=Prediction(dead_by_relu=0.0, dead=said_by_form), forecast=0.4)
    name = "distance of the closed form from the forecast"
    assert (name in text) == far
    assert (
        not far or f"says that {said_by_form:.1%} are dead on 100,000 tokens, but 40.0% are forecast" in text[name]
    )


def test_death_on_the_count_alone_is_no_reason_to_change_anything() -> None:
    text = found(remedy=NONE, none=0.028, expected=0.004)
    assert list(text) == ["silent so far"]
    assert (
        "2.8% of 1,000 latents are born dead, counted on 100,000 tokens, and 0.4% are expected to be on 1,000,000"
        in (text["silent so far"])
    )
    assert all(f.advice == "" for f in findings(measured(remedy=NONE, none=0.028, expected=0.004)))
    assert "dead at birth" in found(remedy=MEDIAN, none=0.028, expected=0.02)


def why(severity: Severity = CALM, **options: Any) -> str:
    return found(severity, none=0.4, **options)["dead at birth"]


def test_the_reason_for_death_is_the_first_that_holds() -> None:
    strayed = replace(CALM, gamma_raw=2.0, stray_square=0.99, stray_tokens=0.008)
    strays = "0.80% of the tokens hold 99.0% of the squared norm"
    outweighs = "among the other tokens, one of each, the mean outweighs the spread 5 times"
    padding = Repeats(N, 60_000, 60_000, 40_000, 0.4)
    few = "100 different tokens with 10 places each are too few for 1,000 latents"
    assert few in why(strayed, tokens=100, k=10)
    assert f"{strays}, and {outweighs}" in why(replace(strayed, gamma_typical=5.0))
    assert f"{strays}, and own the spread" in why(strayed)
    assert "outweighs the spread 2 times, but LayerNorm hides it from gamma; without it 20.0% are" in why(
        replace(CALM, gamma_raw=2.0, gamma_typical=5.0), repeats=padding, median=0.2
    )
    assert f"40% of the tokens are one vector, and {outweighs}" in why(
        replace(CALM, gamma_typical=5.0), repeats=padding
    )
    assert "a mean of 0.50 times the spread is enough on so few tokens; without it 0.0% are" in why()
    stays: dict[str, Any] = {"median": 0.201, "whiten": 0.2}
    assert "differ in spread: one holds 70% of the variance; if they did not, 20.0%" in why(dominance=0.7, **stays)
    assert "differ in spread: as if 50 of 100 carried it; if they did not" in why(**stays)
    assert "neither strays nor the mean nor the spread explains it" in why(median=0.201, whiten=0.201)


@pytest.mark.parametrize(("share", "said"), [(0.2, False), (0.201, True)])
@pytest.mark.parametrize("zero", [True, False])
def test_a_vector_that_is_over_a_fifth_of_the_tokens_is_a_finding(share: float, said: bool, zero: bool) -> None:
    repeats = Repeats(N, 70_000, 70_000, round(share * N) if zero else 0, share)
    text = found(repeats=repeats)
    assert ("share of one repeated token" in text) == said
    assert ("zero tokens" in text) == (zero and not said)
    if said:
        start = "20% of the tokens are one and the same vector" + (" (all zero)" if zero else "")
        shown = text["share of one repeated token"]
        assert f"{start}: padding, or a BOS in every sequence?" in shown
        assert "rest on 70,000 distinct vectors; mask them at harvest, or keep one of each with --repeated" in shown


@pytest.mark.parametrize("zero_rows", [0, 1, 100])
def test_any_zero_token_is_a_finding(zero_rows: int) -> None:
    text = found(repeats=Repeats(N, N - zero_rows + 1, N - zero_rows + 1, zero_rows, max(1, zero_rows) / N))
    assert list(text) == ["zero tokens"] * (zero_rows > 0)
    assert (
        not zero_rows
        or f"{zero_rows:,} of 100,000 tokens ({zero_rows / N:.2%}) are all zero" in text["zero tokens"]
    )


@pytest.mark.parametrize(("distinct", "few"), [(50_000, False), (49_999, True), (2_000, True)])
def test_few_distinct_vectors_are_stated_without_advice_and_are_the_sample_size(distinct: int, few: bool) -> None:
    layer = measured(repeats=Repeats(N, distinct, distinct, 0, 0.05))
    assert layer.sample_size == (distinct if few else N)
    listed = {finding.name: finding for finding in findings(layer)}
    assert list(listed) == ["distinct tokens"] * few
    if few:
        assert (listed["distinct tokens"].advice, listed["distinct tokens"].tokens) == ("", distinct)
        assert f"the 100,000 tokens are {distinct:,} distinct vectors" in str(listed["distinct tokens"])


def test_few_distinct_vectors_are_few_tokens() -> None:
    text = found(repeats=Repeats(N, 999, 999, 0, 0.05))
    assert list(text) == ["distinct tokens", "tokens per dimension"]
    assert "n = 999 tokens" in text["tokens per dimension"]


def test_an_estimated_number_of_distinct_vectors_is_said_to_be_one() -> None:
    assert (
        "are about 300,000 distinct vectors"
        in (found(tokens=10**6, repeats=Repeats(10**6, None, 300_000, 0, 0.05))["distinct tokens"])
    )


def test_copies_left_out_are_said_and_nothing_else_is_of_them() -> None:
    text = found(tokens=67_000, repeats=Repeats(N, 67_000, 67_000, 33_001, 0.33001))
    assert list(text) == ["copies left out"]
    assert "of 100,000 tokens one of each of 67,000 distinct vectors was kept" in text["copies left out"]


@pytest.mark.parametrize(
    ("kurtosis", "predicted", "said"),
    [(0.5, 0.3, False), (0.51, 0.3, True), (0.51, 0.11, False), (0.51, 0.112, True), (None, 0.3, False)],
)
def test_heavy_tails_that_mislead_the_formula_are_a_finding(
    kurtosis: float | None, predicted: float, said: bool
) -> None:
    form = Prediction(dead_by_relu=predicted, dead=0.4)
    text = found(replace(CALM, gamma=2.0, kurtosis=kurtosis), predicted=form, none=0.4)  # 10 % by ReLU
    assert ("excess kurtosis" in text) == said
    assert not said or f"predicts {predicted:.1%} dead-by-ReLU, but 10.0% are counted" in text["excess kurtosis"]


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
        "gamma_typical": oracles.gamma(plain[~stray]),
        "stray_tokens": stray.mean(),
        "stray_square": (norms[stray] ** 2).sum() / (norms**2).sum(),
    }
    for name, value in exact.items():
        # The median distance is that of a sample, here of all tokens; torch takes the lower of two middle values.
        tolerance = 1e-3 if name == "mean_median_distance" else 1e-6
        assert getattr(measured, name) == pytest.approx(value, rel=tolerance), name
    assert measured.token_norm_median == pytest.approx(np.median(norms), rel=4e-3)
    assert measured.token_norm_p99 == pytest.approx(np.quantile(norms, 0.99), rel=1e-2)


STUCK = Recovery(
    lr=3e-4,
    steps=1000,
    travel=0.3,
    distance=24.0,
    captured=0.01,
    captured_at_most=0.02,
    born=0.25,
    at_least=0.1,
    unrecovered=0.24,
    collateral=0.03,
)


def test_those_that_training_will_not_revive_are_a_finding() -> None:
    text = found(none=0.4, revival=STUCK)["dead-by-ReLU after training"]
    assert text.endswith("start b_dec at the geometric median instead of waiting for it")
    assert found(none=0.4, revival=STUCK, remedy=NONE)["dead-by-ReLU after training"].endswith("learn the mean")
    assert (
        "25.0% are expected to be born dead-by-ReLU, and 1,000 steps at lr 0.0003 move b_dec by at most 0.3" in text
    )
    assert "10.0% cannot recover, 24.0% are not expected to recover, and 3.0% more" in text
    for collateral, said in ((0.0, False), (0.001, True)):
        revival = replace(STUCK, unrecovered=0.01, collateral=collateral)
        assert ("dead-by-ReLU after training" in found(none=0.4, revival=revival)) == said


def test_outlier_dimensions_are_found_where_few_hold_most_of_a_mean_that_outweighs_the_spread() -> None:
    severe = replace(CALM, gamma=1.1)
    said = found_outliers(severe, 0.3, 0.21)["outlier dimensions"]
    assert (
        "2 of 100 dimensions hold 51% of ||mu||^2, where the typical size is 1: 0 (-9 +- 0.5), 7 (-9 +- 0.5)"
        in said
    )
    assert "outlier dimensions" not in found_outliers(severe, 0.3, 0.2)
    assert "outlier dimensions" not in found_outliers(replace(CALM, gamma=1.0), 0.9)
    assert "28 (" not in (many := found_outliers(severe, *[0.15] * 6)["outlier dimensions"])
    assert "and 2 more" in many
