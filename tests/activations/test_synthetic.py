"""Laws of the synthetic tokens: what was asked for is what a float64 NumPy measurement finds."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from autopsae.activations.synthetic import SyntheticFeatures, gaussian_tokens, synthetic_features
from autopsae.arrays import InputError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def float64(data: SyntheticFeatures | torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    matrix = data if isinstance(data, torch.Tensor) else torch.cat(list(data))
    return matrix.numpy().astype(np.float64)


def gamma_of(x: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(np.linalg.norm(x.mean(axis=0)) / np.linalg.norm(x.std(axis=0)))


@pytest.mark.parametrize("gamma", [0.3, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("coordinate", [0, 49])
def test_features_have_the_asked_gamma(gamma: float, coordinate: int) -> None:
    data = synthetic_features(60_000, gamma, offset_coordinate=coordinate, generator=seeded())
    assert gamma_of(float64(data)) == pytest.approx(gamma, rel=0.02)


def test_the_paper_s_numbers_need_the_paper_s_offset() -> None:
    data = synthetic_features(1, 40.0, generator=seeded())
    assert data.sigma_norm == pytest.approx(3.13, abs=0.02)
    assert float(data.offset[0]) == pytest.approx(125, abs=1)
    assert not data.offset[1:].any()


def test_stated_moments_are_those_of_the_tokens() -> None:
    data = synthetic_features(60_000, 2.0, d_in=7, n_features=9, n_active=4, generator=seeded(1))
    x = float64(data)
    assert np.linalg.norm(x.std(axis=0)) == pytest.approx(data.sigma_norm, rel=0.01)
    assert np.allclose(x.mean(axis=0), data.mean.numpy(), atol=0.05)


def test_moments_of_one_feature_by_hand() -> None:
    # x = c f: mean E[c] f, variance E[c^2] - E[c]^2 = 1 - 2 / pi along f.
    data = synthetic_features(1, 3.0, d_in=4, n_features=1, n_active=1, generator=seeded())
    assert data.sigma_norm == pytest.approx(math.sqrt(1 - 2 / math.pi), rel=1e-12)
    mean = (0.5 + math.sqrt(2 / math.pi)) * data.features[0]
    assert torch.allclose(data.mean - data.offset, mean, atol=1e-6)


def test_each_token_is_the_offset_and_exactly_five_features_with_coefficients_over_one_half() -> None:
    # More dimensions than features: the coefficients can be solved for.
    data = synthetic_features(500, 2.0, d_in=200, generator=seeded(), dtype=torch.float64)
    features = data.features.numpy()
    codes = np.linalg.lstsq(features.T, (float64(data) - data.offset.numpy()).T, rcond=None)[0].T
    active = np.abs(codes) > 1e-8
    assert (active.sum(axis=1) == 5).all()
    assert (codes[active] >= 0.5 - 1e-8).all()
    assert np.allclose(np.linalg.norm(features, axis=1), 1)
    # Each of 100 features is active in 25 of 500 tokens on average: none is forgotten or preferred.
    assert 5 < active.sum(axis=0).min() <= active.sum(axis=0).max() < 60


def test_every_pass_draws_the_same_tokens_in_batches_that_add_up() -> None:
    data = synthetic_features(1000, 1.0, batch_tokens=300, generator=seeded())
    first, second = list(data), list(data)
    assert [len(batch) for batch in first] == [300, 300, 300, 100]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def test_the_generator_decides_and_another_seed_holds_tokens_out() -> None:
    data, same = (synthetic_features(50, 1.0, generator=seeded()) for _ in range(2))
    assert np.array_equal(float64(data), float64(same))
    held_out = dataclasses.replace(data, seed=data.seed + 1)
    assert not np.array_equal(float64(data), float64(held_out))
    other = synthetic_features(50, 1.0, generator=seeded(1))
    assert not torch.equal(data.features, other.features)


def test_tokens_come_in_the_asked_dtype() -> None:
    data = synthetic_features(10, 1.0, generator=seeded(), dtype=torch.float64)
    assert next(iter(data)).dtype == torch.float64
    assert gaussian_tokens(10, 3, 1.0, generator=seeded(), dtype=torch.float16).dtype == torch.float16


def test_a_gamma_below_the_features_own_mean_is_refused_and_the_bound_is_reached() -> None:
    with pytest.raises(InputError, match="gamma: expected a finite number, at least") as raised:
        synthetic_features(10, 0.01, generator=seeded())
    bound = float(str(raised.value).split("at least ")[1].split()[0])
    assert synthetic_features(10, bound * 1.01, generator=seeded()).n_active == 5
    with pytest.raises(InputError, match="at least"):
        synthetic_features(10, bound * 0.99, generator=seeded())


@pytest.mark.parametrize("gamma", [math.nan, math.inf, -1.0])
def test_a_gamma_that_is_no_number_is_refused(gamma: float) -> None:
    with pytest.raises(InputError, match="gamma"):
        synthetic_features(10, gamma, generator=seeded())
    with pytest.raises(InputError, match=f"gamma finite and >= 0, got {gamma}"):
        gaussian_tokens(10, 3, gamma, generator=seeded())


@pytest.mark.parametrize(
    "sizes",
    [
        {"d_in": 0},
        {"n_active": 0},
        {"n_active": 101},
        {"batch_tokens": 0},
        {"offset_coordinate": 50},
        {"offset_coordinate": -1},
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"{next(iter(sizes.values()))}\b"):
        synthetic_features(10, 1.0, **sizes, generator=seeded())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 10.0])
@pytest.mark.parametrize("tail", [None, 8])
def test_clouds_have_the_asked_gamma(gamma: float, tail: int | None) -> None:
    x = float64(gaussian_tokens(40_000, 12, gamma, spectrum=1.0, tail=tail, generator=seeded()))
    assert gamma_of(x) == pytest.approx(gamma, rel=0.02, abs=0.01)


@pytest.mark.parametrize("tail", [None, 12])
def test_clouds_have_the_asked_eigenvalues(tail: int | None) -> None:
    eigenvalues = torch.tensor([9.0, 4.0, 1.0, 0.25, 0.0])
    x = float64(gaussian_tokens(40_000, 5, 1.0, spectrum=eigenvalues, tail=tail, generator=seeded()))
    found = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert np.allclose(found, eigenvalues.numpy(), rtol=0.04, atol=1e-6)


def test_an_exponent_gives_a_power_law_with_mean_one() -> None:
    x = float64(gaussian_tokens(40_000, 8, 0.0, spectrum=1.5, generator=seeded()))
    found = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    powers = np.arange(1, 9) ** -1.5
    assert np.allclose(found, powers * 8 / powers.sum(), rtol=0.04)
    flat = float64(gaussian_tokens(40_000, 8, 0.0, generator=seeded()))
    assert np.allclose(np.linalg.eigvalsh(np.cov(flat.T)), 1, rtol=0.06)


def test_principal_directions_are_rotated_away_from_the_axes() -> None:
    x = float64(gaussian_tokens(5000, 6, 0.0, spectrum=3.0, generator=seeded()))
    leading = np.linalg.eigh(np.cov(x.T))[1][:, -1]
    assert np.abs(leading).max() < 0.95


def test_every_direction_has_the_excess_kurtosis_of_the_asked_tail() -> None:
    # 6 / (tail - 4) = 0.5 at 16 degrees of freedom, along the axes and along random directions alike.
    x = float64(gaussian_tokens(200_000, 6, 2.0, spectrum=1.0, tail=16, generator=seeded()))
    directions = np.random.default_rng(0).normal(size=(6, 6))
    for projected in (x, x @ directions):
        centered = projected - projected.mean(axis=0)
        kurtosis = (centered**4).mean(axis=0) / (centered**2).mean(axis=0) ** 2 - 3
        assert kurtosis.mean() == pytest.approx(0.5, abs=0.08)
    gaussian = float64(gaussian_tokens(200_000, 6, 2.0, generator=seeded()))
    centered = gaussian - gaussian.mean(axis=0)
    kurtosis = (centered**4).mean(axis=0) / (centered**2).mean(axis=0) ** 2 - 3
    assert kurtosis.mean() == pytest.approx(0.0, abs=0.03)


def test_outliers_are_the_asked_share_with_the_asked_norm_in_one_direction() -> None:
    x = float64(gaussian_tokens(10_000, 16, 2.0, outlier_fraction=0.013, outlier_norm=50.0, generator=seeded()))
    sigma_norm = math.sqrt(16)
    norms = np.linalg.norm(x, axis=1)
    huge = norms > 25 * sigma_norm
    assert huge.sum() == 130
    assert np.allclose(norms[huge], 50 * sigma_norm, rtol=0.06)
    units = x[huge] / norms[huge, None]
    assert (units @ units.T).min() > 0.99
    # Spread over the stream, not at its beginning, and the other tokens are as asked.
    places = np.flatnonzero(huge)
    assert places.min() < 1000
    assert places.max() > 9000
    assert gamma_of(x[~huge]) == pytest.approx(2.0, rel=0.03)


def test_clouds_repeat_with_the_generator() -> None:
    one, other = (gaussian_tokens(20, 4, 1.0, tail=5, generator=seeded(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, gaussian_tokens(20, 4, 1.0, tail=5, generator=seeded(4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "tokens >= 1, got 0"),
        ({"d_in": 0}, "d_in >= 1, got 0"),
        ({"tail": 2}, "tail None or at least 3 degrees of freedom, got 2"),
        ({"outlier_fraction": 1.5}, r"outlier_fraction in \[0, 1\], got 1.5"),
        ({"outlier_norm": math.inf}, "outlier_norm finite and >= 0, got inf"),
        ({"spectrum": math.nan}, "spectrum: expected a finite exponent or 3 eigenvalues, got nan"),
        ({"spectrum": torch.ones(4)}, r"spectrum: expected 3 eigenvalues >= 0, not all zero, .* shape \(4,\)"),
        ({"spectrum": torch.tensor([1.0, 1.0, -1.0])}, "spectrum: .* minimum -1.0"),
        ({"spectrum": torch.zeros(3)}, "spectrum: .* not all zero"),
    ],
)
def test_clouds_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"tokens": 10, "d_in": 3, "gamma": 1.0} | change
    with pytest.raises(InputError, match=message):
        gaussian_tokens(**asked, generator=seeded())
