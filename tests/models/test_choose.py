"""Which pieces are read where there are more than wanted."""

from collections import Counter

import pytest

from autopsae.arrays import InputError
from autopsae.models import choose_pieces
from autopsae.models.network import Document
from tests.models.words import Words

pytestmark = pytest.mark.quick

LONG = "a" * 8000
SHORT = [letter * 8 for letter in "bcdefghij"]


def test_all_is_read_where_no_more_is_wanted_than_there_is_and_pieces_keep_their_order() -> None:
    pieces = choose_pieces(Words(), ["abcdefghijkl", "xyz"], tokens=100, context=5)
    of = {number: [piece.content for piece in pieces if piece.document == number] for number in (0, 1)}
    assert of == {0: ["abcde", "fghij", "kl"], 1: ["xyz"]}
    assert sum(piece.tokens for piece in pieces) == 15


def test_a_long_document_does_not_take_the_place_of_others() -> None:
    pieces = choose_pieces(Words(), [LONG, *SHORT], tokens=80, context=8)
    assert Counter(piece.document for piece in pieces) == Counter(range(10))


def test_later_pieces_of_a_document_are_as_likely_as_its_first() -> None:
    text = "".join(chr(40 + n) * 8 for n in range(60))
    first = [choose_pieces(Words(), [text], tokens=80, context=8, seed=seed) for seed in range(40)]
    places = [(ord(piece.content[0]) - 40) for pieces in first for piece in pieces]
    assert len(places) == 400
    assert 25 < sum(places) / 400 < 34  # 29.5 if all are equally likely


def test_documents_at_the_end_of_a_long_source_are_as_likely_as_those_at_its_beginning() -> None:
    source = [f"{number:08d}" for number in range(3000)]
    numbers = [piece.document for piece in choose_pieces(Words(), iter(source), tokens=800, context=8)]
    assert len(numbers) == 100
    assert 1200 < sum(numbers) / 100 < 1800


def test_a_seed_chooses_the_same_again_and_another_one_others() -> None:
    source = [f"{number:08d}" for number in range(500)]
    chosen = [choose_pieces(Words(), source, tokens=80, context=8, seed=seed) for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_source_without_a_piece_and_a_document_that_cannot_be_read_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="at least one document that is not empty"):
        choose_pieces(Words(), ["", ""], tokens=8, context=8)
    with pytest.raises(InputError, match="document 1: expected a string, got 7"):
        choose_pieces(Words(), ["abc", 7], tokens=80, context=8)
    with pytest.raises(InputError, match=r"b\.txt: expected a string, got 7"):
        choose_pieces(Words(), [Document("b.txt", 7)], tokens=80, context=8)
