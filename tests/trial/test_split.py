"""What a trial is judged on: documents of which it saw no token."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens, matrix
from autopsae.trial.split import MOST, split_tokens

N = 1000


def numbered(n: int = N) -> Float[Tensor, "tokens 2"]:
    return torch.stack([torch.arange(float(n)), torch.ones(n)], dim=1)


def places(tokens: Tokens) -> list[int]:
    return [int(place) for place in matrix(tokens)[:, 0]]


@pytest.mark.parametrize("sizes", [[10] * 100, [1, 99, 300, 7, 93, 200, 300]])
def test_whole_documents_are_held_out_and_the_others_trained_on(sizes: Sequence[int]) -> None:
    documents = np.repeat(np.arange(len(sizes)) * 3, sizes)
    training, held, by_document = split_tokens(numbered(), documents, held_out=95)
    assert by_document
    assert sorted(places(training) + places(held)) == list(range(N))
    assert not {*documents[places(training)]} & {*documents[places(held)]}
    assert len(places(held)) >= 95


def test_documents_are_drawn_by_the_seed_and_again_the_same() -> None:
    documents = np.repeat(np.arange(100), 10)
    drawn = [places(split_tokens(numbered(), documents, held_out=50, seed=seed)[1]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 50


def test_a_document_that_is_too_large_to_be_held_out_is_split() -> None:
    one = np.zeros(N, dtype=int)
    training, held, by_document = split_tokens(numbered(), one, held_out=100)
    assert not by_document
    assert len(places(held)) == 100
    assert len(places(training)) == N - 100
    # Half of the tokens are still held out as a document, one more is not.
    for size, whole in ((N // 2, True), (N // 2 + 1, False)):
        halves = (np.arange(N) >= size).astype(int)
        said = {split_tokens(numbered(), halves, held_out=N // 2 - 1, seed=seed)[2] for seed in range(8)}
        assert whole in said


def test_a_tenth_is_held_out_and_no_more_than_twenty_thousand() -> None:
    assert len(places(split_tokens(numbered())[1])) == N // 10
    assert len(places(split_tokens(numbered(MOST * 10 + 30))[1])) == MOST


def test_a_source_that_knows_its_documents_is_split_by_them() -> None:
    class Known(list[Tensor]):
        documents = np.repeat(np.arange(100), 10)

    assert split_tokens(Known([numbered()]), held_out=50)[2]
    assert not split_tokens([numbered()], held_out=50)[2]


def test_documents_of_another_number_are_refused() -> None:
    with pytest.raises(
        InputError, match=re.escape("for each of 1,000 tokens, got int64 of shape (999,); pass the number")
    ):
        split_tokens(numbered(), np.zeros(999, int))


@pytest.mark.parametrize("documents", [None, np.repeat(np.arange(100), 10)])
@pytest.mark.parametrize("held_out", [0, -5, N])
def test_a_number_of_held_out_tokens_that_cannot_be_is_refused(documents: object, held_out: int) -> None:
    with pytest.raises(InputError, match=f"expected 1 to 999 tokens to hold out of 1,000, got {held_out:,}"):
        split_tokens(numbered(), documents, held_out=held_out)  # type: ignore[arg-type]
