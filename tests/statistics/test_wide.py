"""Wide layers: correlations from a sample, all else from all tokens."""

from math import log

import pytest
import torch
from torch import Tensor

from autopsae.diagnosis.severity import severity
from autopsae.statistics import wide
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import Moments
from autopsae.statistics.sample import Reservoir

D_IN = 96
SPECTRA = {
    "full": torch.ones(D_IN),
    "power law": torch.arange(1, D_IN + 1) ** -1.0,
    "one direction": torch.tensor([3.0 * D_IN] + [1.0] * (D_IN - 1)),
    "low": torch.tensor([1.0] * 6 + [1e-4] * (D_IN - 6)),
}
"""Variances of the principal directions."""


def tokens_of(spectrum: Tensor, tokens: int = 6000) -> Tensor:
    """Tokens with these principal variances, turned, and with a mean in a few dimensions."""
    generator = torch.Generator().manual_seed(7)
    turned = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=generator))[0]
    mean = torch.zeros(D_IN)
    mean[:3] = 4.0 * spectrum.sum().sqrt() / 3
    x: Tensor = (torch.randn(tokens, D_IN, generator=generator) * spectrum.sqrt()) @ turned + mean
    return x


def rank(statistics: Statistics) -> float:
    return severity(statistics, geometric_median(statistics.sample)).effective_rank


def test_a_layer_is_wide_over_the_width_and_not_at_it() -> None:
    x = tokens_of(SPECTRA["full"])
    narrow, at, over = (collect(x, sample_tokens=100, wide=width) for width in (None, D_IN, D_IN - 1))
    assert torch.equal(at.raw.scatter, narrow.raw.scatter)
    assert narrow.covariance_tokens == at.covariance_tokens == 6000
    assert over.covariance_tokens == wide.PER_DIMENSION * D_IN


def test_only_correlations_are_from_a_sample() -> None:
    x = tokens_of(SPECTRA["power law"])
    whole, sampled = collect(x, sample_tokens=100), collect(x, sample_tokens=100, wide=8)
    for name in ("raw", "normed"):
        ours, theirs = getattr(sampled, name), getattr(whole, name)
        for part in ("mean", "std", "third", "fourth", "excess_kurtosis"):
            torch.testing.assert_close(getattr(ours, part), getattr(theirs, part), rtol=1e-9, atol=1e-9)
        assert ours.tokens == theirs.tokens == 6000
        assert float(torch.linalg.eigvalsh(ours.covariance)[0]) >= -1e-9
    assert torch.equal(sampled.sample, whole.sample)
    assert not torch.allclose(sampled.raw.covariance, whole.raw.covariance, rtol=1e-3)


def test_correlations_are_those_of_the_tokens_that_the_sample_has() -> None:
    x = tokens_of(SPECTRA["low"]).double()
    sampled = collect(x, sample_tokens=100, wide=8)
    drawn = Reservoir(wide.PER_DIMENSION * D_IN)
    drawn.add(x, 0)
    expected = torch.corrcoef(drawn.tokens().T)
    std = x.std(dim=0, correction=0)
    torch.testing.assert_close(sampled.raw.covariance, expected * std * std[:, None], rtol=1e-9, atol=1e-9)


def test_a_dimension_that_is_constant_in_the_sample_keeps_its_variance_and_no_correlation() -> None:
    x = tokens_of(SPECTRA["full"]).double()
    sample = x[:300].clone()
    sample[:, 5] = 2.0
    moments = wide.with_correlations(Moments.of(x).marginals, Moments.of(sample))
    assert float(moments.covariance[5, 5]) == pytest.approx(float(x[:, 5].var(correction=0)))
    assert float(moments.covariance[5, :5].abs().max()) == 0.0


def test_as_few_tokens_as_the_sample_holds_give_the_covariance_of_all() -> None:
    x = tokens_of(SPECTRA["power law"], tokens=2 * D_IN)
    whole, sampled = collect(x, sample_tokens=100), collect(x, sample_tokens=100, wide=8)
    torch.testing.assert_close(sampled.raw.covariance, whole.raw.covariance, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sampled.normed.covariance, whole.normed.covariance, rtol=1e-4, atol=1e-6)
    assert rank(sampled) == pytest.approx(rank(whole), rel=1e-5)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_rank_is_that_of_all_tokens_and_does_not_change_when_the_sample_doubles(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = tokens_of(SPECTRA[name])
    whole, once = rank(collect(x, sample_tokens=100)), rank(collect(x, sample_tokens=100, wide=8))
    monkeypatch.setattr(wide, "PER_DIMENSION", 8)
    twice = rank(collect(x, sample_tokens=100, wide=8))
    # One direction that holds 75 % of the variance: its own error is sqrt(2 / 384) = 7 %, the smaller the wider.
    noise = 0.2 if name == "one direction" else 0.1
    assert once == pytest.approx(whole, rel=noise)
    assert twice == pytest.approx(whole, rel=noise / 2)


def test_the_rank_of_white_tokens_is_an_eighth_too_low_unless_its_bias_is_taken_off() -> None:
    # Page's law: the entropy of the eigenvalues of n white tokens is too low by d / (2 n) = 1 / 8 for n = 4 d.
    sampled = collect(
        torch.randn(6000, D_IN, generator=torch.Generator().manual_seed(1)), sample_tokens=100, wide=8
    )
    p = torch.linalg.eigvalsh(sampled.normed.covariance).clamp_min(0)
    p = p / p.sum()
    assert log(D_IN) - float(torch.special.entr(p).sum()) == pytest.approx(0.125, abs=0.03)
    assert rank(sampled) > 0.95 * D_IN


def test_blocks_and_merged_parts_do_not_change_what_is_from_all_tokens() -> None:
    x = tokens_of(SPECTRA["power law"])
    once, blocks = collect(x, sample_tokens=100, wide=8), collect(list(x.split(77)), sample_tokens=100, wide=8)
    torch.testing.assert_close(once.raw.covariance, blocks.raw.covariance, rtol=1e-9, atol=1e-9)
    merged = collect(x[:2500], sample_tokens=100, wide=8).merge(
        collect(x[2500:], start=2500, sample_tokens=100, wide=8)
    )
    torch.testing.assert_close(merged.raw.std, once.raw.std, rtol=1e-9, atol=1e-9)
    assert merged.covariance_tokens == 2 * wide.PER_DIMENSION * D_IN
    assert torch.equal(merged.sample, once.sample)


def test_the_interval_of_the_rank_holds_the_rank_of_all_tokens() -> None:
    for spectrum in SPECTRA.values():
        x = tokens_of(spectrum)
        whole, sampled = collect(x, sample_tokens=100), collect(x, sample_tokens=100, wide=8)
        found = severity(sampled, geometric_median(sampled.sample))
        low, high = found.effective_rank_interval
        assert low <= found.effective_rank <= high
        assert low <= rank(whole) <= high
