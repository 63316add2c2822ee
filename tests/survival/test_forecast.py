import sys
from dataclasses import astuple

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.remedies.remedy import active_subspace, center, untouched, whiten
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import measure_birth
from autopsae.survival.closed_form import predicted_dead
from autopsae.survival.forecast import forecast, forecast_births

D_IN, D_SAE, K, SAMPLE, MANY = 64, 2048, 16, 4096, 40_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(gamma: float, **options: float) -> torch.Tensor:
    return gaussian_tokens(MANY, D_IN, gamma, **options, generator=generator(7))  # type: ignore[arg-type]


@pytest.mark.parametrize("spectrum", [0.0, 1.5])
@pytest.mark.parametrize("gamma", [0.5, 2.0, 6.0])
def test_a_forecast_from_a_tenth_of_the_tokens_is_near_the_count_on_all(gamma: float, spectrum: float) -> None:
    x = layer(gamma, spectrum=spectrum)
    sample = x[:: MANY // SAMPLE][:SAMPLE]
    remedies = [untouched(D_IN), center(x.mean(dim=0).double(), "mean")]
    counted = measure_birth(x, remedies, d_sae=D_SAE, k=K, generator=generator())
    found = forecast_births(sample, remedies, TopK(k=K), d_sae=D_SAE, generator=generator())
    for name, birth in counted.items():
        dead, relu = found[name].dead(MANY), found[name].dead_by_relu(MANY)
        assert dead.value == pytest.approx(birth.dead, abs=0.02), name
        assert relu.value == pytest.approx(birth.dead_by_relu, abs=0.02), name
        assert dead.low <= dead.value <= dead.high


def test_on_gaussian_tokens_it_agrees_with_the_closed_form() -> None:
    x = gaussian_tokens(SAMPLE, 512, 8.0, generator=generator(7))
    found = forecast_births(x, [untouched(512)], TopK(k=64), d_sae=8192, generator=generator())["none"]
    for tokens in (100_000, 1_000_000):
        assert found.dead(tokens).value == pytest.approx(predicted_dead(8.0, tokens, d_sae=8192, k=64), abs=0.015)


@pytest.mark.parametrize(("sparsity", "threshold"), [(BatchTopK(k=K), None), (ReLU(), None), (JumpReLU(), 6.0)])
def test_any_sparsity_is_forecast(sparsity: Sparsity, threshold: float | None) -> None:
    x = layer(3.0, spectrum=1.0)
    W = draw_rows(D_SAE, D_IN, generator=generator())
    at = None if threshold is None else torch.tensor(threshold)
    found = forecast(x[:: MANY // SAMPLE][:SAMPLE], W, sparsity, threshold=at).dead(MANY)
    fired = torch.zeros(D_SAE, dtype=torch.bool)
    for rows in torch.randperm(MANY, generator=generator(1)).split(512):
        fired |= (sparsity.margins(x[rows] @ W.T, at) > 0).any(dim=0)
    assert 0.02 < float((~fired).double().mean()) < 0.98
    assert found.value == pytest.approx(float((~fired).double().mean()), abs=0.02)


def test_at_the_sample_it_is_the_count_under_every_remedy() -> None:
    sample = layer(1.0, spectrum=1.5)[:1000]
    statistics = collect(sample)
    spectrum, median = Spectrum.of(statistics.raw.covariance), geometric_median(sample.double())
    remedies = [
        untouched(D_IN),
        center(median, "median"),
        whiten(spectrum, median, alpha=0.3),
        active_subspace(spectrum, median, rank=4),
    ]
    counted = measure_birth(sample, remedies, d_sae=D_SAE, k=K, generator=generator())
    found = forecast_births(sample, remedies, TopK(k=K), d_sae=D_SAE, generator=generator())
    for name, birth in counted.items():
        assert found[name].dead(1000).value == pytest.approx(birth.dead, abs=1.5 / D_SAE)
        assert found[name].dead_by_relu(1000).value == pytest.approx(birth.dead_by_relu, abs=1.5 / D_SAE)


def test_an_encoder_bias_counts() -> None:
    x, W = layer(0.0)[:500], draw_rows(300, D_IN, generator=generator())
    b_enc = torch.zeros(300)
    b_enc[:100] = -1e6
    found = forecast(x, W, ReLU(), b_enc=b_enc)
    assert found.dead(10**6).value == pytest.approx(1 / 3)


def test_followed_latents_stand_for_all() -> None:
    x, W = layer(3.0)[:SAMPLE], draw_rows(D_SAE, D_IN, generator=generator())
    all_, some = forecast(x, W, TopK(k=K)), forecast(x, W, TopK(k=K), followed=512)
    assert (all_.followed, some.followed, some.d_sae) == (D_SAE, 512, D_SAE)
    assert some.dead(MANY).value == pytest.approx(all_.dead(MANY).value, abs=0.06)
    assert some.dead(MANY).high - some.dead(MANY).low > all_.dead(MANY).high - all_.dead(MANY).low


@pytest.mark.parametrize("sparsity", [TopK(k=4), BatchTopK(k=4)], ids=lambda s: s.name)
def test_how_many_pre_activations_are_held_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, sparsity: Sparsity
) -> None:
    x, W = layer(3.0)[:600], draw_rows(300, D_IN, generator=generator())
    whole = forecast(x, W, sparsity).dead(MANY)
    assert 0.01 < whole.value < 0.99
    monkeypatch.setattr(sys.modules["autopsae.survival.margins"], "_HELD", 300 * 7)
    assert astuple(forecast(x, W, sparsity).dead(MANY)) == pytest.approx(astuple(whole), rel=1e-6)


def test_usage_is_the_perplexity_of_the_firings() -> None:
    x, W = layer(0.0, spectrum=1.5)[:1000], draw_rows(300, D_IN, generator=generator())
    fired = (TopK(k=K).margins(x @ W.T) > 0).sum(dim=0).double().numpy()
    assert forecast(x, W, TopK(k=K)).usage == pytest.approx(np.exp(stats.entropy(fired)) / 300, rel=1e-4)
    # In one direction latents are either among the largest on every other token or on none.
    line = torch.randn(1000, 1, generator=generator(2)) * x[:1]
    assert forecast(line, W, TopK(k=K)).usage == pytest.approx(2 * K / 300, rel=0.05)


def test_dominance_is_the_share_of_the_first_principal_component() -> None:
    x, W = layer(2.0, spectrum=1.5)[:1000], draw_rows(300, D_IN, generator=generator())
    found = forecast(x, W, TopK(k=K))
    assert found.dominance == pytest.approx(PCA(1).fit(x.numpy()).explained_variance_ratio_[0], rel=1e-5)
    assert found.at(1000).dominance == found.dominance
    for unit in (1e-25, 1e25):  # squares of such tokens are outside the range of float32
        assert forecast(x * unit, W, TopK(k=K)).dominance == pytest.approx(found.dominance, rel=1e-5)
    assert forecast(x[:1].expand(50, -1), W, TopK(k=K)).dominance == 0


def test_copies_of_tokens_count_once_in_the_interval() -> None:
    x, W = layer(3.0)[:1024], draw_rows(D_SAE, D_IN, generator=generator())
    single, copied = (forecast(y, W, TopK(k=K)) for y in (x, x.repeat_interleave(8, dim=0)))
    assert single.effective_tokens == pytest.approx(1024, rel=0.15)
    assert copied.effective_tokens == pytest.approx(1024, rel=0.3)


def test_a_sample_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="at least 40 tokens, got 10"):
        forecast(layer(1.0)[:10], draw_rows(32, D_IN, generator=generator()), TopK(k=4))


def test_a_threshold_under_zero_is_refused() -> None:
    W = draw_rows(32, D_IN, generator=generator())
    with pytest.raises(InputError, match=r"thresholds of at least 0, got -0\.5"):
        forecast(layer(1.0)[:100], W, JumpReLU(), threshold=torch.tensor(-0.5))
