"""Statistics of float32 tokens against float64 products of the whole matrix, on layers that are hard on float32."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from autopsae.diagnosis.severity import gamma
from autopsae.remedies.remedy import whiten
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import Moments, layer_norm, normalize
from autopsae.statistics.spectrum import Spectrum, effective_rank
from tests import oracles
from tests.ways import without_numba

TOKENS, D_IN = 5000, 48


@pytest.fixture(params=["compiled", "PyTorch"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes over rows by both of their ways: Numba's loops, and PyTorch's operators."""
    if request.param == "PyTorch":
        without_numba(monkeypatch)
    else:
        pytest.importorskip("numba")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def ordinary() -> Tensor:
    return drawn(TOKENS, D_IN) @ drawn(D_IN, D_IN, seed=1) + 3 * drawn(D_IN, seed=2)


def with_huge_mean() -> Tensor:
    return ordinary() + 7e4 * drawn(D_IN, seed=3)  # the spread of a dimension is about 7


def with_an_outlier_dimension() -> Tensor:
    x = ordinary()
    x[:, 7] *= 1e4
    return x


def with_a_huge_constant_dimension() -> Tensor:
    x = ordinary()
    x[:, 7] = 1e4
    return x


def with_stray_tokens() -> Tensor:
    x = ordinary()
    x[::100] *= 1e4
    return x


def sorted_by_a_drift() -> Tensor:
    drift: Tensor = torch.linspace(0, 1e4, TOKENS, dtype=torch.float64)[:, None]
    return ordinary() + drift * drawn(D_IN, seed=3)


def fewer_than_dimensions() -> Tensor:
    return ordinary()[: D_IN // 2]


LAYERS = [
    ordinary,
    with_huge_mean,
    with_an_outlier_dimension,
    with_a_huge_constant_dimension,
    with_stray_tokens,
    sorted_by_a_drift,
    fewer_than_dimensions,
]
TYPES = [torch.float32, torch.bfloat16, torch.float64]


def rank_of(moments: Moments) -> float:
    return effective_rank(torch.linalg.eigvalsh(moments.covariance))


def assert_close_to(found: Moments, whole: Tensor, tolerance: float) -> None:
    """Mean, covariance, third and fourth moments, each in units of the dimensions' spreads."""
    x = whole.numpy()
    away = x - x.mean(axis=0)
    std = away.std(axis=0)
    units = np.where(std > 1e-13 * abs(x).max(), std, np.inf)
    # A mean in float64 is right to the rounding of its own size.
    assert (abs(found.mean.numpy() - x.mean(axis=0)) <= tolerance * std + 4e-15 * abs(x).max()).all()
    difference = (found.covariance.numpy() - away.T @ away / len(x)) / np.outer(units, units)
    assert abs(difference).max() < tolerance
    for power, sums in ((3, found.third), (4, found.fourth)):
        difference = (sums.numpy() - (away**power).sum(axis=0)) / (abs(away) ** power).sum(axis=0).clip(1e-300)
        assert (abs(difference) / np.where(units < np.inf, 1, np.inf)).max() < 1e-7


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_raw_moments_are_those_of_float64_products(layer: Callable[[], Tensor], dtype: torch.dtype) -> None:
    x = layer().to(dtype)
    assert_close_to(collect(x).raw, x.double(), 1e-10)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_moments_after_layer_norm_are_right_to_float32_and_of_float64_tokens_to_float64(
    layer: Callable[[], Tensor], dtype: torch.dtype
) -> None:
    x = layer().to(dtype)
    found, whole = collect(x).normed, layer_norm(x.double())
    assert_close_to(found, whole, 1e-10 if dtype == torch.float64 else 1e-6)
    assert gamma(found) == pytest.approx(oracles.gamma(whole.numpy()), rel=1e-7)
    assert rank_of(found) == pytest.approx(oracles.effective_rank(whole.numpy()), rel=1e-6)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])  # 1e-18 and 1e18
def test_the_scale_of_float32_tokens_changes_nothing(scale: float) -> None:
    x = ordinary().float()
    one, other = collect(x), collect(x * scale)
    assert torch.allclose(other.raw.scatter, one.raw.scatter * scale**2, rtol=1e-12)
    assert torch.allclose(other.normed.scatter, one.normed.scatter, rtol=1e-6)
    assert gamma(other.normed) == pytest.approx(gamma(one.normed), rel=1e-9)
    median = geometric_median(x, sample=one.sample)
    scaled = geometric_median(x * scale, sample=other.sample)
    assert torch.allclose(scaled / scale, median, rtol=1e-9)


def test_a_layer_of_one_token_has_no_spread_in_float32() -> None:
    x = (drawn(1, D_IN) * 1e4).float().expand(3000, D_IN)
    found = collect(x)
    assert float(found.raw.std.norm()) < 1e-12 * float(found.raw.mean.norm())
    assert float(found.normed.std.norm()) < 1e-12 * float(found.normed.mean.norm())


def test_tokens_whose_dimensions_are_all_equal_become_zero() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([[0.1] * 7, [0.0] * 7, [1e30] * 7, [1, 2, 3, 4, 5, 6, 7.0]], dtype=dtype)
        found = normalize(x, torch.empty(x.shape, dtype=torch.float64))
        assert torch.equal(found[:3], torch.zeros_like(found[:3]))
        assert torch.allclose(found, layer_norm(x.double()), rtol=1e-14)


@pytest.mark.parametrize(("noise", "tolerance"), [(1e-2, 1e-6), (1e-3, 1e-6), (1e-5, 2e-6)])
def test_effective_rank_is_right_where_a_few_directions_carry_all(noise: float, tolerance: float) -> None:
    x = (drawn(TOKENS, 5) @ drawn(5, D_IN, seed=1) + noise * drawn(TOKENS, D_IN, seed=2)).float()
    expected = oracles.effective_rank(layer_norm(x.double()).numpy())
    assert rank_of(collect(x).normed) == pytest.approx(expected, rel=tolerance)


def test_effective_rank_is_right_to_1e_minus_4_where_one_direction_carries_all() -> None:
    x = (drawn(TOKENS, 1) * drawn(D_IN, seed=1) + 1e-6 * drawn(TOKENS, D_IN, seed=2)).float()
    expected = oracles.effective_rank(layer_norm(x.double()).numpy())
    assert 1 < expected < 1.001
    assert rank_of(collect(x).normed) == pytest.approx(expected, rel=1e-4)


def test_whitening_sees_variances_of_1e_minus_10_of_the_largest_in_float32_tokens() -> None:
    basis = torch.linalg.qr(drawn(D_IN, D_IN, seed=1)).Q
    std = torch.logspace(0, -5, D_IN, dtype=torch.float64)
    x = (drawn(TOKENS, D_IN) * std @ basis).float()
    spectrum = Spectrum.of(collect(x).raw.covariance)
    away = x.double() - x.double().mean(dim=0)
    expected = torch.linalg.svdvals(away).square() / TOKENS
    assert 1e-11 < float(expected[-1] / expected[0]) < 1e-9
    assert torch.allclose(spectrum.eigenvalues, expected, rtol=1e-4)
    white = whiten(spectrum, x.double().mean(dim=0)).affine(x.double())
    assert torch.allclose(white.T @ white / TOKENS, torch.eye(D_IN, dtype=torch.float64), atol=1e-3)


def assert_same(a: Statistics, b: Statistics) -> None:
    for one, other, tolerance in ((a.raw, b.raw, 1e-10), (a.normed, b.normed, 1e-6)):
        for name in ("mean", "scatter", "third", "fourth"):
            x, y = getattr(one, name), getattr(other, name)
            assert float((x - y).norm()) <= tolerance * float(y.norm()), name
    assert torch.equal(a.sample, b.sample)
    assert a.sample.dtype == torch.float64
    assert a.rows.repeats() == b.rows.repeats()


@pytest.mark.parametrize("layer", [ordinary, with_stray_tokens, sorted_by_a_drift])
def test_parts_of_float32_tokens_merge_to_1e_minus_6_after_layer_norm_and_to_1e_minus_10_raw(
    layer: Callable[[], Tensor],
) -> None:
    x = layer().float()
    whole = collect(x, sample_tokens=500)
    for cut in (1, 700, 4999):
        parts = [collect(x[:cut], sample_tokens=500), collect(x[cut:], start=cut, sample_tokens=500)]
        assert_same(parts[0].merge(parts[1]), whole)
    assert_same(collect(list(x.split(37)), sample_tokens=500), whole)


def test_float64_tokens_between_float32_ones_lose_no_digit() -> None:
    x = ordinary()
    x[:2500] = x[:2500].float().double()
    found = collect([x[:2500].float(), x[2500:]])
    assert_close_to(found.raw, x, 1e-10)
    assert torch.equal(found.sample, collect(x).sample)
    assert found.rows.repeats() == collect(x).rows.repeats()


@pytest.mark.parametrize("layer", LAYERS)
def test_the_median_of_float32_tokens_has_the_slope_that_was_asked_for(layer: Callable[[], Tensor]) -> None:
    x = layer().float()
    median = geometric_median(x, sample=collect(x, sample_tokens=512).sample, tolerance=1e-9)
    away = x.double() - median
    slope = (away / away.norm(dim=1, keepdim=True)).mean(dim=0)
    assert float(slope.norm()) <= 1.1e-9
