"""Records of proteins and DNA: FASTA, Swiss-Prot and EMBL flat files, read one record at a time.

Biopython reads them: `pip install 'autopsae[bio]'`. It is imported only when a file is opened.
"""

import codecs
import gzip
import importlib
import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.models.network import Document
from autopsae.reading import is_folder
from autopsae.words import printable, reason, show

_FORMATS = {
    "fasta": re.compile(r">"),
    "swiss": re.compile(r"ID   .*\d+ AA\."),
    "embl": re.compile(r"ID   .*\d+ BP\."),
}
"""Biopython's name of a format, and how its first line begins: both kinds of flat files end in .dat."""

_LINE = 2**16
"""Characters of the first line that are looked at."""
_MARK = codecs.BOM_UTF8.decode("ascii", "backslashreplace")
_GAPS = str.maketrans("", "", "-.")
_NO_LETTER = re.compile(r"[^A-Z*]")


def sequences_in(path: str | Path) -> Iterator[Document]:
    """The sequences of a FASTA, Swiss-Prot or EMBL flat file, which may be compressed (.gz).

    The first line says which of the three it is. A record is named by the file, its number, from 1, and its
    identifier. Sequences come in capital letters: small ones mark repeats ("soft-masking"), and are letters as
    others. The gaps of an alignment (- and .) and a stop (*) at the end are left out.

    Raises InputError, naming file and record, for an empty sequence and for one with anything but letters, and,
    naming the file, for a missing or empty file, a folder, a binary file and another format. Records before the one
    that is refused have been given.
    """
    for place, (_, record) in enumerate(records_in(path), start=1):
        where = f"{path}: record {place} ({printable(record.id, 60)})"
        yield Document(where, _letters(_sequence(record), where))


def records_in(path: str | Path) -> Iterator[tuple[str, Any]]:
    """("fasta", "swiss" or "embl", the record as Biopython has it) of each record; raises as `sequences_in`."""
    path = Path(path)
    if is_folder(path):
        raise InputError(f"{path}: expected a file of sequences, got a folder; pass one of its files")
    parse = _parser(path)
    number = 0
    try:
        with _open(path) as file:
            kind = _kind(path, file)
            for record in parse(file, kind):
                number += 1
                yield kind, record
    except InputError:
        raise
    # A reader of damaged text may raise anything; a cut .gz file raises EOFError.
    except Exception as error:
        raise InputError(
            f"{path}: expected records of sequences, could not read the one after record {number} "
            f"({reason(error)}); get the file again"
        ) from error
    if not number:
        raise InputError(f"{path}: expected at least one record, got none")


def _parser(path: Path) -> Any:
    try:
        return importlib.import_module("Bio.SeqIO").parse
    except ImportError as error:
        raise package_error(str(path), "Bio", error, install="autopsae[bio]") from error


def _open(path: Path) -> TextIOWrapper:
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    # Sequences are ASCII. What else there is, such as names in the Latin-1 of old files, is not used.
    settings: Any = {"mode": "rt", "encoding": "ascii", "errors": "backslashreplace"}
    opened: TextIOWrapper = (gzip.open if is_compressed else open)(path, **settings)
    return opened


def _kind(path: Path, file: TextIOWrapper) -> str:
    """The format, from the first line that is not empty, at which the file then is."""
    start, first = 0, file.readline(_LINE)
    if first.startswith(_MARK):
        start, first = len(codecs.BOM_UTF8), first.removeprefix(_MARK)
    while first and not first.strip():
        start = file.tell()
        first = file.readline(_LINE)
    file.seek(start)
    for kind, beginning in _FORMATS.items():
        if beginning.match(first):
            return kind
    if not first:
        raise InputError(f"{path}: expected at least one record, got an empty file")
    raise InputError(
        f"{path}: expected FASTA, which begins with >, or a Swiss-Prot or EMBL flat file, which begins with ID, "
        f"got {show(first.strip(), 60)}; convert it to FASTA"
    )


def _sequence(record: Any) -> str:
    """The sequence of a record; empty where it only tells its length, as an EMBL entry made of others does."""
    try:
        return str(record.seq)
    except ValueError:
        return ""


def _letters(sequence: str, where: str) -> str:
    letters = sequence.upper().translate(_GAPS).removesuffix("*")
    if not letters:
        raise InputError(f"{where}: expected a sequence, got an empty one; leave it out")
    if other := _NO_LETTER.search(letters):
        raise InputError(
            f"{where}: expected letters, got {show(other[0])} at letter {other.start() + 1:,}; is it a sequence?"
        )
    return letters
