"""Laws of top activations: the largest are the largest, the spread is over quantiles, the context is the text."""

import json

import numpy as np
import pytest

from autopsae.arrays import InputError
from autopsae.features.examples import SAMPLE, top_activations
from autopsae.features.largest import LargestPerLatent
from autopsae.features.token_table import TokenTable
from tests.features.sources import codes_of, sparse_matrix

pytestmark = pytest.mark.quick

OF = np.repeat(np.arange(10), 20)


def text_table() -> TokenTable:
    letters = "abcdefghijklmnopqrst"
    place = np.tile(np.arange(20), 10)
    return TokenTable(documents=OF, starts=place, ends=place + 1, texts=tuple(letters * 10))


@pytest.mark.parametrize("block", [3, 64, 1000])
def test_the_top_tokens_of_every_latent_are_those_of_a_sort_and_ties_go_to_the_earliest(block: int) -> None:
    dense = sparse_matrix(200, 9)
    dense[:, 6] = 0
    dense[3:6, 7] = 64
    tops = top_activations(codes_of(dense, OF, block), top=5)
    for latent in range(9):
        order = [t for t in np.argsort(-dense[:, latent], kind="stable")[:5] if dense[t, latent] > 0]
        examples = tops.of_latent(latent)
        assert [example.token for example in examples.top] == order
        assert [example.value for example in examples.top] == dense[order, latent].tolist()
        assert examples.fired == int((dense[:, latent] > 0).sum())
    assert str(tops) == "top activations of 8 live latents of 9, on 200 tokens"
    assert tops.of_latent(6).top == tops.of_latent(6).spread == ()


def test_the_spread_of_a_latent_that_fires_seldom_is_at_the_quantiles_of_all_its_firings() -> None:
    dense = np.zeros((200, 1))
    dense[:41, 0] = np.random.default_rng(0).permutation(41) + 1
    spread = top_activations(codes_of(dense, OF), spread=5).of_latent(0).spread
    assert [example.value for example in spread] == [41, 31, 21, 11, 1]
    assert [round(example.quantile * 41) for example in spread] == [41, 31, 21, 11, 1]


def test_the_sample_of_a_latent_that_fires_often_is_uniform_and_the_same_for_any_blocks() -> None:
    dense = np.arange(1, 5001, dtype=float)[:, None] @ np.ones((1, 20))
    one, two = (top_activations(codes_of(dense, block=block)) for block in (100, 512))
    np.testing.assert_array_equal(one.sample.tokens, two.sample.tokens)
    drawn = one.sample.tokens
    assert drawn.shape == (20, SAMPLE)
    assert all(len({*row}) == SAMPLE for row in drawn)
    assert abs(drawn.mean() / 5000 - 0.5) < 3 * 0.289 / np.sqrt(drawn.size)
    assert not np.array_equal(np.sort(drawn[0]), np.sort(drawn[1]))


def test_the_context_is_of_the_same_document() -> None:
    dense = np.zeros((200, 2))
    dense[41, 0], dense[59, 0], dense[30, 1] = 3.0, 2.0, 1.0
    tops = top_activations(codes_of(dense, OF))
    first, last = tops.of_latent(0, text_table(), window=3).top
    assert (first.document, first.position, first.before, first.text, first.after) == (2, 1, "a", "b", "cde")
    assert (last.document, last.position, last.before, last.text, last.after) == (2, 19, "qrs", "t", "")
    [plain] = tops.of_latent(1).top
    assert (plain.document, plain.position, plain.before, plain.text) == (1, 10, None, None)
    held = json.loads(json.dumps(tops.to_dict([0, 1], text_table())))
    assert [latent["latent"] for latent in held["latents"]] == [0, 1]
    assert held["latents"][0]["top"][0]["text"] == "b"


def test_without_documents_the_table_of_tokens_tells_them() -> None:
    dense = np.zeros((200, 1))
    dense[41, 0] = 1.0
    tops = top_activations(codes_of(dense))
    assert tops.of_latent(0).top[0].document is None
    assert tops.of_latent(0, text_table(), window=2).top[0].before == "a"


def test_bad_requests_are_one_clear_line() -> None:
    codes = codes_of(sparse_matrix(200, 3), OF)
    tops = top_activations(codes)
    with pytest.raises(InputError, match="latent: expected 0 to 2, got 3"):
        tops.of_latent(3)
    with pytest.raises(InputError, match="window: expected at least 0 tokens, got -1"):
        tops.of_latent(0, window=-1)
    with pytest.raises(InputError, match="token table: expected a row for each of 200 tokens of the source, got 7"):
        tops.of_latent(0, text_table().first(7))
    with pytest.raises(InputError, match="token table: expected a row for each of 200 tokens, got 7"):
        top_activations(codes_of(sparse_matrix(200, 3))).of_latent(0, text_table().first(7))
    with pytest.raises(InputError, match="expected top and spread of at least 1, got 0 and 10"):
        top_activations(codes, top=0)


def test_a_latent_that_never_fires_has_no_key() -> None:
    largest = LargestPerLatent(3, 2)
    for block in codes_of(np.array([[0.0, 1, 0], [0, 2, 0], [0, 3, 0]])):
        largest.add(block, block.values.astype(np.float64))
    assert largest.tokens.tolist() == [[-1, -1], [2, 1], [-1, -1]]
    assert np.isinf(largest.keys[0]).all()
