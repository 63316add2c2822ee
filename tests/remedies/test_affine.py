from typing import Any

import jaxtyping
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear": torch.eye(4)}, "expected both linear and inverse, or neither, got linear alone"),
        ({"inverse": torch.eye(4)}, "expected both linear and inverse, or neither, got inverse alone"),
        (
            {"linear": torch.eye(3), "inverse": torch.eye(4)},
            r"expected linear as \[4, 4\], by center, got shape \[3, 3\]",
        ),
        ({"center": torch.zeros(4, 1)}, r"expected center as \[d_in\], got shape \[4, 1\]"),
        *(
            ({"scale": scale}, "expected a finite scale over 0")
            for scale in (0.0, -1.0, float("nan"), float("inf"))
        ),
    ],
)
def test_a_map_that_cannot_be_undone_is_refused(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no type checks either
    with pytest.raises(InputError, match=message):
        Affine(**{"center": torch.zeros(4), **change})


def test_a_remedy_whose_inverse_does_not_undo_its_matrix_is_refused() -> None:
    """With it an SAE that reconstructs perfectly would have an FVU of 1."""
    affine = Affine(center=torch.zeros(4), linear=2 * torch.eye(4), inverse=torch.eye(4))
    with pytest.raises(InputError, match="remedy 'mine': expected an inverse that undoes linear"):
        Remedy(name="mine", instruction="double", affine=affine)
