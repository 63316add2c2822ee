"""The loops over rows of pre-activations: compiled or PyTorch's, they choose what plain NumPy chooses."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopsae.kernels import choose, dispatch
from tests.ways import without_numba

pytestmark = pytest.mark.usefixtures("path")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
SUMMED = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
BIAS = pytest.mark.parametrize("bias_kind", ["no bias", "bias", "-inf"])
MEMBERS = pytest.mark.parametrize("members", [1, 3])

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


def rows_of_all_kinds(rows: int, d_sae: int, dtype: torch.dtype, members: int = 1) -> Iterator[tuple[str, Tensor]]:
    """Blocks [members, rows, d_sae]."""
    generator, shape = torch.Generator().manual_seed(rows + d_sae), (members, rows, d_sae)
    plain = torch.randn(shape, generator=generator)
    yield "plain", plain.to(dtype)
    yield "ties", torch.randint(-2, 4, shape, generator=generator).to(dtype)
    yield "few are positive", (plain - 2).to(dtype)
    yield "all are negative", -plain.abs().to(dtype)
    yield "zeros of both signs", torch.zeros(shape).where(plain > 0, -0.0).to(dtype)
    sizes = 10.0 ** torch.randint(-12, 12, (members, rows, 1), generator=generator)
    yield "rows of all sizes", (plain * sizes).to(dtype)


def bias_of(product: Tensor, kind: str) -> Tensor | None:
    """Other biases for each member; of "-inf", every third forbids its column."""
    members, _, d_sae = product.shape
    generator = torch.Generator().manual_seed(3)
    bias = torch.randint(-1, 2, (members, d_sae), generator=generator).to(product.dtype)
    if kind == "-inf":
        bias[torch.rand(members, d_sae, generator=generator) < 1 / 3] = -torch.inf
    return None if kind == "no bias" else bias


def added(product: Tensor, bias: Tensor | None) -> NDArray[Any]:
    """product + bias, rounded to their type."""
    return as_array(product if bias is None else product + bias[:, None])


def as_array(t: Tensor) -> NDArray[Any]:
    return (t.float() if t.dtype == torch.bfloat16 else t).numpy()


def seen_before(product: Tensor) -> Tensor:
    """The first column of each member was positive before."""
    positive = torch.zeros(len(product), product.shape[2], dtype=torch.bool)
    positive[:, 0] = True
    return positive


def check_chosen(pre: NDArray[Any], values: Tensor, latents: Tensor, k: int, about: str) -> None:
    """pre [members, rows, d_sae]."""
    assert np.array_equal(as_array(values), np.take_along_axis(pre, latents.numpy(), axis=2)), about
    for row, found in zip(pre.reshape(-1, pre.shape[2]), latents.flatten(0, 1).numpy(), strict=True):
        assert len(set(found)) == k, about
        # Which of those that are not positive fill the rest is free.
        wanted = np.sort(row)[::-1][:k].clip(min=0)
        assert np.array_equal(np.sort(row[found])[::-1].clip(min=0), wanted), about


def check_largest(product: Tensor, bias: Tensor | None, k: int, about: str = "") -> None:
    pre, positive = added(product, bias), seen_before(product)
    expected_positive = (pre > 0).any(axis=1) | positive.numpy()
    values, latents = choose.largest(product.clone(), bias, k, positive)
    assert values.dtype == product.dtype
    assert np.array_equal(positive, expected_positive), about
    check_chosen(pre, values, latents, k, about)


def check_above(product: Tensor, bias: Tensor | None, thresholds: Tensor, about: str = "") -> None:
    """thresholds [members, d_sae]."""
    pre, positive = added(product, bias), seen_before(product)
    expected_positive = (pre > 0).any(axis=1) | positive.numpy()
    values, latents, counts = choose.above(product.clone(), bias, thresholds, positive)
    over = pre > as_array(thresholds.to(product.dtype))[:, None]
    assert values.dtype == product.dtype
    assert np.array_equal(positive, expected_positive), about
    assert np.array_equal(counts, over.sum(axis=2).flatten()), about
    assert np.array_equal(latents, over.nonzero()[2]), about
    assert np.array_equal(as_array(values), pre[over]), about


@DTYPES
@BIAS
@MEMBERS
@pytest.mark.parametrize("size", SIZES)
def test_the_largest_are_those_of_a_sorted_row(dtype: torch.dtype, bias_kind: str, members: int, size: str) -> None:
    rows, d_sae, k = SIZES[size]
    for kind, product in rows_of_all_kinds(rows, d_sae, dtype, members):
        check_largest(product, bias_of(product, bias_kind), k, kind)


@DTYPES
@BIAS
@MEMBERS
@pytest.mark.parametrize("size", SIZES)
def test_above_are_those_over_their_own_threshold_row_by_row(
    dtype: torch.dtype, bias_kind: str, members: int, size: str
) -> None:
    rows, d_sae, _ = SIZES[size]
    # A third of the thresholds is zero; some are met exactly, which is not over; members have others.
    thresholds = ((torch.arange(d_sae) + torch.arange(members)[:, None]) % 3).to(dtype)
    for kind, product in rows_of_all_kinds(rows, d_sae, dtype, members):
        bias = bias_of(product, bias_kind)
        check_above(product, bias, thresholds, kind)
        check_above(product, bias, torch.full_like(thresholds, 1e30), kind)


@BIAS
def test_the_two_paths_choose_the_same_latents(monkeypatch: pytest.MonkeyPatch, bias_kind: str) -> None:
    product = torch.randn(2, 15, 203, generator=torch.Generator().manual_seed(0))
    bias = bias_of(product, bias_kind)
    found = []
    for _ in range(2):
        values, latents = choose.largest(product.clone(), bias, 7, seen_before(product))
        order = latents.argsort(dim=2)
        found.append((values.gather(2, order), latents.gather(2, order)))
        without_numba(monkeypatch)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@DTYPES
@MEMBERS
def test_no_rows_have_no_pairs(dtype: torch.dtype, members: int) -> None:
    nothing = torch.empty(members, 0, 6, dtype=dtype)
    zeros = torch.zeros(members, 6, dtype=dtype)
    for bias in (None, zeros + 1):
        positive = torch.zeros(members, 6, dtype=torch.bool)
        values, latents = choose.largest(nothing.clone(), bias, 2, positive)
        assert values.shape == latents.shape == (members, 0, 2)
        values, latents, counts = choose.above(nothing.clone(), bias, zeros, positive)
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
            product = torch.randn(2, 2, n, generator=generator).to(dtype)
            if place % 3 == 0:
                product -= 1.5  # too few are positive
            clean = product.clone().flatten(0, 1)
            product[0, 1, place] = nan
            found, which = choose.largest(product.clone(), None, k, seen_before(product))
            values, latents = found.flatten(0, 1), which.flatten(0, 1)
            assert values[1].isnan().any(), (n, k, place)
            assert len(set(latents[1].tolist())) == k
            others = torch.tensor([0, 2, 3])
            wanted = clean.topk(k, dim=1).values.relu()[others]
            assert torch.equal(values[others].sort(dim=1, descending=True).values.relu(), wanted), (n, k, place)
            values, latents, counts = choose.above(
                product.clone(), None, torch.full((2, n), 0.5, dtype=dtype), seen_before(product)
            )
            at = int(counts[0])
            assert values[at : at + int(counts[1])].isnan().sum() == 1
            assert place in latents[at : at + int(counts[1])].tolist()


def test_rows_of_nan_alone_are_chosen() -> None:
    product = torch.full((1, 3, 11), torch.nan)
    assert choose.largest(product.clone(), None, 4, seen_before(product))[0].isnan().all()
    counts = choose.above(product.clone(), None, torch.zeros(1, 11), seen_before(product))[2]
    assert counts.tolist() == [11, 11, 11]


@DTYPES
@MEMBERS
def test_infinity_is_the_largest_and_the_rows_after_it_are_right(dtype: torch.dtype, members: int) -> None:
    for k in (1, 3):
        product = torch.randn(members, 6, 20, generator=torch.Generator().manual_seed(2)).to(dtype)
        product[0, 1, 2 : 2 + k] = torch.inf
        product[0, 3, 4] = -torch.inf
        check_largest(product, None, k)
        check_above(product, None, torch.full((members, 20), 0.5, dtype=dtype))


def test_nan_in_the_bias_of_a_member_is_chosen_there_alone() -> None:
    bias = torch.zeros(2, 12)
    bias[1, 5] = torch.nan
    product = torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(2))
    values, _ = choose.largest(product.clone(), bias, 2, seen_before(product))
    assert values.isnan().any(dim=2).tolist() == [[False] * 8, [True] * 8]
    found, latents, counts = choose.above(product.clone(), bias, torch.full((2, 12), 9.0), seen_before(product))
    assert counts.tolist() == [0] * 8 + [1] * 8
    assert found.isnan().all()
    assert latents.tolist() == [5] * 8


# Layout, threads, repetition


def test_inputs_that_are_not_contiguous_are_read_right() -> None:
    generator = torch.Generator().manual_seed(4)
    wide = torch.randn(2, 24, 2 * 33, generator=generator)
    narrow = torch.randn(2, 33, 5, generator=generator).mT
    for product in (wide[:, :, ::2], wide.mT[:, :33].mT, wide[:, :, :33], narrow, wide[:, ::2, :33]):
        bias = torch.randn(2, 66, generator=generator)[:, ::2]
        check_largest(product, bias, 4)
        check_above(product, bias, torch.rand(2, 66, generator=generator)[:, ::2])
        check_above(product, bias, torch.tensor(0.3).expand(2, 33))


@pytest.mark.usefixtures("restored_threads")
@MEMBERS
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_even_over_that_of_rows_gives_the_same(
    threads: int, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "SMALL", 0)  # else so few values are one thread's
    torch.set_num_threads(threads)
    for rows in (1, 2, 5, 7, 8):
        for kind, product in rows_of_all_kinds(rows, 41, torch.float32, members):
            bias = bias_of(product, "bias")
            check_largest(product, bias, 4, kind)
            check_above(product, bias, torch.full((members, 41), 0.5), kind)


@DTYPES
def test_the_same_input_gives_the_same_output(dtype: torch.dtype) -> None:
    for kind, product in rows_of_all_kinds(50, 60, dtype):
        first, second = (choose.largest(product.clone(), None, 7, seen_before(product)) for _ in range(2))
        assert torch.equal(first[0], second[0]), kind
        assert torch.equal(first[1], second[1]), kind


# By latent


def by_latent_of(product: Tensor, bias: Tensor | None, k: int, positive: Tensor) -> tuple[Tensor, Tensor]:
    members, rows, _ = product.shape
    # Into a part of larger tensors, as the blocks of a batch are.
    values = product.new_empty(members, rows + 2, k)
    latents = torch.empty(members, rows + 2, k, dtype=torch.int64)
    parts = values[:, 1:-1], latents[:, 1:-1]
    choose.largest_by_latent(product.mT.contiguous(), bias, positive, *parts)
    return parts


@SUMMED
@BIAS
@MEMBERS
@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize(
    ("rows", "d_sae", "k"), [(20, 100, 5), (255, 9, 2), (256, 7, 7), (257, 5, 1), (530, 3, 3), (1, 1, 1), (0, 4, 2)]
)
def test_the_largest_by_latent_are_those_of_a_sorted_row(
    path: str, dtype: torch.dtype, bias_kind: str, members: int, rows: int, d_sae: int, k: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    W_enc = torch.empty(members, d_sae, 1, dtype=dtype)
    assert choose.has_largest_by_latent(W_enc, k) == (path == "compiled")
    if path == "PyTorch":
        return
    monkeypatch.setattr(dispatch, "SMALL", 0)
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        for kind, product in rows_of_all_kinds(rows, d_sae, dtype, members):
            bias, positive = bias_of(product, bias_kind), seen_before(product)
            pre = added(product, bias)
            expected = (pre > 0).any(axis=1) | positive.numpy()
            values, latents = by_latent_of(product, bias, k, positive)
            assert np.array_equal(positive, expected), kind
            check_chosen(pre, values, latents, k, kind)


@SUMMED
def test_by_latent_nan_is_chosen_and_changes_no_other_row(path: str, dtype: torch.dtype) -> None:
    if path == "PyTorch":
        pytest.skip("there is a loop alone")
    for place, row in [(0, 0), (3, 255), (7, 256), (4, 299)]:
        product = torch.randn(2, 300, 8, generator=torch.Generator().manual_seed(6)).to(dtype)
        wanted = product.topk(3, dim=2).values
        product[1, row, place] = torch.nan
        values, latents = by_latent_of(product, None, 3, seen_before(product))
        assert values[1, row].isnan().any()
        assert len(set(latents[1, row].tolist())) == 3
        others = torch.ones(2, 300, dtype=torch.bool)
        others[1, row] = False
        assert torch.equal(values.sort(dim=2, descending=True).values[others], wanted[others])


def test_by_latent_is_for_few_latents_and_a_small_k_on_the_processor(path: str) -> None:
    def is_for(dtype: torch.dtype, d_sae: int, k: int, device: str = "cpu") -> bool:
        return choose.has_largest_by_latent(torch.empty(1, d_sae, 1, dtype=dtype, device=device), k)

    compiled = path == "compiled"
    assert is_for(torch.float32, 128, 16) == is_for(torch.float64, 2048, 1) == compiled
    assert not is_for(torch.float32, 129, 16)
    assert not is_for(torch.float32, 17, 17)
    assert not is_for(torch.bfloat16, 128, 16)
    assert not is_for(torch.float32, 128, 16, "meta")
