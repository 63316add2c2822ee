"""Laws of annotations: a table says the same when it is read back, and lies on the tokens that it names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations, read_annotations
from autopsae.features.labels import Labels, align_annotations
from autopsae.features.split import shuffle_documents, split_documents
from autopsae.features.token_table import TokenTable, read_token_table
from tests.features.sources import spans

pytestmark = pytest.mark.quick

OF = np.repeat([3, 1, 7, 4, 9, 2], 10)


def rows(documents: np.ndarray = OF) -> list[tuple[int, int, int, str]]:
    names = [*dict.fromkeys(documents.tolist())]
    return [(names[n], start, end, concept) for n, start, end, concept in spans(10, len(names))]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_reads_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    made = Annotations.of([*rows(), (1, 0, 2, 'odd, "name"\nof two lines')], domains=["phrase"])
    made.save(tmp_path / f"a{suffix}")
    back = read_annotations(tmp_path / f"a{suffix}")
    assert back.rows() == made.rows()
    assert back.domains == frozenset({"phrase"})
    assert str(made) == f"{len(made):,} spans of 4 concepts in 6 documents"


def test_a_plain_table_of_four_columns_is_enough(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("concept,document,end,start\nx,3,4,2\nx,3,4,2\ny,1,1,0\n")
    read = read_annotations(tmp_path / "a.csv")
    assert read.rows() == [(1, 0, 1, "y"), (3, 2, 4, "x")]  # equal rows are one
    assert not read.domains


def test_annotations_of_some_documents_alone_are_kept_for_a_source_that_has_no_more() -> None:
    whole = Annotations.of(rows(), domains=["phrase"])
    some = whole.within(OF[:25])
    assert some.rows() == [row for row in whole.rows() if row[0] in (3, 1, 7)]
    assert some.domains == whole.domains
    align_annotations(some, OF[:30])


def test_each_token_has_the_concepts_of_the_spans_that_it_lies_in() -> None:
    labels = align_annotations(Annotations.of(rows()), OF)
    expected = np.zeros((len(OF), 3), bool)
    begin = {int(n): int(np.flatnonzero(n == OF)[0]) for n in np.unique(OF)}
    for document, start, end, concept in rows():
        expected[begin[document] + start : begin[document] + end, labels.concepts.index(concept)] = True
    for number in range(3):
        np.testing.assert_array_equal(labels.mask(number), expected[:, number])
    np.testing.assert_array_equal(np.diff(labels.ends), expected.sum(axis=1))
    some = labels.keep(np.array([2, 0]))
    assert some.concepts == ("word", "long")
    np.testing.assert_array_equal(some.mask(0), expected[:, 2])


def table() -> TokenTable:
    """Document 5, "ab cde", as [BOS] "ab" " c" "de", and document 6, "fgh", as [BOS] "f" "gh"."""
    return TokenTable(
        documents=np.array([5, 5, 5, 5, 6, 6, 6]),
        starts=np.array([0, 0, 2, 4, 0, 0, 1]),
        ends=np.array([0, 2, 4, 6, 0, 1, 3]),
        texts=("", "ab", " c", "de", "", "f", "gh"),
    )


def test_a_token_has_a_concept_if_it_covers_a_letter_of_a_span() -> None:
    of = [(5, 0, 1, "a"), (5, 3, 5, "b"), (6, 0, 3, "all"), (6, 2, 3, "h")]
    labels = align_annotations(Annotations.of(of), table().documents, table())
    marks = {name: np.flatnonzero(labels.mask(n)).tolist() for n, name in enumerate(labels.concepts)}
    assert marks == {"a": [1], "b": [2, 3], "all": [5, 6], "h": [6]}
    assert np.flatnonzero(~labels.is_counted).tolist() == [0, 4]


def test_special_tokens_within_a_span_have_no_concept() -> None:
    inside = TokenTable(
        documents=np.zeros(6, np.int64),
        starts=np.array([0, 0, 1, 0, 2, 3]),
        ends=np.array([0, 1, 2, 0, 3, 4]),
        texts=("", "a", "b", "", "c", "d"),
    )
    labels = align_annotations(Annotations.of([(0, 1, 3, "x")], domains=["x"]), inside.documents, inside)
    assert np.flatnonzero(labels.mask(0)).tolist() == [2, 4]
    assert (labels.firsts.tolist(), labels.lasts.tolist()) == ([2], [5])


def test_a_token_table_reads_back(tmp_path: Path) -> None:
    table().save(tmp_path / "t.csv")
    back = read_token_table(tmp_path / "t.csv")
    assert back.texts == table().texts
    np.testing.assert_array_equal(back.ends, table().ends)
    assert str(back) == "7 tokens of 2 documents, 2 special ones"
    assert str(back.first(4)) == "4 tokens of 1 documents, 1 special ones"


def labels_of(documents: np.ndarray) -> Labels:
    return align_annotations(Annotations.of(rows(documents), domains=["phrase"]), documents)


def test_documents_are_on_one_side_each_and_the_same_one_wherever_they_stand() -> None:
    sides = split_documents(OF)
    assert all(len(np.unique(sides[n == OF])) == 1 for n in OF)
    assert int((sides == 0).sum()) == 30
    np.testing.assert_array_equal(split_documents(OF[::-1].copy()), sides[::-1])
    assert int((split_documents(np.arange(100), validation=0.2) == 0).sum()) == 20
    assert not np.array_equal(split_documents(np.arange(99)), split_documents(np.arange(99), seed=1))


def test_shuffled_annotations_are_those_of_another_document_of_the_same_split() -> None:
    documents = np.repeat(np.arange(12), 10)
    labels, sides = labels_of(documents), split_documents(documents)
    moved = shuffle_documents(labels, sides)

    def by_document(of: Labels) -> dict[int, list[tuple[int, int, int]]]:
        places = zip(of.firsts.tolist(), of.lasts.tolist(), of.numbers.tolist(), strict=True)
        held: dict[int, list[tuple[int, int, int]]] = {}
        for first, last, concept in places:
            held.setdefault(first // 10, []).append((first % 10, last - first, concept))
        return {n: sorted(some) for n, some in held.items()}

    before, after = by_document(labels), by_document(moved)
    for document, own in after.items():
        [source] = [n for n, some in before.items() if some == own]
        assert source != document
        assert sides[10 * source] == sides[10 * document]


def test_a_shuffled_span_stays_within_a_shorter_document() -> None:
    documents = np.array([0] * 10 + [1] * 3 + [2] * 4)
    labels = align_annotations(Annotations.of([(0, 7, 10, "x")]), documents)
    moved = shuffle_documents(labels, np.zeros(17, np.int8))
    [first], [last] = moved.firsts, moved.lasts
    assert documents[first] == documents[last - 1] != 0
    assert first - np.flatnonzero(documents == documents[first])[0] == 7 % np.sum(documents == documents[first])


def of(*lines: Any) -> Annotations:
    return Annotations.of(lines)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Annotations.of([]), "expected at least one row"),
        (lambda: of((0, 2, 2, "x")), r"row 0 \('x'\): expected 0 <= start < end, got start 2 and end 2"),
        (lambda: of((0, -1, 2, "x")), "got start -1 and end 2"),
        (lambda: of((0, 0, 2, "")), "row 0: expected the name of a concept, got an empty one"),
        (lambda: of((0, 0, 2, None)), "row 0: expected the name of a concept, got None; name it, or leave"),
        (lambda: of((0, 0, 2, np.nan)), "row 0: expected the name of a concept, got nan"),
        (lambda: of((0, 0, 2, pd.NA)), "row 0: expected the name of a concept, got <NA>"),
        (lambda: of((0, 1, 2)), r"row 0: expected \(document, start, end, concept\), got \(0, 1, 2\)"),
        (
            lambda: of((0, 1, 2, "x", "domain")),
            r"row 0: expected \(document, start, end, concept\), got \(0, 1, 2, 'x'",
        ),
        (lambda: of("0123"), r"row 0: expected \(document, start, end, concept\), got '0123'"),
        (lambda: of((0, True, 2, "x")), "row 0: expected whole numbers as document, start and end"),
        (
            lambda: Annotations.of(rows(), domains="phrase"),
            "domains: expected a sequence of names of concepts, got 'phrase'; pass a tuple of them",
        ),
        (
            lambda: Annotations.of([(0, 0, 2, "x")], domains=["x", "y"]),
            r"domains: expected concepts of the rows \(x\), got 'y'",
        ),
        (
            lambda: of((0, 0, 1.5, "x")),
            r"row 0: expected whole numbers as document, start and end, got \[0, 0, 1.5\]",
        ),
        (
            lambda: align_annotations(of((3, 0, 2, "x"), (8, 0, 1, "x")), OF),
            r"expected documents of the source \(6, 1 to 9\), got document 8 and 0 more",
        ),
        (
            lambda: align_annotations(of((3, 4, 11, "x")), OF),
            r"got 1 that end beyond, such as 'x' at 4 to 11 in document 3, which has 10 tokens",
        ),
        (
            lambda: align_annotations(of((3, 0, 2, "x")), np.array([3, 3, 1, 3])),
            "side by side, got document 3 in several places",
        ),
        (
            lambda: align_annotations(of((5, 0, 2, "x")), np.array([5, 5]), table()),
            "expected a row for each of 2 tokens of the source, got 7",
        ),
        (
            lambda: align_annotations(of((5, 6, 7, "x")), table().documents, table()),
            "at 6 to 7 in document 5, which has 6 letters",
        ),
        (
            lambda: align_annotations(of((5, 0, 2, "x")), np.array([5, 5, 5, 5, 6, 6, 8]), table()),
            "got document 6 for token 6, which is of document 8",
        ),
        (lambda: split_documents(np.zeros(9, np.int64)), "documents: expected at least two, .* got 1"),
        (
            lambda: split_documents(OF, validation=1.0),
            "validation: expected a share of the documents over 0 and under 1, got 1",
        ),
    ],
)
def test_bad_annotations_are_one_clear_line(act: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        act()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("starts", "ends", "message"),
    [
        ([0, 0, 4, 2, 0, 0, 1], [0, 2, 6, 4, 0, 1, 3], "got 2 to 4 for token 3"),
        ([0, 0, 2, 4, 0, 0, 3], [0, 2, 4, 6, 0, 1, 1], "got 3 to 1 for token 6"),
        ([0, -1, 2, 4, 0, 0, 1], [0, 2, 4, 6, 0, 1, 3], "got -1 to 2 for token 1"),
        ([0] * 7, [0] * 7, "expected tokens that cover letters, got special tokens alone"),
    ],
)
def test_a_token_table_whose_letters_are_not_in_order_is_refused(
    starts: list[int], ends: list[int], message: str
) -> None:
    of_tokens = table()
    wrong = TokenTable(
        documents=of_tokens.documents, starts=np.array(starts), ends=np.array(ends), texts=of_tokens.texts
    )
    with pytest.raises(InputError, match=message):
        align_annotations(of((5, 0, 2, "x")), wrong.documents, wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "document,start,end\n1,2,3\n",
            "a.csv: expected the columns document, start, end, concept, got document, start, end; name concept",
        ),
        ("document,start,end,concept\n1,2,x,a\n", "a.csv: annotations: row 0: expected whole numbers"),
        ("document,start,end,concept\n1,2,2147483649,a\n", "expected whole numbers as document, start and end"),
        ("document,start,end,concept\n9007199254740993,2,3,a\n", r"got \['9007199254740993', '2', '3'\]"),
        ("document,start,end,concept,end\n1,2,3,a,4\n", "two columns are named 'end'"),
        ("document,start,end,concept\n1,2\n", r"line 2 has not the 4 columns of the first"),
        (
            "document,start,end,concept,unit\n1,2,3,a,token\n1,4,5,a,domain\n",
            "one unit, token or domain, for the concept 'a', got domain, token",
        ),
        ("document,start,end,concept,unit\n1,2,3,a,atom\n", "got atom"),
        ("document,start,end,concept\n", "expected at least one row"),
        ("", "expected a table with the columns"),
    ],
)
def test_bad_tables_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path / "a.csv")


def test_a_concept_without_a_name_is_refused_in_a_table_of_parquet_too(tmp_path: Path) -> None:
    columns = {"document": [1, 1], "start": [0, 2], "end": [1, 3], "concept": ["a", None]}
    pd.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match=r"a.parquet: annotations: row 1: expected the name of a concept, got (None|nan)"
    ):
        read_annotations(tmp_path / "a.parquet")


def test_annotations_of_some_documents_keep_the_domains_that_are_left() -> None:
    both = Annotations.of([(0, 0, 2, "x"), (1, 0, 2, "y")], domains=["x", "y"])
    assert both.within(np.array([1])).domains == {"y"}


def test_a_table_of_another_suffix_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a table named .csv or .parquet, got '.txt'"):
        read_annotations(tmp_path / "a.txt")
    with pytest.raises(InputError, match="there is no such file"):
        read_token_table(tmp_path / "none.csv")
    for row in ("0,a,1,x", "0,0,99999999999999999999,x", "0,0,2147483649,x"):
        (tmp_path / "t.csv").write_text(f"document,start,end,text\n{row}\n")
        with pytest.raises(InputError, match="expected whole numbers as document, start and end"):
            read_token_table(tmp_path / "t.csv")
