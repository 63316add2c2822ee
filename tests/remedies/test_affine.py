import pytest
import torch

from autopsae.remedies.affine import Affine

pytestmark = pytest.mark.quick


def random_affine(d_in: int, seed: int) -> Affine:
    generator = torch.Generator().manual_seed(seed)
    linear = torch.randn(d_in, d_in, dtype=torch.float64, generator=generator) + 3 * torch.eye(d_in)
    center = torch.randn(d_in, dtype=torch.float64, generator=generator)
    return Affine(center=center, linear=linear, inverse=torch.linalg.inv(linear), scale=0.25 * (seed + 1))


def test_inverse_undoes_the_map() -> None:
    x = torch.randn(20, 7, dtype=torch.float64)
    for affine in (random_affine(7, 0), Affine(center=torch.randn(7, dtype=torch.float64)), Affine.identity(7)):
        assert torch.allclose(affine.invert(affine(x)), x, atol=1e-10)


def test_the_map_is_linear_after_its_centre() -> None:
    affine = random_affine(5, 1)
    assert affine.linear is not None
    x = torch.randn(3, 5, dtype=torch.float64)
    for row, mapped in zip(x, affine(x), strict=True):
        assert torch.allclose(mapped, affine.scale * affine.linear @ (row - affine.center))
    assert torch.allclose(affine(affine.center[None]), torch.zeros(1, 5, dtype=torch.float64))


def test_composition_maps_as_one_after_the_other() -> None:
    x = torch.randn(20, 6, dtype=torch.float64)
    centre_only = Affine(center=torch.randn(6, dtype=torch.float64), scale=3.0)
    for first in (random_affine(6, 0), centre_only):
        for second in (random_affine(6, 1), centre_only):
            both = first.then(second)
            assert torch.allclose(both(x), second(first(x)))
            assert torch.allclose(both.invert(both(x)), x, atol=1e-9)


def test_tokens_keep_their_dtype() -> None:
    assert random_affine(4, 0)(torch.randn(2, 4)).dtype == torch.float32
