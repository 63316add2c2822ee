import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import autopsae
from autopsae.arrays import InputError, Tokens, chunks

pytestmark = pytest.mark.quick


class Batches:
    """A re-iterable that is not a list."""

    def __init__(self, *sizes: int, d_in: int = 3) -> None:
        self.x = torch.randn(sum(sizes), d_in, generator=torch.Generator().manual_seed(0))
        self.sizes = sizes

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.x.split(self.sizes))


@pytest.mark.parametrize("sizes", [(10,), (1,) * 10, (3, 4, 3), (7, 0, 3)])
@pytest.mark.parametrize("size", [1, 4, 10, 99])
def test_chunks_keep_every_token_in_order_whatever_the_batches(sizes: tuple[int, ...], size: int) -> None:
    batches = Batches(*sizes)
    pieces = list(chunks(batches, size))
    assert torch.equal(torch.cat(pieces), batches.x)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= size


def an_sae() -> autopsae.SAE:
    generator = torch.Generator().manual_seed(0)
    return autopsae.born(
        autopsae.remedies.untouched(3), d_sae=16, sparsity=autopsae.TopK(k=2), scaled=False, generator=generator
    )


class Broken(Exception):
    """An exception that only a user's own source raises."""


class Breaking:
    """A source that fails at a batch of its own; at none, when a pass is begun."""

    def __init__(self, at: int | None, error: Exception) -> None:
        self.at, self.error = at, error

    def __iter__(self) -> Iterator[torch.Tensor]:
        if self.at is None:
            raise self.error
        return self._batches()

    def _batches(self) -> Iterator[torch.Tensor]:
        yield from torch.randn(self.at or 0, 50, 3, generator=torch.Generator().manual_seed(0))
        raise self.error


@pytest.mark.parametrize("at", [None, 0, 3])
@pytest.mark.parametrize(
    "use",
    [
        lambda tokens: list(chunks(tokens)),
        lambda tokens: autopsae.diagnose(tokens, d_sae=16, k=2),
        lambda tokens: autopsae.train(an_sae(), tokens, autopsae.TrainConfig(steps=2, batch_tokens=4, lr=0.1)),
        lambda tokens: autopsae.autopsy(an_sae(), tokens),
    ],
)
def test_a_source_s_own_exception_stays_what_it_is_and_says_at_which_batch(at: int | None, use: Any) -> None:
    error = Broken("disk gone")
    with pytest.raises(Broken) as caught:
        use(Breaking(at, error))
    assert caught.value is error
    assert caught.value.__notes__ == [
        f"autopsae: the source of tokens raised this where batch {at or 0} of a pass was asked for; every file "
        "that was written before is whole: mend the source and run the same again"
    ]


def test_an_input_error_of_a_source_of_ours_gets_no_note() -> None:
    with pytest.raises(InputError, match=r"^short$") as caught:
        list(chunks(Breaking(2, InputError("short"))))
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_matrix_of_numpy_or_torch_is_a_stream_of_its_rows(dtype: type) -> None:
    x: NDArray[Any] = np.arange(12).reshape(4, 3).astype(dtype)
    for tokens in (x, torch.from_numpy(x)):
        assert torch.equal(torch.cat(list(chunks(tokens, 3))), torch.from_numpy(x).float())


def test_batches_of_a_data_loader_are_unwrapped() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(12.0).reshape(6, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    assert torch.equal(torch.cat(list(chunks(loader))), data.tensors[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_reported_by_token_and_count(bad: float) -> None:
    x = torch.zeros(5000, 3)
    x[[3100, 3100, 4999], [0, 2, 1]] = bad
    for tokens in (x, list(x.split(77))):
        with pytest.raises(
            InputError, match=r"in 2 of 5,000 tokens, the first at token 3,100 of those read; drop those"
        ):
            list(chunks(tokens))


def test_opposite_infinities_do_not_cancel() -> None:
    with pytest.raises(InputError, match="the first at token 1"):
        list(chunks(torch.tensor([[0.0, 0.0], [torch.inf, -torch.inf]])))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(0, 3), "expected at least one token, got none"),
        ([], "expected at least one token, got none"),
        (torch.zeros(3), "expected a matrix [tokens, d_in], got shape (3,)"),
        (torch.zeros(2, 3, 4), "expected a matrix [tokens, d_in], got shape (2, 3, 4)"),
        ([torch.zeros(2, 3, 4)], "batch 0: expected a floating-point matrix [tokens, d_in], got shape (2, 3, 4)"),
        ([torch.zeros(2, 3, dtype=torch.int64)], "got shape (2, 3) of torch.int64"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], "batch 1: expected d_in = 3 as in the batches before it, got 4"),
        ([[1.0, 2.0]], "batch 0: expected a torch or NumPy matrix [tokens, d_in], got list"),
        ("x.npy", "got str; open files with open_activations"),
        (
            {"hs0": torch.zeros(2, 3)},
            "got dict; open files with open_activations, and give several layers to survey",
        ),
        (iter([torch.zeros(2, 3)]), "got a one-shot iterator; pass a list of batches"),
    ],
)
def test_input_that_is_no_token_matrix_says_what_came(tokens: Tokens, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        list(chunks(tokens))
