"""What the JSON keeps of a spectrum and a landscape."""

import pytest
import torch

from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.profile import BINS, DIRECTIONS, profile_landscape, thin_spectrum

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("d_in", [1, 2, 12, 128, 129, 4096])
def test_the_first_and_the_last_of_a_spectrum_are_kept_and_a_landscape_leaves_out_no_dimension(d_in: int) -> None:
    variances = torch.arange(d_in, 0, -1).float()
    told = thin_spectrum(variances)
    assert told["variances"] == pytest.approx([float(variances[n - 1]) for n in told["directions"]], rel=1e-4)
    assert (told["directions"][0], told["directions"][-1]) == (1, d_in)
    assert len(told["directions"]) <= min(d_in, DIRECTIONS + 1)
    landscape = torch.zeros(5, d_in)
    for place in {0, d_in // 2, d_in - 1}:
        landscape[:, place] = -7.0
        profile = profile_landscape(landscape)
        [high] = [n for n, size in enumerate(profile["sizes"]) if size == 7]
        ends = [*profile["dimensions"][1:], d_in]
        assert profile["dimensions"][high] <= place < ends[high]
        assert profile["dimensions"][0] == 0
        assert len(profile["sizes"]) == min(d_in, BINS)
        landscape[:, place] = 0.0


def test_the_spectrum_of_a_diagnosis_is_that_of_the_covariance() -> None:
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 1, 1, 1, 1, 0.1])
    told = diagnose(x, d_sae=16, k=2).to_dict()
    expected = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)
    shares = expected / expected.sum()
    assert told["spectrum"]["variances"] == pytest.approx(shares.tolist(), rel=1e-4)
    assert told["landscape"]["dimensions"] == list(range(6))
