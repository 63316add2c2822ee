"""The loops over pairs and rows: compiled or PyTorch's, they give what plain NumPy gives."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopsae.kernels import sums
from autopsae.kernels.pairs import Pairs

pytestmark = pytest.mark.usefixtures("path")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
SUMMED = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
MEMBERS = pytest.mark.parametrize("members", [1, 3])
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2}


def normal(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_array(t: Tensor) -> NDArray[Any]:
    return t.double().numpy()


def some_pairs(members: int = 1, d_sae: int = 9) -> Pairs:
    """Six tokens per member; the first, a middle and the last token have no latent, some latents no token."""
    counts = torch.tensor([0, 3, 1, 0, 4, 0])
    latents = torch.tensor([8, 0, 3, 3, 1, 3, 8, 0])
    # Each member's are turned by one, so that no two select the same.
    latents = torch.cat([(latents + m) % d_sae + d_sae * m for m in range(members)])
    return Pairs(latents=latents, per_token_counts=counts.repeat(members), d_sae=d_sae, members=members)


# Dots


@DTYPES
@MEMBERS
@pytest.mark.parametrize("d_in", [1, 7, 32])
def test_dots_are_those_of_each_pairs_rows(dtype: torch.dtype, members: int, d_in: int, threads: int) -> None:
    pairs = some_pairs(members)
    x, W = normal(6 * members, d_in).to(dtype), normal(9 * members, d_in, seed=6).to(dtype)
    listed = zip(pairs.tokens, pairs.latents, strict=True)
    expected = [as_array(x)[t] @ as_array(W)[i] for t, i in listed]
    strided = torch.stack([x, x], dim=2)[:, :, 0], W.T.contiguous().T
    for of_tokens, of_latents in ((x, W), strided):
        found = sums.dots(of_tokens, of_latents, pairs.latents, pairs.ends)
        assert found.dtype == dtype
        assert found.double().tolist() == pytest.approx(expected, abs=TOLERANCE[dtype] * d_in**0.5)


def test_no_pairs_have_no_dots() -> None:
    none = torch.empty(0, dtype=torch.int64)
    ends = torch.zeros(3, dtype=torch.int64)
    assert sums.dots(torch.ones(2, 3), torch.ones(4, 3), none, ends).shape == (0,)


def test_who_fired_is_who_has_a_value_over_zero(path: str) -> None:
    values = torch.tensor([0.0, 2.0, -1.0, 3.0, 1e-30])
    assert sums.mark_fired(values, torch.tensor([0, 1, 2, 1, 4]), 6).tolist() == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]


def test_dots_carry_nan() -> None:
    pairs = some_pairs()
    x, W = torch.ones(6, 4), torch.ones(9, 4)
    W[3, 2] = torch.nan
    found = sums.dots(x, W, pairs.latents, pairs.ends)
    assert found.isnan().tolist() == (pairs.latents == 3).tolist()


# Leave and scatter, through the pairs, so that both ways are there


def matrix_of(pairs: Pairs, values: Tensor) -> NDArray[Any]:
    """[all tokens, all latents], by a loop."""
    found = np.zeros((pairs.n_tokens, pairs.n_latents))
    place = 0
    for token, n in enumerate(pairs.per_token_counts.tolist()):
        for _ in range(n):
            found[token, int(pairs.latents[place])] += float(values[place])
            place += 1
    return found


@SUMMED
@MEMBERS
def test_what_is_left_is_the_target_without_each_tokens_sum(
    dtype: torch.dtype, members: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopsae.kernels.pairs.DENSE", 2.0)
    pairs, d_in = some_pairs(members), 7
    values = normal(len(pairs.latents)).to(dtype)
    values[2] = 0  # selected, but does not fire
    target, W = normal(members, 6, d_in, seed=6).to(dtype), normal(members, 9, d_in, seed=7).to(dtype)
    left, error, summed, dots = pairs.leave(target, values, W)
    assert torch.allclose(dots, pairs.dots(left.flatten(0, 1), W), rtol=0, atol=100 * TOLERANCE[dtype])
    decoded = matrix_of(pairs, values) @ as_array(W.flatten(0, 1))
    expected = as_array(target) - decoded.reshape(members, 6, d_in)
    assert left.dtype == error.dtype == dtype
    assert np.allclose(as_array(left), expected, rtol=0, atol=10 * TOLERANCE[dtype])
    assert np.allclose(as_array(summed), expected.sum(axis=1), rtol=0, atol=60 * TOLERANCE[dtype])
    assert np.allclose(as_array(error), (expected**2).sum(axis=(1, 2)), rtol=10 * TOLERANCE[dtype], atol=0)


def test_what_is_left_carries_nan_into_its_member_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopsae.kernels.pairs.DENSE", 2.0)
    pairs = some_pairs(3)
    values = normal(len(pairs.latents))
    values[9] = torch.nan  # of the second member's second token
    left, error, *_ = pairs.leave(normal(3, 6, 4), values, normal(3, 9, 4))
    assert left.isnan().any(dim=2).tolist() == [[False] * 6, [False, True, *[False] * 4], [False] * 6]
    assert error.isnan().tolist() == [False, True, False]


@SUMMED
@MEMBERS
@pytest.mark.parametrize("small_sum", [0, 1 << 18])
def test_sums_over_the_tokens_of_each_latent_equal_a_matrix_product(
    dtype: torch.dtype, members: int, threads: int, small_sum: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopsae.kernels.pairs.DENSE", 2.0)
    monkeypatch.setattr("autopsae.kernels.pairs.SMALL_SUM", small_sum)
    pairs = some_pairs(members)
    values, rows = normal(len(pairs.latents)).to(dtype), normal(6 * members, 5, seed=6).to(dtype)
    values[3] = 0
    found = pairs.per_latent(values, rows)
    expected = (matrix_of(pairs, values).T @ as_array(rows)).reshape(members, 9, 5)
    assert found.dtype == dtype
    assert np.allclose(as_array(found), expected, rtol=0, atol=10 * TOLERANCE[dtype])
    touched = (matrix_of(pairs, values) != 0).any(axis=0).reshape(members, 9)
    assert not found[~torch.from_numpy(touched)].any()


@MEMBERS
def test_dense_and_sparse_pairs_give_the_same(members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = some_pairs(members)
    values, rows = normal(len(pairs.latents)), normal(6 * members, 5, seed=6)
    W = normal(members, 9, 5, seed=7)
    both = []
    for dense in (-1.0, 2.0):
        monkeypatch.setattr("autopsae.kernels.pairs.DENSE", dense)
        left = pairs.leave(rows.view(members, 6, 5), values, W)
        both.append([pairs.per_token(values, W), pairs.per_latent(values, rows), pairs.dots(rows, W), *left])
    for dense_one, sparse_one in zip(*both, strict=True):
        assert dense_one.shape == sparse_one.shape
        assert torch.allclose(dense_one, sparse_one, rtol=1e-12, atol=1e-12)


def test_sums_per_latent_and_per_member_equal_a_loop() -> None:
    pairs = some_pairs(3)
    values = normal(len(pairs.latents))
    dense = matrix_of(pairs, values)
    assert np.allclose(as_array(pairs.sum_per_latent(values)).ravel(), dense.sum(axis=0), atol=1e-12)
    assert np.allclose(as_array(pairs.sum_per_member(values)), dense.reshape(3, -1).sum(axis=1), atol=1e-12)
    assert pairs.spread(torch.arange(3.0)).tolist() == [0.0] * 8 + [1.0] * 8 + [2.0] * 8


def test_pairs_are_grouped_by_latent_and_stay_in_order_within_one() -> None:
    generator = torch.Generator().manual_seed(7)
    for n, d_sae in [(0, 4), (1, 1), (500, 7), (300, 70_000)]:
        latents = torch.randint(0, d_sae, (n,), generator=generator)
        for listed in (latents, torch.stack([latents, latents], dim=1)[:, 0]):
            order = sums.group(listed, torch.bincount(listed, minlength=d_sae))
            assert order.tolist() == np.argsort(latents.numpy(), kind="stable").tolist()
