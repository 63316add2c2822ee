"""Which letters of its document each token of a source covers: from letters to tokens, and from tokens to text.

Letters are characters of a text, residues, bases, or patches of an image, whatever the annotations count.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations, check_range, read_table, whole_numbers
from autopsae.tables import Result, save_table
from autopsae.vectors import Vector, document_numbers

COLUMNS = ("document", "start", "end", "text")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TokenTable(Result):
    """The tokens of a source in its order, a row each."""

    documents: Int[np.ndarray, "tokens"]
    """The number of each token's document."""
    starts: Int[np.ndarray, "tokens"]
    """The first letter of its document that each token covers."""
    ends: Int[np.ndarray, "tokens"]
    """The letter after the last one; the same as the start for a special token, which covers none."""
    texts: tuple[str, ...]
    """What each token is, for people: its characters, its residue, the place of its patch."""

    def __len__(self) -> int:
        return len(self.documents)

    def __str__(self) -> str:
        documents = len(np.unique(self.documents))
        return f"{len(self):,} tokens of {documents:,} documents, {int((~self.is_letter).sum()):,} special ones"

    @property
    def is_letter(self) -> Bool[np.ndarray, "tokens"]:
        """The tokens that cover a letter; the others are special tokens."""
        return self.ends > self.starts

    def first(self, tokens: int) -> "TokenTable":
        """The first rows, for a source that was read up to so many tokens."""
        return TokenTable(
            documents=self.documents[:tokens],
            starts=self.starts[:tokens],
            ends=self.ends[:tokens],
            texts=self.texts[:tokens],
        )

    def save(self, path: str | Path) -> None:
        """Write the table as .csv or .parquet, whole or not at all. Raises InputError for another suffix."""
        numbers = (self.documents.tolist(), self.starts.tolist(), self.ends.tolist())
        save_table(dict(zip(COLUMNS, (*numbers, list(self.texts)), strict=True)), path)

    def check_source(self, documents: Vector) -> None:
        """InputError unless these are the documents of the source's tokens, and the tokens of each document cover
        its letters in order.
        """
        numbers = document_numbers(documents)
        if len(self) != len(numbers):
            raise InputError(
                f"token table: expected a row for each of {len(numbers):,} tokens of the source, got "
                f"{len(self):,}; make it of the same documents with the same context"
            )
        if (differ := self.documents != numbers).any():
            n = int(np.flatnonzero(differ)[0])
            raise InputError(
                f"token table: expected the documents of the source, got document {self.documents[n]} for token "
                f"{n:,}, which is of document {numbers[n]}; make it of the same documents with the same context"
            )

        letters = np.flatnonzero(self.is_letter)
        if not len(letters):
            raise InputError("token table: expected tokens that cover letters, got special tokens alone")
        follows = self.documents[letters][1:] == self.documents[letters][:-1]
        back = follows & ((np.diff(self.starts[letters]) < 0) | (np.diff(self.ends[letters]) < 0))
        wrong = np.append(letters[1:][back], np.flatnonzero((self.starts < 0) | (self.ends < self.starts)))
        if len(wrong):
            n = int(wrong.min())
            raise InputError(
                f"token table: expected the letters of each document in order, got {self.starts[n]} to "
                f"{self.ends[n]} for token {n:,}; make it of the same documents with the same context"
            )

    def places(
        self,
        annotations: Annotations,
        begin: Int[np.ndarray, "spans"],
        stop: Int[np.ndarray, "spans"],
    ) -> tuple[Int[np.ndarray, "spans"], Int[np.ndarray, "spans"]]:
        """(place of the first token, place after the last one) of the tokens that cover a letter of each span.

        begin, stop: where the document of each span begins and ends in the source. A span of letters that no token
        covers (white space, or the source was read only so far) gets no token. Raises InputError for a span that
        begins after the last letter of its document; the last document of the source may have been cut.
        """
        letters = np.flatnonzero(self.is_letter)
        starts, ends = self.starts[letters], self.ends[letters]
        # One rising sequence through all documents: letters of a later document are larger than any of an earlier.
        width = int(max(self.ends.max(), annotations.ends.max())) + 1
        low, high = np.searchsorted(letters, begin), np.searchsorted(letters, stop)
        run = np.cumsum(np.append(0, np.diff(self.documents[letters]) != 0))
        of_span = run[np.minimum(low, len(run) - 1)] * width
        first = np.searchsorted(run * width + ends, of_span + annotations.starts, side="right")
        last = np.searchsorted(run * width + starts, of_span + annotations.ends, side="left")
        first, last = np.clip(first, low, high), np.clip(last, low, high)
        last = np.maximum(first, last)
        length = np.where(high > low, ends[np.maximum(high, 1) - 1], 0)
        check_range(annotations, (annotations.starts >= length) & (stop < len(self)), length, "letters")
        none = last == first
        at = np.append(letters, len(self))
        return np.where(none, begin, at[first]), np.where(none, begin, at[np.maximum(last - 1, 0)] + 1)


def read_token_table(path: str | Path) -> TokenTable:
    """A table that `TokenTable.save` wrote, or one with its columns document, start, end and text.

    Raises InputError, naming the file, for one that is missing, damaged or empty, has other columns, or numbers
    that are not whole.
    """
    path = Path(path)
    columns = read_table(path, COLUMNS)
    try:
        documents, starts, ends = (np.array(whole_numbers(name, columns[name]), np.int64) for name in COLUMNS[:3])
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: expected whole numbers as document, start and end, got {error}") from error
    if not len(documents):
        raise InputError(f"{path}: expected a row for each token, got none")
    return TokenTable(documents=documents, starts=starts, ends=ends, texts=tuple(map(str, columns["text"])))
