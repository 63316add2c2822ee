"""A step of Adam, compiled or PyTorch's, is torch.optim.Adam's."""

import numpy as np
import pytest
import torch
from torch import Tensor

from autopsae.kernels.adam import Adam, adam, remove_parallel
from tests.kernels.test_sums import DTYPES, MEMBERS, SUMMED, TOLERANCE, as_array, normal

pytestmark = pytest.mark.usefixtures("path")


def parts(members: int, rows: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, first moments, second moments)."""
    start = normal(members * rows, columns).to(dtype)
    return start, torch.zeros_like(start), torch.zeros_like(start)


def gradients(steps: int, rows: int, columns: int) -> list[Tensor]:
    """Of all sizes."""
    return [normal(rows, columns, seed=20 + step) * 10.0 ** (step % 4 - 2) for step in range(steps)]


@SUMMED
@MEMBERS
def test_adam_is_pytorchs_for_each_member_at_its_own_rate(dtype: torch.dtype, members: int, threads: int) -> None:
    rows, first, second = parts(members, 5, 3, dtype)
    rates = torch.tensor([0.1, 0.003, 2.0][:members])
    expected = [torch.nn.Parameter(part.clone().double()) for part in rows.split(5)]
    theirs = torch.optim.Adam([{"params": [p], "lr": float(rate)} for p, rate in zip(expected, rates, strict=True)])
    for step, grad in enumerate(gradients(8, 5 * members, 3)):
        for parameter, part in zip(expected, grad.split(5), strict=True):
            parameter.grad = part.clone()
        theirs.step()
        adam(rows, grad.to(dtype), first, second, rates.double(), Adam(step=step + 1))
        tolerance = TOLERANCE[dtype] if dtype == torch.float64 else 1e-4
        assert torch.allclose(rows.double(), torch.cat([*expected]), rtol=tolerance, atol=tolerance)


def test_other_betas_and_eps_are_pytorchs_too() -> None:
    rows, first, second = parts(1, 4, 3, torch.float64)
    expected = torch.nn.Parameter(rows.clone())
    theirs = torch.optim.Adam([expected], lr=0.1, betas=(0.5, 0.8), eps=1e-2)
    for step, grad in enumerate(gradients(5, 4, 3)):
        expected.grad = grad.clone()
        theirs.step()
        how = Adam(step=step + 1, betas=(0.5, 0.8), eps=1e-2)
        adam(rows, grad, first, second, torch.tensor([0.1], dtype=torch.float64), how)
        assert torch.allclose(rows, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_at_rate_zero_rows_and_moments_keep_their_bits(unit: bool, sparse: bool, threads: int) -> None:
    rows, first, second = parts(3, 5, 3, torch.float32)
    first, second = first + 0.3, second + 0.7
    before = [t.clone() for t in (rows, first, second)]
    grads = gradients(1, 15, 3)[0].float()
    grads[6] = torch.nan  # as of a member whose loss is not finite
    rates = torch.tensor([0.1, 0.0, 0.2], dtype=torch.float64)
    adam(rows, grads, first, second, rates, Adam(step=3, unit=unit, sparse=sparse))
    for old, new in zip(before, (rows, first, second), strict=True):
        assert torch.equal(old[5:10], new[5:10])
        assert (old[:5] != new[:5]).any(dim=1).all()
        assert (old[10:] != new[10:]).any(dim=1).all()
        assert not new.isnan().any()


@SUMMED
@MEMBERS
def test_unit_rows_step_along_what_is_orthogonal_to_them_and_stay_of_unit_length(
    dtype: torch.dtype, members: int, threads: int
) -> None:
    """torch.optim.Adam on the projected gradient, and each row divided by its length in the end."""
    rows, first, second = parts(members, 5, 3, dtype)
    rows = rows / rows.norm(dim=1, keepdim=True)
    rates = torch.tensor([0.1, 0.003, 0.02][:members])
    expected = [torch.nn.Parameter(part.clone().double()) for part in rows.split(5)]
    theirs = torch.optim.Adam([{"params": [p], "lr": float(rate)} for p, rate in zip(expected, rates, strict=True)])
    for step, grad in enumerate(gradients(8, 5 * members, 3)):
        for parameter, part in zip(expected, grad.split(5), strict=True):
            row = parameter.detach()
            parameter.grad = part - (part * row).sum(dim=1, keepdim=True) * row
        theirs.step()
        with torch.no_grad():
            for parameter in expected:
                parameter.div_(parameter.norm(dim=1, keepdim=True))
        adam(rows, grad.to(dtype), first, second, rates.double(), Adam(step=step + 1, unit=True))
        tolerance = 1e-12 if dtype == torch.float64 else 1e-3
        assert torch.allclose(rows.double(), torch.cat([*expected]), rtol=tolerance, atol=tolerance)
        assert torch.allclose(rows.norm(dim=1), torch.ones(5 * members, dtype=dtype), atol=TOLERANCE[dtype])


def test_a_row_of_zeros_stays_one_and_is_not_divided_by_its_length() -> None:
    rows, first, second = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)
    adam(
        rows,
        torch.zeros(2, 3),
        first,
        second,
        torch.tensor([0.1], dtype=torch.float64),
        Adam(step=1, unit=True),
    )
    assert not rows.any()


@MEMBERS
def test_sparse_rows_are_pytorchs_and_others_keep_their_bits(members: int, threads: int) -> None:
    rows, first, second = parts(members, 6, 3, torch.float64)
    rates = torch.tensor([0.1, 0.003, 2.0][:members], dtype=torch.float64)
    expected = [torch.nn.Parameter(part.clone()) for part in rows.split(6)]
    groups = [{"params": [p], "lr": float(rate)} for p, rate in zip(expected, rates, strict=True)]
    theirs = torch.optim.SparseAdam(groups)
    for step, grad in enumerate(gradients(8, 6 * members, 3)):
        touched = torch.rand(6 * members, generator=torch.Generator().manual_seed(step)) < 0.5
        grad[~touched] = 0
        for parameter, part in zip(expected, grad.split(6), strict=True):
            some = part.any(dim=1).nonzero()[:, 0]
            parameter.grad = torch.sparse_coo_tensor(some[None], part[some], part.shape, check_invariants=True)
        theirs.step()
        before = [t.clone() for t in (rows, first, second)]
        adam(rows, grad, first, second, rates, Adam(step=step + 1, sparse=True))
        for old, new in zip(before, (rows, first, second), strict=True):
            assert torch.equal(old[~touched], new[~touched])
            assert (old[touched] != new[touched]).any(dim=1).all()
        assert torch.allclose(rows, torch.cat([*expected]), rtol=1e-12, atol=1e-12)


def test_nan_in_a_gradient_counts_as_one() -> None:
    rows, first, second = parts(1, 2, 3, torch.float64)
    grads = torch.zeros(2, 3, dtype=torch.float64)
    grads[1, 2] = torch.nan
    adam(rows, grads, first, second, torch.tensor([0.1], dtype=torch.float64), Adam(step=1, sparse=True))
    assert rows.isnan().any(dim=1).tolist() == [False, True]


@DTYPES
def test_what_is_left_of_a_gradient_is_orthogonal_to_the_unit_rows(dtype: torch.dtype) -> None:
    g, W = normal(10, 7), normal(10, 7, seed=6)
    W /= W.norm(dim=1, keepdim=True)
    g, W = g.to(dtype), W.to(dtype)
    expected = as_array(g).copy()
    for r, row in enumerate(as_array(W)):
        expected[r] -= (expected[r] @ row) * row
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 5e-2}[dtype]
    for gradient in (g.clone(), g.T.contiguous().T):
        remove_parallel(gradient, W)
        assert np.allclose(as_array(gradient), expected, atol=tolerance)
        assert float((gradient * W).sum(dim=1).abs().max()) < tolerance
