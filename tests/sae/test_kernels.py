"""The loops over rows: compiled or PyTorch's, they give what plain NumPy gives."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopsae.sae import kernels

pytestmark = pytest.mark.usefixtures("path")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
BIAS = pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])

SIZES = {
    "plain": (20, 100, 5),
    "not a multiple of eight": (5, 83, 9),
    "fewer than eight": (4, 5, 2),
    "k = 1": (9, 31, 1),
    "k = d_sae": (6, 24, 24),
    "one latent": (3, 1, 1),
    "one row": (1, 50, 3),
    "over 65,536 latents": (2, 70_001, 6),
}


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def rows_of_all_kinds(rows: int, d_sae: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(rows + d_sae)
    plain = torch.randn(rows, d_sae, generator=generator)
    yield "plain", plain.to(dtype)
    yield "ties", torch.randint(-2, 4, (rows, d_sae), generator=generator).to(dtype)
    yield "few are positive", (plain - 2).to(dtype)
    yield "all are negative", -plain.abs().to(dtype)
    yield "zeros of both signs", torch.zeros(rows, d_sae).where(plain > 0, -0.0).to(dtype)
    yield "rows of all sizes", (plain * 10.0 ** torch.randint(-12, 12, (rows, 1), generator=generator)).to(dtype)


def bias_of(product: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(-1, 2, (product.shape[1],), generator=generator).to(product.dtype)


def added(product: Tensor, bias: Tensor | None) -> NDArray[Any]:
    """product + bias, rounded to their type."""
    pre = product if bias is None else product + bias
    return (pre.float() if pre.dtype == torch.bfloat16 else pre).numpy()


def as_array(t: Tensor) -> NDArray[Any]:
    return (t.float() if t.dtype == torch.bfloat16 else t).numpy()


def seen_before(d_sae: int) -> Tensor:
    positive = torch.zeros(d_sae, dtype=torch.bool)
    positive[0] = True
    return positive


def check_largest(product: Tensor, bias: Tensor | None, k: int, about: str = "") -> None:
    pre, positive = added(product, bias), seen_before(product.shape[1])
    expected_positive = (pre > 0).any(axis=0) | positive.numpy()
    values, latents = kernels.largest(product.clone(), bias, k, positive)
    assert values.dtype == product.dtype
    assert np.array_equal(positive, expected_positive), about
    chosen = np.take_along_axis(pre, latents.numpy(), axis=1)
    assert np.array_equal(as_array(values), chosen), about
    for row, found in zip(pre, latents.numpy(), strict=True):
        assert len(set(found)) == k, about
        # Which of those that are not positive fill the rest is free.
        wanted = np.sort(row)[::-1][:k].clip(min=0)
        assert np.array_equal(np.sort(row[found])[::-1].clip(min=0), wanted), about


def check_above(product: Tensor, bias: Tensor | None, thresholds: Tensor, about: str = "") -> None:
    pre, positive = added(product, bias), seen_before(product.shape[1])
    expected_positive = (pre > 0).any(axis=0) | positive.numpy()
    values, latents, counts = kernels.above(product.clone(), bias, thresholds, positive)
    over = pre > as_array(thresholds.to(product.dtype))
    assert values.dtype == product.dtype
    assert np.array_equal(positive, expected_positive), about
    assert np.array_equal(counts, over.sum(axis=1)), about
    assert np.array_equal(latents, over.nonzero()[1]), about
    assert np.array_equal(as_array(values), pre[over]), about


@DTYPES
@BIAS
@pytest.mark.parametrize("size", SIZES)
def test_the_largest_are_those_of_a_sorted_row(dtype: torch.dtype, with_bias: bool, size: str) -> None:
    rows, d_sae, k = SIZES[size]
    for kind, product in rows_of_all_kinds(rows, d_sae, dtype):
        check_largest(product, bias_of(product) if with_bias else None, k, kind)


@DTYPES
@BIAS
@pytest.mark.parametrize("size", SIZES)
def test_above_are_those_over_their_own_threshold_row_by_row(
    dtype: torch.dtype, with_bias: bool, size: str
) -> None:
    rows, d_sae, _ = SIZES[size]
    # A third of the thresholds is zero; some are met exactly, which is not over.
    thresholds = (torch.arange(d_sae) % 3).to(dtype)
    for kind, product in rows_of_all_kinds(rows, d_sae, dtype):
        bias = bias_of(product) if with_bias else None
        check_above(product, bias, thresholds, kind)
        check_above(product, bias, torch.full_like(thresholds, 1e30), kind)


@BIAS
def test_the_two_paths_choose_the_same_latents(monkeypatch: pytest.MonkeyPatch, with_bias: bool) -> None:
    product = torch.randn(30, 203, generator=torch.Generator().manual_seed(0))
    bias = bias_of(product) if with_bias else None
    found = []
    for _ in range(2):
        values, latents = kernels.largest(product.clone(), bias, 7, seen_before(203))
        order = latents.argsort(dim=1)
        found.append((values.gather(1, order), latents.gather(1, order)))
        monkeypatch.setattr(kernels, "_loops", lambda: None)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@DTYPES
def test_no_rows_have_no_pairs(dtype: torch.dtype) -> None:
    nothing = torch.empty(0, 6, dtype=dtype)
    for bias in (None, torch.ones(6, dtype=dtype)):
        positive = torch.zeros(6, dtype=torch.bool)
        values, latents = kernels.largest(nothing.clone(), bias, 2, positive)
        assert values.shape == latents.shape == (0, 2)
        values, latents, counts = kernels.above(nothing.clone(), bias, torch.zeros(6, dtype=dtype), positive)
        assert len(values) == len(latents) == len(counts) == 0
        assert not positive.any()


# What is not finite


@pytest.mark.parametrize(
    ("dtype", "sign"), [(torch.float32, 1), (torch.float32, -1), (torch.float64, -1), (torch.bfloat16, 1)], ids=str
)
def test_nan_in_a_row_is_chosen_and_changes_no_other_row(dtype: torch.dtype, sign: int) -> None:
    generator = torch.Generator().manual_seed(1)
    nan = torch.tensor(torch.nan, dtype=dtype).copysign(torch.tensor(float(sign), dtype=dtype))
    for n, k in [(2, 1), (9, 4), (17, 17), (40, 6)]:
        for place in range(0, n, 1 + n // 9):
            product = torch.randn(4, n, generator=generator).to(dtype)
            if place % 3 == 0:
                product -= 1.5  # too few are positive
            clean = product.clone()
            product[1, place] = nan
            values, latents = kernels.largest(product.clone(), None, k, seen_before(n))
            assert values[1].isnan().any(), (n, k, place)
            assert len(set(latents[1].tolist())) == k
            others = torch.tensor([0, 2, 3])
            wanted = clean.topk(k, dim=1).values.relu()[others]
            assert torch.equal(values[others].sort(dim=1, descending=True).values.relu(), wanted), (n, k, place)
            values, latents, counts = kernels.above(
                product.clone(), None, torch.full((n,), 0.5, dtype=dtype), seen_before(n)
            )
            at = int(counts[0])
            assert values[at : at + int(counts[1])].isnan().sum() == 1
            assert place in latents[at : at + int(counts[1])].tolist()


def test_rows_of_nan_alone_are_chosen() -> None:
    product = torch.full((3, 11), torch.nan)
    assert kernels.largest(product.clone(), None, 4, seen_before(11))[0].isnan().all()
    assert kernels.above(product.clone(), None, torch.zeros(11), seen_before(11))[2].tolist() == [11, 11, 11]


@DTYPES
def test_infinity_is_the_largest_and_the_rows_after_it_are_right(dtype: torch.dtype) -> None:
    for k in (1, 3):
        product = torch.randn(6, 20, generator=torch.Generator().manual_seed(2)).to(dtype)
        product[1, 2 : 2 + k] = torch.inf
        product[3, 4] = -torch.inf
        check_largest(product, None, k)
        check_above(product, None, torch.full((20,), 0.5, dtype=dtype))


def test_nan_in_the_bias_is_chosen() -> None:
    bias = torch.zeros(12)
    bias[5] = torch.nan
    values, _ = kernels.largest(torch.randn(8, 12), bias, 2, seen_before(12))
    assert values.isnan().any(dim=1).all()


# Layout, threads, repetition


def test_inputs_that_are_not_contiguous_are_read_right() -> None:
    generator = torch.Generator().manual_seed(4)
    wide = torch.randn(24, 2 * 33, generator=generator)
    for product in (wide[:, ::2], wide.T[:33].T, wide[:, :33], torch.randn(33, 5, generator=generator).T):
        bias = torch.randn(66, generator=generator)[::2]
        check_largest(product, bias, 4)
        check_above(product, bias, torch.rand(66, generator=generator)[::2])
        check_above(product, bias, torch.tensor(0.3).expand(33))


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("threads", [1, 3, 7])
def test_any_number_of_threads_even_over_that_of_rows_gives_the_same(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "SMALL", 0)  # else so few values are one thread's
    torch.set_num_threads(threads)
    for rows in (1, 2, 5, 7, 8):
        for kind, product in rows_of_all_kinds(rows, 41, torch.float32):
            check_largest(product, None, 4, kind)
            check_above(product, None, torch.full((41,), 0.5), kind)


@DTYPES
def test_the_same_input_gives_the_same_output(dtype: torch.dtype) -> None:
    for kind, product in rows_of_all_kinds(50, 60, dtype):
        first, second = (kernels.largest(product.clone(), None, 7, seen_before(60)) for _ in range(2))
        assert torch.equal(first[0], second[0]), kind
        assert torch.equal(first[1], second[1]), kind


# Pairs


def some_pairs() -> tuple[Tensor, Tensor, Tensor]:
    """(tokens, latents, where each token's begin); the first, a middle and the last token have none."""
    counts = torch.tensor([0, 3, 1, 0, 4, 0])
    latents = torch.tensor([8, 0, 3, 3, 1, 3, 8, 0])
    return torch.arange(6).repeat_interleave(counts), latents, counts.cumsum(0) - counts


@DTYPES
@pytest.mark.parametrize("d_in", [1, 7, 32])
def test_dots_are_those_of_each_pairs_rows(dtype: torch.dtype, d_in: int) -> None:
    generator = torch.Generator().manual_seed(5)
    x, W = (torch.randn(n, d_in, generator=generator).to(dtype) for n in (6, 9))
    tokens, latents, starts = some_pairs()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2}[dtype] * d_in**0.5
    expected = [as_array(x)[t].astype(float) @ as_array(W)[i] for t, i in zip(tokens, latents, strict=True)]
    strided = torch.stack([x, x], dim=2)[:, :, 0], W.T.contiguous().T
    for of_tokens, of_latents in ((x, W), strided):
        found = kernels.dots(of_tokens, of_latents, tokens, latents, starts)
        assert found.dtype == dtype
        assert found.double().tolist() == pytest.approx(expected, abs=tolerance)


def test_no_pairs_have_no_dots() -> None:
    none = torch.empty(0, dtype=torch.int64)
    starts = torch.zeros(2, dtype=torch.int64)
    assert kernels.dots(torch.ones(2, 3), torch.ones(4, 3), none, none, starts).shape == (0,)


def test_dots_carry_nan() -> None:
    tokens, latents, starts = some_pairs()
    x, W = torch.ones(6, 4), torch.ones(9, 4)
    W[3, 2] = torch.nan
    assert kernels.dots(x, W, tokens, latents, starts).isnan().tolist() == (latents == 3).tolist()


@DTYPES
def test_what_is_left_of_a_gradient_is_orthogonal_to_the_unit_rows(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(6)
    g, W = (torch.randn(10, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    W /= W.norm(dim=1, keepdim=True)
    g, W = g.to(dtype), W.to(dtype)
    expected = as_array(g).copy().astype(float)
    for r, row in enumerate(as_array(W).astype(float)):
        expected[r] -= (expected[r] @ row) * row
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 5e-2}[dtype]
    for gradient in (g.clone(), g.T.contiguous().T):
        kernels.remove_parallel(gradient, W)
        assert np.allclose(as_array(gradient), expected, atol=tolerance)
        assert float((gradient * W).sum(dim=1).abs().max()) < tolerance


def test_pairs_are_grouped_by_latent_and_stay_in_order_within_one() -> None:
    generator = torch.Generator().manual_seed(7)
    for n, d_sae in [(0, 4), (1, 1), (500, 7), (300, 70_000)]:
        latents = torch.randint(0, d_sae, (n,), generator=generator)
        for listed in (latents, torch.stack([latents, latents], dim=1)[:, 0]):
            order = kernels.group(listed, torch.bincount(listed, minlength=d_sae))
            assert order.tolist() == np.argsort(latents.numpy(), kind="stable").tolist()
