import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from autopsae.arrays import InputError
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten, z_score
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum

pytestmark = pytest.mark.quick

D_IN = 12


@pytest.fixture
def x() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(D_IN, D_IN, dtype=torch.float64, generator=generator)
    mixing *= torch.logspace(0, -2, D_IN, dtype=torch.float64)[:, None]
    return torch.randn(4000, D_IN, dtype=torch.float64, generator=generator) @ mixing + 4


@pytest.fixture
def spectrum(x: torch.Tensor) -> Spectrum:
    return Spectrum.of(collect(x).raw.covariance)


def test_whitening_makes_the_covariance_the_identity(x: torch.Tensor, spectrum: Spectrum) -> None:
    whitened = whiten(spectrum, x.mean(dim=0)).affine(x)
    assert torch.allclose(torch.cov(whitened.T, correction=0), torch.eye(D_IN, dtype=torch.float64), atol=1e-9)


def test_whitening_is_scikit_learns_but_for_a_rotation(x: torch.Tensor, spectrum: Spectrum) -> None:
    ours = whiten(spectrum, x.mean(dim=0)).affine(x)
    theirs = torch.from_numpy(PCA(whiten=True).fit_transform(x.numpy())) * np.sqrt(len(x) / (len(x) - 1))
    assert torch.allclose(ours[:50] @ ours[:50].T, theirs[:50] @ theirs[:50].T, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.15, 0.3, 0.5, 1.0])
def test_partial_whitening_raises_each_eigenvalue_to_one_minus_alpha(
    x: torch.Tensor, spectrum: Spectrum, alpha: float
) -> None:
    remedy = whiten(spectrum, x.mean(dim=0), alpha=alpha)
    found = torch.linalg.eigvalsh(torch.cov(remedy.affine(x).T, correction=0)).flip(0)
    assert torch.allclose(found, spectrum.eigenvalues.pow(1 - alpha), rtol=1e-8)
    assert torch.allclose(remedy.affine.invert(remedy.affine(x)), x)


def test_directions_without_variance_are_not_blown_up() -> None:
    x = torch.randn(500, 6, dtype=torch.float64)
    x[:, 5] = 1e-9 * x[:, 5]
    spectrum = Spectrum.of(collect(x).raw.covariance)
    linear = whiten(spectrum, x.mean(dim=0)).affine.linear
    assert linear is not None
    assert float(torch.linalg.matrix_norm(linear, 2)) < 1.2


def test_stray_tokens_do_not_keep_the_other_directions_from_being_whitened() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 6, dtype=torch.float64, generator=generator) * torch.logspace(0, -1, 6)
    x[::100] = 1e5 * torch.ones(6)  # an attention sink: its variance is 1e10 times the smallest
    spectrum = Spectrum.of(collect(x).raw.covariance)
    whitened = whiten(spectrum, x.mean(dim=0), alpha=0.5).affine(x)
    found = torch.linalg.eigvalsh(torch.cov(whitened.T, correction=0)).flip(0)
    assert torch.allclose(found, spectrum.eigenvalues.sqrt(), rtol=1e-3)


def test_directions_past_the_rank_share_the_last_gain(x: torch.Tensor, spectrum: Spectrum) -> None:
    linear = whiten(spectrum, x.mean(dim=0), rank=3).affine.linear
    assert linear is not None
    gains = torch.linalg.eigvalsh(linear)
    assert torch.allclose(gains[:1], spectrum.eigenvalues[0] ** -0.5)
    assert torch.allclose(gains[2:], spectrum.eigenvalues[2] ** -0.5)


def test_z_scores_have_unit_variance_and_leave_constant_dimensions() -> None:
    x = torch.randn(300, 4, dtype=torch.float64) * torch.tensor([1.0, 50.0, 0.01, 0.0]) + 2
    statistics = collect(x)
    scored = z_score(statistics.raw.std, statistics.raw.mean).affine(x)
    expected = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert torch.allclose(scored.std(dim=0, correction=0), expected)


def test_active_rows_lie_in_the_subspace_with_unit_norm(x: torch.Tensor, spectrum: Spectrum) -> None:
    remedy = active_subspace(spectrum, x.mean(dim=0), rank=4)
    W, _ = remedy.enters().encoder(torch.randn(100, D_IN, dtype=torch.float64))
    outside = W @ spectrum.directions[4:].T
    assert float(outside.abs().max()) < 1e-10
    assert torch.allclose(W.norm(dim=1), torch.ones(100, dtype=torch.float64))


def test_folded_encoder_gives_the_pre_activations_of_the_remedied_tokens(
    x: torch.Tensor, spectrum: Spectrum
) -> None:
    point = x.mean(dim=0)
    W_enc = torch.randn(30, D_IN, dtype=torch.float64)
    remedies = [
        untouched(D_IN),
        center(point, "mean"),
        z_score(x.std(dim=0), point),
        whiten(spectrum, point, alpha=0.3),
    ]
    for remedy in remedies:
        W, c = remedy.enters().encoder(W_enc)
        assert torch.allclose((x - c) @ W.T, remedy.affine(x) @ W_enc.T), remedy.name


def test_remedies_that_only_center_share_the_drawn_rows() -> None:
    W_enc = torch.randn(5, D_IN)
    for remedy in (untouched(D_IN), center(torch.ones(D_IN, dtype=torch.float64), "median")):
        assert remedy.enters().encoder(W_enc)[0] is W_enc


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_outside_zero_to_one_is_refused(spectrum: Spectrum, alpha: float) -> None:
    with pytest.raises(InputError, match=r"expected alpha in \[0, 1\], got"):
        whiten(spectrum, torch.zeros(D_IN, dtype=torch.float64), alpha=alpha)


@pytest.mark.parametrize("rank", [0, 13])
def test_rank_outside_the_width_is_refused(spectrum: Spectrum, rank: int) -> None:
    point = torch.zeros(D_IN, dtype=torch.float64)

    def by_whitening() -> Remedy:
        return whiten(spectrum, point, rank=rank)

    def by_subspace() -> Remedy:
        return active_subspace(spectrum, point, rank=rank)

    for build in (by_whitening, by_subspace):
        with pytest.raises(InputError, match=rf"rank {rank} is not in 1 ... d_in = 12; pass a rank"):
            build()
