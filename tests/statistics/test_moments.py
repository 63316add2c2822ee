from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from autopsae.arrays import InputError
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.moments import Moments, layer_norm
from autopsae.statistics.spectrum import Spectrum, effective_rank
from tests import oracles

pytestmark = pytest.mark.quick


def skewed_tokens(tokens: int, d_in: int, gamma: float, seed: int = 0) -> NDArray[Any]:
    """Correlated, skewed tokens whose mean outweighs their spread by about gamma."""
    rng = np.random.default_rng(seed)
    spread = rng.gamma(2.0, size=(tokens, d_in)) @ (rng.normal(size=(d_in, d_in)) / d_in**0.5)
    direction = rng.normal(size=d_in)
    sigma = np.linalg.norm(spread.std(axis=0))
    return np.asarray(spread - spread.mean(axis=0) + direction / np.linalg.norm(direction) * gamma * sigma)


@pytest.mark.parametrize(
    ("d_in", "tokens", "gamma"),
    [(d_in, 5000, gamma) for d_in in (8, 64) for gamma in (0.1, 1.0, 30.0, 1000.0)]
    + [(384, 600, gamma) for gamma in (0.1, 1000.0)]
    + [pytest.param(2048, 3000, gamma, marks=pytest.mark.long) for gamma in (0.1, 1000.0)],
)
def test_moments_equal_numpy_on_the_whole_matrix(d_in: int, tokens: int, gamma: float) -> None:
    x = skewed_tokens(tokens, d_in, gamma)
    found = collect(list(torch.from_numpy(x).split(777)))
    for moments, whole in ((found.raw, x), (found.normed, oracles.layer_norm(x))):
        covariance = np.cov(whole.T, ddof=0)
        assert np.linalg.norm(moments.covariance.numpy() - covariance) < 1e-6 * np.linalg.norm(covariance)
        np.testing.assert_allclose(moments.mean.numpy(), whole.mean(axis=0), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(moments.std.numpy(), whole.std(axis=0), rtol=1e-6)
        kurtosis = stats.kurtosis(whole, axis=0)
        np.testing.assert_allclose(moments.excess_kurtosis.numpy(), kurtosis, rtol=1e-6, atol=1e-6)
        ratio = float(moments.mean.norm() / moments.std.norm())
        assert ratio == pytest.approx(oracles.gamma(whole), rel=1e-6)
        rank = effective_rank(torch.linalg.eigvalsh(moments.covariance))
        assert rank == pytest.approx(oracles.effective_rank(whole), rel=1e-6)


def test_float32_tokens_of_huge_gamma_lose_nothing_but_their_own_rounding() -> None:
    x = skewed_tokens(4000, 32, gamma=1000.0).astype(np.float32)
    covariance = np.cov(x.astype(np.float64).T, ddof=0)
    found = collect(torch.from_numpy(x)).raw.covariance.numpy()
    assert np.linalg.norm(found - covariance) < 1e-10 * np.linalg.norm(covariance)


def assert_same(a: Statistics, b: Statistics) -> None:
    for one, other in ((a.raw, b.raw), (a.normed, b.normed)):
        assert one.tokens == other.tokens
        for name in ("mean", "scatter", "third", "fourth"):
            x, y = getattr(one, name), getattr(other, name)
            assert float((x - y).norm()) <= 1e-10 * float(y.norm()), name
    assert torch.equal(a.norms.counts, b.norms.counts)
    assert a.norms.largest == b.norms.largest
    assert torch.allclose(a.norms.squares, b.norms.squares, rtol=1e-10)
    assert torch.equal(a.sample, b.sample)
    assert a.rows.repeats() == b.rows.repeats()


@pytest.mark.parametrize("gamma", [0.1, 1000.0])
@pytest.mark.parametrize("cut", [1, 700, 2999])
def test_merging_any_split_gives_the_unsplit_answer(gamma: float, cut: int) -> None:
    x = torch.from_numpy(skewed_tokens(3000, 24, gamma))
    whole = collect(x, sample_tokens=500)
    first = collect(x[:cut], sample_tokens=500)
    second = collect(x[cut:], start=cut, sample_tokens=500)
    assert_same(first.merge(second), whole)
    assert_same(second.merge(first), whole)


def test_the_answer_does_not_depend_on_the_batches() -> None:
    x = torch.from_numpy(skewed_tokens(5000, 16, gamma=50.0))
    whole = collect(x, sample_tokens=500)
    for size in (1, 37, 4096):
        assert_same(collect(list(x.split(size)), sample_tokens=500), whole)


def test_one_token_merges_as_any_other() -> None:
    x = torch.from_numpy(skewed_tokens(50, 5, gamma=3.0))
    merged = Moments.of(x[:1])
    for row in x[1:]:
        merged = merged.merge(Moments.of(row[None]))
    whole = Moments.of(x)
    assert torch.allclose(merged.scatter, whole.scatter, rtol=1e-11, atol=1e-11)
    assert torch.allclose(merged.fourth, whole.fourth, rtol=1e-11)


def test_layer_norm_equals_torch_and_maps_constant_tokens_to_zero() -> None:
    x = torch.randn(40, 9, dtype=torch.float64) * 1e-4
    expected = torch.nn.functional.layer_norm(x, (9,), eps=0.0)
    assert torch.allclose(layer_norm(x), expected, rtol=1e-10, atol=1e-10)
    constant = torch.tensor([[0.1] * 7, [0.0] * 7, [1e30] * 7], dtype=torch.float64)
    assert torch.equal(layer_norm(constant), torch.zeros_like(constant))


def test_covariance_is_exactly_symmetric_at_every_width() -> None:
    for d_in in (2, 127, 128, 129, 300):
        scatter = Moments.of(torch.randn(64, d_in, dtype=torch.float64)).scatter
        assert torch.equal(scatter, scatter.T)


def test_effective_rank_of_equal_variances_is_their_number() -> None:
    assert effective_rank(torch.tensor([3.0, 3.0, 3.0, 0.0])) == pytest.approx(3.0)
    assert effective_rank(torch.tensor([7.0, 0.0])) == pytest.approx(1.0)


def test_spectrum_rebuilds_the_covariance_from_the_largest_direction_on() -> None:
    covariance = Moments.of(torch.from_numpy(skewed_tokens(500, 12, 1.0))).covariance
    spectrum = Spectrum.of(covariance)
    V = spectrum.directions
    assert torch.allclose(V.T @ spectrum.eigenvalues.diag() @ V, covariance)
    assert torch.equal(spectrum.eigenvalues, spectrum.eigenvalues.sort(descending=True).values)


def test_statistics_of_two_widths_do_not_merge() -> None:
    a, b = collect(torch.randn(5, 3)), collect(torch.randn(5, 4))
    with pytest.raises(InputError, match="expected statistics of one width, got d_in = 3 and 4"):
        a.merge(b)


def test_one_dimension_is_refused() -> None:
    with pytest.raises(InputError, match="expected d_in of at least 2, got 1"):
        collect(torch.randn(5, 1))
