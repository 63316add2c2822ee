"""Passes over rows of tokens by both of their ways, on any number of threads, against NumPy in float64."""

import numpy as np
import pytest
import torch

from autopsae.statistics.distances import distances
from autopsae.statistics.moments import Moments, normalize
from autopsae.statistics.repeats import row_hashes
from tests import oracles

pytestmark = [pytest.mark.quick, pytest.mark.usefixtures("path", "threads")]


def drawn(dtype: torch.dtype, tokens: int = 50, d_in: int = 9) -> torch.Tensor:
    return torch.randn(tokens, d_in, generator=torch.Generator().manual_seed(0)).to(dtype) + 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tokens", [1, 5, 50])
def test_moments_are_those_of_numpy(dtype: torch.dtype, tokens: int) -> None:
    x = drawn(dtype, tokens)
    found = Moments.of(x)
    away = x.double().numpy() - x.double().numpy().mean(axis=0)
    np.testing.assert_allclose(found.scatter, away.T @ away, atol=1e-12)
    np.testing.assert_allclose(found.third, (away**3).sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.fourth, (away**4).sum(axis=0), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tokens_are_normalised_in_float64(dtype: torch.dtype) -> None:
    x = drawn(dtype)
    found = normalize(x, torch.empty(x.shape, dtype=torch.float64))
    np.testing.assert_allclose(found, oracles.layer_norm(x.double().numpy()), atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_are_those_of_numpy_where_squares_vanish_or_overflow_too(dtype: torch.dtype) -> None:
    x = drawn(dtype)
    point = x[0].double()
    x[1] = x[0]
    for unit in (1.0, 2.0**-600, 2.0**600):  # lengths of 1e-180 and of 1e180
        r, direction = distances(x, point * unit, unit)
        away = x.double().numpy() - point.numpy()
        expected = np.linalg.norm(away, axis=1)
        np.testing.assert_allclose(r / unit, expected, rtol=1e-13)
        assert r[0] == r[1] == 0
        units = away[2:] / expected[2:, None]
        np.testing.assert_allclose(direction, units.sum(axis=0), rtol=1e-12)


def test_a_vector_has_one_hash_in_float32_and_float64_and_by_both_ways() -> None:
    x = drawn(torch.float32)
    x[3, 2] = -0.0
    hashes = row_hashes(x)
    assert (hashes == row_hashes(x.double())).all()
    x[3, 2] = 0.0
    assert (hashes == row_hashes(x)).all()
    assert len(np.unique(hashes)) == len(x)
    assert hashes[:2].tolist() == [8902698293923007908, 6420615984159209079]  # by any way, in any version
