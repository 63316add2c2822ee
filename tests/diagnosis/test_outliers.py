"""Which dimensions are the outliers."""

import pytest
import torch

from autopsae.diagnosis.outliers import HELD, MOST, outlier_dimensions, total_share
from autopsae.statistics.moments import Moments, layer_norm

pytestmark = pytest.mark.quick


def normed(mean: torch.Tensor) -> Moments:
    noise = torch.randn(2000, len(mean), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Moments.of(layer_norm(mean + noise))


def test_the_dimensions_that_hold_the_mean_are_named_with_their_numbers() -> None:
    mean = torch.zeros(64, dtype=torch.float64)
    mean[[5, 40]] = torch.tensor([30.0, -60.0], dtype=torch.float64)
    moments = normed(mean)
    first, second = outlier_dimensions(moments)
    assert (first.index, second.index) == (40, 5)
    shares = moments.mean.square() / moments.mean.square().sum()
    assert first.share == pytest.approx(float(shares[40]))
    assert second.share == pytest.approx(float(shares[5]))
    assert (first.mean, first.std) == (float(moments.mean[40]), float(moments.std[40]))
    assert total_share([first, second]) >= HELD > total_share([first])
    assert str(first).startswith("dimension 40: -")


def test_no_more_than_ten_are_named() -> None:
    assert len(outlier_dimensions(normed(torch.arange(1.0, 65.0, dtype=torch.float64)))) == MOST


def test_a_mean_of_zero_has_none() -> None:
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert outlier_dimensions(Moments.of(torch.cat([x, -x]))) == ()
