"""A step along a gradient that is never written is the step along the written one."""

import pytest
import torch
from torch import Tensor

from autopsae.kernels.adam import Adam, adam, adam_from_sum
from autopsae.kernels.gradients import Gradients, OuterSum
from autopsae.kernels.pairs import Pairs
from tests.kernels.test_sums import normal

D_IN, D_SAE, TOKENS = 11, 13, 40


def some_sum(members: int, k: int, *, seed: int) -> OuterSum:
    """Of k latents of each token; the first latent has none, the second very many."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(members, TOKENS, D_SAE, generator=generator)
    scores[:, :, 0], scores[:, :, 1] = -1, 2
    pairs = Pairs.of_matrix(scores.topk(k, dim=2).indices, D_SAE)
    values = normal(len(pairs.latents), seed=seed)
    return OuterSum(pairs=pairs, values=values, rows=normal(members * TOKENS, D_IN, seed=seed + 1))


def start(members: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, and their first and second moments."""
    rows = torch.nn.functional.normalize(normal(members * D_SAE, D_IN, seed=9), dim=1)
    moments = 0.01 * normal(members * D_SAE, D_IN, seed=10), normal(members * D_SAE, D_IN, seed=11).square()
    return rows, *moments


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("sums", [1, 2])
@pytest.mark.parametrize("written_too", [False, True])
@pytest.mark.parametrize(("unit", "sparse"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_step_from_sums_is_the_step_along_their_written_gradient(
    members: int, sums: int, written_too: bool, unit: bool, sparse: bool, threads: int
) -> None:
    some = [some_sum(members, k, seed=20 + k) for k in (3, 5)[:sums]]
    gradient = sum((one.write().flatten(0, 1) for one in some), torch.zeros(members * D_SAE, D_IN))
    other = normal(members * D_SAE, D_IN, seed=30) * (torch.arange(members * D_SAE) % 5 == 0)[:, None]
    gradient = gradient + other if written_too else gradient
    rates = torch.tensor([0.1, 0.0, 0.02][:members], dtype=torch.float64)
    how = Adam(step=3, unit=unit, sparse=sparse)
    expected, moved = start(members), start(members)
    adam(expected[0], gradient, expected[1], expected[2], rates, how)
    one = Gradients().join(some)
    written = other if written_too else None
    adam_from_sum(moved[0], written, moved[1], moved[2], rates, how, one)
    for ours, right in zip(moved, expected, strict=True):
        assert torch.allclose(ours, right, rtol=1e-4, atol=1e-6)
    assert not torch.equal(moved[0], start(members)[0])


def test_the_sums_of_a_matrix_are_taken_once_and_in_one_order() -> None:
    small, large = some_sum(1, 3, seed=1), some_sum(1, 5, seed=2)
    gradients = Gradients()
    for name, order in (("W_enc", (small, large)), ("W_dec", (large, small))):
        for one in order:
            gradients.add(name, one)
    assert gradients.take("W_enc") == gradients.take("W_dec") == [small, large]
    assert gradients.take("W_enc") == []
    gradients.add("W_enc", small)
    gradients.clear()
    assert gradients.take("W_enc") == []


def test_matrices_with_the_same_pairs_share_their_order() -> None:
    some = [some_sum(2, k, seed=k) for k in (3, 4)]
    others = [OuterSum(pairs=one.pairs, values=2 * one.values, rows=one.rows + 1) for one in some]
    gradients = Gradients()
    assert gradients.join(some[:1]) is some[0]
    joined = gradients.join(some).pairs
    assert gradients.join(others).pairs is joined
    for pairs, parts in ((joined, some), (some[0].pairs, some[:1])):
        latents = pairs.latents[pairs.order]
        assert torch.equal(latents, latents.sort().values)
        listed = torch.cat([one.pairs.latents for one in parts])
        assert torch.equal(pairs.ends_by_latent.diff(), torch.bincount(listed, minlength=2 * D_SAE))
