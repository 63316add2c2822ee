"""What is known of documents: spans with a concept, in one plain table (document, start, end, concept)."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from autopsae.arrays import InputError
from autopsae.reading import check_regular, input_errors
from autopsae.tables import Result, import_pandas, is_parquet, save_table
from autopsae.vectors import Vector, document_numbers, items_of
from autopsae.words import list_names, show

COLUMNS = ("document", "start", "end", "concept")
"""The columns of the table. A fifth, `unit`, may say "domain" for concepts whose recall is counted by domain."""
UNITS = ("token", "domain")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Annotations(Result):
    """Spans of documents, each with a concept. Spans of one concept may overlap; equal rows are one.

    Positions count tokens of the document as the source has them, or letters (characters, residues, patches) where
    a `TokenTable` says which letters a token covers.
    """

    documents: Int[np.ndarray, "spans"]
    """The number of each span's document."""
    starts: Int[np.ndarray, "spans"]
    """Position of the first token of each span in its document, from 0."""
    ends: Int[np.ndarray, "spans"]
    """Position after the last token of each span."""
    numbers: Int[np.ndarray, "spans"]
    """The number of each span's concept in `concepts`."""
    concepts: tuple[str, ...]
    """The names of the concepts."""
    domains: frozenset[str] = frozenset()
    """Concepts of which a span is a domain, whose recall is counted by domain; for the others it is by token."""

    @staticmethod
    def of(rows: Iterable[Sequence[Any]], *, domains: Collection[str] = ()) -> "Annotations":
        """Annotations of rows (document, start, end, concept). domains: concepts counted by domain.

        Raises InputError for no row, a row of another form, a concept whose name is missing or empty, numbers that
        are not whole, a span that is empty or begins before its document, and domains that are a single text or no
        concepts of the rows.
        """
        listed = sorted({_check_row(row, number) for number, row in enumerate(rows)})
        if not listed:
            raise InputError("annotations: expected at least one row (document, start, end, concept), got none")
        concepts = tuple(sorted({row[3] for row in listed}))
        by_domain = items_of("domains", domains, "names of concepts")
        if unknown := [name for name in by_domain if name not in concepts]:
            raise InputError(
                f"domains: expected concepts of the rows ({list_names(concepts)}), got {show(unknown[0], 60)}; is "
                "it written otherwise there?"
            )
        number = {name: n for n, name in enumerate(concepts)}
        places = np.array([row[:3] for row in listed], np.int64)
        return Annotations(
            documents=places[:, 0],
            starts=places[:, 1],
            ends=places[:, 2],
            numbers=np.array([number[row[3]] for row in listed], np.int32),
            concepts=concepts,
            domains=frozenset(by_domain),
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __str__(self) -> str:
        documents = len(np.unique(self.documents))
        return f"{len(self):,} spans of {len(self.concepts):,} concepts in {documents:,} documents"

    def rows(self) -> list[tuple[int, int, int, str]]:
        """(document, start, end, concept) of each span."""
        names = [self.concepts[n] for n in self.numbers]
        return [*zip(self.documents.tolist(), self.starts.tolist(), self.ends.tolist(), names, strict=True)]

    def within(self, documents: Vector) -> "Annotations":
        """The spans of these documents alone, for a source that has only some of those that were annotated.

        Raises InputError where none is left, and for documents that are no vector of integers.
        """
        names = {*np.unique(document_numbers(documents)).tolist()}
        rows = [row for row in self.rows() if row[0] in names]
        return Annotations.of(rows, domains=self.domains & {row[3] for row in rows})

    def save(self, path: str | Path) -> None:
        """Write the table as .csv or .parquet, whole or not at all. Raises InputError for another suffix."""
        units = [UNITS[self.concepts[n] in self.domains] for n in self.numbers]
        columns: Mapping[str, list[Any]] = dict(
            zip(COLUMNS, map(list, zip(*self.rows(), strict=True)), strict=True)
        )
        save_table({**columns, "unit": units}, path)


def read_annotations(path: str | Path) -> Annotations:
    """The annotations of a .csv or .parquet table with the columns document, start, end and concept. A column
    `unit` may say "token" or "domain" for each row.

    Raises InputError, naming the file, for one that is missing, damaged or has other columns, for a unit of another
    name, for a concept with two units, and as `Annotations.of`.
    """
    path = Path(path)
    columns = read_table(path, COLUMNS)
    units = columns.get("unit", ["token"] * len(columns["concept"]))
    by_concept: dict[str, set[str]] = {}
    for concept, unit in zip(columns["concept"], units, strict=True):
        by_concept.setdefault(str(concept), set()).add(str(unit))
    for concept, named in by_concept.items():
        if len(named) > 1 or not named <= {*UNITS}:
            raise InputError(
                f"{path}: expected one unit, token or domain, for the concept {show(concept, 60)}, got "
                f"{list_names(sorted(named))}"
            )
    try:
        rows = zip(*(columns[name] for name in COLUMNS), strict=True)
        return Annotations.of(rows, domains=[name for name, unit in by_concept.items() if unit == {"domain"}])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_table(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of a .csv or .parquet table. Raises InputError where one of `names` is missing."""
    pandas = import_pandas() if is_parquet(path) else None
    with input_errors(path, f"a table with the columns {', '.join(names)}", "write it again"):
        check_regular(path)
        if pandas is not None:
            columns = {str(name): column.tolist() for name, column in pandas.read_parquet(path).items()}
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                header, *rows = csv.reader(file, strict=True)
            if twice := [name for n, name in enumerate(header) if name in header[:n]]:
                raise ValueError(f"two columns are named {show(twice[0], 40)}")
            if bad := [n for n, row in enumerate(rows, start=2) if len(row) != len(header)]:
                raise ValueError(f"line {bad[0]} has not the {len(header)} columns of the first")
            columns = {name: [row[n] for row in rows] for n, name in enumerate(header)}
    if missing := [name for name in names if name not in columns]:
        raise InputError(
            f"{path}: expected the columns {', '.join(names)}, got {list_names(columns)}; name {missing[0]}"
        )
    return columns


def check_range(
    annotations: Annotations,
    beyond: Bool[np.ndarray, "spans"],
    lengths: Int[np.ndarray, "spans"],
    unit: str,
) -> None:
    """InputError where a span ends beyond its document."""
    if beyond.any():
        n = int(np.flatnonzero(beyond)[0])
        raise InputError(
            f"annotations: expected spans within their documents, got {int(beyond.sum()):,} that end beyond, such "
            f"as {annotations.concepts[annotations.numbers[n]]!r} at {annotations.starts[n]} to "
            f"{annotations.ends[n]} in document {annotations.documents[n]}, which has {lengths[n]:,} {unit}; are "
            "they of another source, or in letters? then give the table of tokens"
        )


def _check_row(row: Sequence[Any], number: int) -> tuple[int, int, int, str]:
    if isinstance(row, str) or not hasattr(row, "__len__") or len(row) != len(COLUMNS):
        raise InputError(
            f"annotations: row {number}: expected (document, start, end, concept), got {show(row, 80)}"
        )
    try:
        [document], [start], [end] = (whole_numbers(n, [v]) for n, v in zip(COLUMNS[:3], row, strict=False))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"annotations: row {number}: expected whole numbers as document, start and end, got "
            f"{show(list(row[:3]), 80)}"
        ) from error
    concept = "" if _is_missing(row[3]) else str(row[3])
    if not concept:
        got = "an empty one" if isinstance(row[3], str) else show(row[3], 40)
        raise InputError(
            f"annotations: row {number}: expected the name of a concept, got {got}; name it, or leave the row out"
        )
    if not 0 <= start < end:
        raise InputError(
            f"annotations: row {number} ({show(concept, 40)}): expected 0 <= start < end, got start {start} and "
            f"end {end}; the end is the position after the last token"
        )
    return document, start, end, concept


def _is_missing(value: Any) -> bool:
    """Whether it is None, NaN, or what pandas has for a missing value: none of the last two equals itself."""
    try:
        return value is None or not bool(value == value)
    except (TypeError, ValueError):  # pandas.NA is neither true nor false
        return True


def whole_numbers(name: str, values: Sequence[Any]) -> list[int]:
    """The values of a column, as texts or as numbers.

    Raises ValueError for what is not whole, for a truth value, for a document over 2^53, and for a
    position over 2^31: sums of them would not be exact.
    """
    numbers, most = [int(value) for value in values], 2**53 if name == "document" else 2**31
    for number, value in zip(numbers, values, strict=True):
        is_text, is_truth = isinstance(value, str), isinstance(value, bool | np.bool_)
        if abs(number) > most or is_truth or (not is_text and number != value):
            raise ValueError(f"{name} {show(value, 40)}")
    return numbers
