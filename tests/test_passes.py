import re
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from torch import Tensor

import autopsae
from autopsae.arrays import InputError, Tokens, chunks
from autopsae.passes import Digest, SamePasses, same_passes

pytestmark = pytest.mark.quick

X = torch.randn(6000, 16, generator=torch.Generator().manual_seed(7)) * torch.linspace(0.1, 3, 16) + 1


class Changing:
    """Batches that are a function of the number of the pass, from 1."""

    def __init__(self, batches: Callable[[int], list[Tensor]]) -> None:
        self._batches, self._passes = batches, count(1)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches(next(self._passes)))


class OneBuffer:
    """A loader that refills one tensor, as those with pinned memory do."""

    def __init__(self, x: Tensor, size: int) -> None:
        self._x, self._buffer = x, torch.empty(size, x.shape[1])

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._x.split(len(self._buffer)):
            self._buffer[: len(batch)].copy_(batch)
            yield self._buffer[: len(batch)]
            self._buffer.fill_(torch.nan)  # whoever looks later reads nonsense


def an_sae() -> autopsae.SAE:
    prescription = autopsae.diagnose(X, d_sae=64, k=4).prescription
    drawn = torch.Generator().manual_seed(0)
    return autopsae.born(prescription, d_sae=64, sparsity=autopsae.TopK(k=4), sample=X[:500], generator=drawn)


USES: dict[str, Callable[[Tokens], object]] = {
    "diagnose": lambda tokens: autopsae.diagnose(tokens, d_sae=64, k=4).to_dict(),
    "median": lambda tokens: autopsae.geometric_median(tokens, sample=X[:2000]).tolist(),
    "evaluate": lambda tokens: autopsae.evaluate(an_sae(), tokens).fvu_raw,
    "autopsy": lambda tokens: autopsae.autopsy(an_sae(), tokens).to_dict(),
    "train": lambda tokens: autopsae.train(
        an_sae(), tokens, autopsae.TrainConfig(steps=30, lr=1e-3, batch_tokens=512, buffer_tokens=1024)
    ),
}


@pytest.mark.parametrize("size", [1, 500, 1000, 2048, 5000])
def test_a_source_that_refills_one_buffer_is_read_as_one_that_does_not(size: int) -> None:
    pieces = list(chunks(OneBuffer(X, size), 700))
    assert torch.equal(torch.cat(pieces), X)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_every_result_is_the_same_from_a_source_that_refills_one_buffer(use: Callable[[Tokens], object]) -> None:
    assert use(OneBuffer(X, 500)) == use(list(X.split(500)))


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (lambda n: list((X + 10 * n).split(500)), "got other values in 6,000 tokens"),
        (lambda n: list(X[: 6000 - 500 * (n > 1)].split(500)), "got 5,500 tokens instead of 6,000"),
    ],
    ids=["other values", "fewer tokens"],
)
def test_passes_that_differ_are_told_and_never_mixed(
    use: Callable[[Tokens], object], batches: Callable[[int], list[Tensor]], message: str
) -> None:
    with pytest.raises(InputError, match=f"expected a source that yields the same tokens in every pass, {message}"):
        use(Changing(batches))


def test_tokens_in_another_order_and_other_batches_are_the_same_tokens() -> None:
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(1))
    tokens = SamePasses(Changing(lambda n: list((X if n == 1 else X[order]).split(499 + n))))
    assert [sum(map(len, tokens)) for _ in range(3)] == [6000] * 3


def test_a_pass_that_is_broken_off_is_not_compared() -> None:
    tokens = SamePasses(X.split(500))
    next(iter(tokens))
    assert tokens.first is None
    list(tokens)
    next(iter(tokens))
    assert tokens.first == tokens.first


def test_one_changed_token_of_many_changes_the_digest_and_rounding_does_not() -> None:
    changed = X.clone()
    changed[17] += 1
    assert not Digest.of(changed).same(Digest.of(X))
    assert Digest.of(X * (1 + 1e-7)).same(Digest.of(X))
    assert not Digest.of(X[1:]).same(Digest.of(X))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_told_as_such_and_not_as_other_tokens(bad: float) -> None:
    x = X.clone()
    x[7, 3] = bad
    with pytest.raises(InputError, match="NaN or infinite values in 1 of 6,000 tokens, the first at token 7"):
        autopsae.diagnose(x.split(500), d_sae=64, k=4)


def test_digests_of_parts_add_up() -> None:
    summed = Digest.of(X[:100]) + Digest.of(X[100:])
    assert summed.same(Digest.of(X))
    assert summed.tokens == 6000


def test_a_matrix_and_what_is_compared_already_stay_as_they_are() -> None:
    compared = SamePasses(X.split(10))
    assert same_passes(X) is X
    assert same_passes(compared) is compared


def test_rows_that_numpy_masks_are_left_out() -> None:
    x, masked = X.numpy(), np.zeros(len(X), bool)
    masked[::3] = True
    given = np.ma.masked_array(np.where(masked[:, None], 1e4, x), mask=np.repeat(masked[:, None], 16, 1))
    assert torch.equal(torch.cat(list(chunks(given))), X[~torch.from_numpy(masked)])
    assert torch.equal(torch.cat(list(chunks([given[:100], given[100:]]))), X[~torch.from_numpy(masked)])


def test_a_mask_on_some_dimensions_of_a_token_is_refused() -> None:
    masked = np.zeros(X.shape, bool)
    masked[5, 3] = True
    given = np.ma.masked_array(X.numpy(), mask=masked)
    with pytest.raises(InputError, match=r"a mask that leaves out whole tokens, got 1 rows .* row 5"):
        list(chunks(given))


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", "<f4"])
def test_an_array_in_another_byte_order_is_used_as_what_it_says(dtype: str) -> None:
    x = X.numpy().astype(dtype)
    assert torch.equal(torch.cat(list(chunks(x))), torch.from_numpy(x.astype(np.float32)))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (X.numpy().astype(np.longdouble), "float16, float32 or float64), got float128"),
        (np.array([[None] * 16] * 99), "got object"),
        (np.zeros((5, 3), complex), "got complex128"),
        (np.zeros((5, 3), int), "got int64"),
        (X.to_sparse(), "expected a dense matrix with values, got a torch.sparse_coo tensor"),
        (torch.empty(5, 3, device="meta"), "got a meta tensor"),
        (torch.zeros(5, 3, dtype=torch.complex64), "got shape (5, 3) of torch.complex64"),
        (
            default_rng(0).standard_normal((9, 4)) * 1e300,
            "expected activations that torch.float32 can hold, got larger",
        ),
    ],
)
def test_arrays_that_are_no_real_numbers_are_named(tokens: Tokens, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        list(chunks(tokens))


def test_float8_is_read() -> None:
    x = X[:50].to(torch.float8_e4m3fn)
    assert torch.equal(torch.cat(list(chunks([x]))), x.float())
