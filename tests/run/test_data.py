"""Laws of holding out: a tenth and at most 100,000, spread over all, and no token on both sides or on none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from autopsae.activations.spread import spread
from autopsae.activations.store import open_activations
from autopsae.arrays import InputError, Tokens
from autopsae.passes import known_tokens, source_documents
from autopsae.run import data
from autopsae.run.data import Counted, at_most, count_tokens, hold_out

pytestmark = pytest.mark.quick


def numbered(n: int) -> torch.Tensor:
    """Tokens that say which they are."""
    return torch.arange(n, dtype=torch.float64)[:, None].expand(-1, 3).contiguous()


class Stream:
    """Nothing but an iteration tells how many tokens there are."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.passes, self._matrix = 0, matrix

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.passes += 1
        return iter(self._matrix.split(777))


def read(tokens: Tokens) -> list[int]:
    return [int(row[0]) for batch in tokens for row in batch]


SOURCES: dict[str, Callable[[torch.Tensor], Tokens]] = {
    "matrix": lambda x: x,
    "numpy": lambda x: x.numpy(),
    "list": lambda x: [*x.split(1000)],
    "stream": Stream,
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("held_out", [None, 1, 500, 4999])
def test_every_token_is_either_trained_on_or_held_out(kind: str, held_out: int | None, tmp_path: Path) -> None:
    x = numbered(5000)
    training, held = hold_out(SOURCES[kind](x), held_out)
    assert held.tokens == (500 if held_out is None else held_out)
    assert training.tokens + held.tokens == 5000
    assert sorted(read(training) + read(held)) == [*range(5000)]
    assert (len(read(training)), len(read(held))) == (training.tokens, held.tokens)
    # The same tokens as of a file.
    np.save(tmp_path / "x.npy", x.numpy())
    of_file = hold_out(open_activations(tmp_path / "x.npy"), held_out)
    assert [read(part) for part in of_file] == [read(training), read(held)]
    assert read(held) == read(held)


@pytest.mark.parametrize(("total", "expected"), [(2, 1), (19, 1), (20, 2), (4500, 450), (999_999, 99_999)])
def test_a_tenth_is_held_out(total: int, expected: int) -> None:
    training, held = hold_out(torch.zeros(total, 1))
    assert (training.tokens, held.tokens) == (total - expected, expected)


@pytest.mark.parametrize("total", [1_000_000, 1_000_010, 1_200_000])
def test_at_most_100_000_are_held_out(total: int) -> None:
    assert hold_out(torch.zeros(total, 1))[1].tokens == 100_000


@pytest.mark.parametrize(("total", "held_out"), [(10, 10), (10, 0), (10, -1), (1, None)])
def test_holding_out_all_or_none_is_refused(total: int, held_out: int | None) -> None:
    got = 1 if held_out is None else held_out
    with pytest.raises(InputError, match=f"expected 1 to {total - 1} tokens to hold out of {total}, got {got}"):
        hold_out(numbered(total), held_out)


def test_at_most_so_many_are_spread_over_all() -> None:
    x = numbered(100)
    assert at_most(x, 100) is x
    few = at_most(x, 7)
    assert read(few) == spread(0, 100, chosen=7, of=100).tolist()
    assert count_tokens(few) == 7


def test_tokens_are_counted_by_a_pass_only_where_nothing_else_tells() -> None:
    x, stream = numbered(5000), Stream(numbered(5000))
    assert known_tokens(stream) is None
    assert stream.passes == 0
    assert count_tokens(stream) == 5000
    assert known_tokens(Counted(stream, 5000)) == 5000
    assert read(Counted(stream, 5000)) == [*range(5000)]
    for kind in ("matrix", "numpy", "list"):
        assert known_tokens(SOURCES[kind](x)) == 5000
    assert known_tokens([*zip(x.split(1000))]) is None  # as a DataLoader gives them


def test_the_numbers_are_the_papers() -> None:
    assert (data.SHARE, data.MOST, data.ON_THE_WAY) == (10, 100_000, 4096)


class WithDocuments(Stream):
    documents = np.arange(50) // 5


def test_tokens_that_are_spread_keep_their_documents() -> None:
    source = WithDocuments(numbered(50))
    training, held_out = hold_out(source, 12)
    for part in (training, held_out, at_most(source, 7)):
        assert source_documents(part).tolist() == [place // 5 for place in read(part)]
    assert source_documents(at_most(Stream(numbered(50)), 7)) is None
