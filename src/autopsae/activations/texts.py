"""Documents of text files, read one at a time: a file may be larger than memory."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.reading import is_folder

LONGEST = 16 * 2**20
"""Bytes of a line or document that are held at once."""


def documents_in(path: str | Path) -> Iterator[str]:
    """The documents of a `.txt` (separated by blank lines; without any, it is one) or `.jsonl` ("text") file.

    UTF-8 with or without a byte order mark. A document of a `.txt` file that is longer than `LONGEST` is given in
    pieces, each a document; empty ones are left out.

    Raises InputError, naming file and line, for what is no text: another encoding, NUL bytes, a line without a
    "text", half a character (a lone surrogate) in one; and for a missing or empty file, a folder, a pipe and
    another suffix.
    """
    path = Path(path)
    _check_file(path)
    read = _paragraphs if path.suffix.lower() == ".txt" else _json_texts
    some = False
    for document in read(path):
        if document := document.strip():
            some = True
            yield document
    if not some:
        raise InputError(f"{path}: expected some text, got none")


def check_positions(path: str | Path) -> None:
    """InputError where texts or letters of a `.jsonl` file have other numbers in the file than as they are read: a
    text of blank space alone is left out, and blank space before a text is taken off.
    """
    path = Path(path)
    if path.suffix.lower() != ".jsonl":
        return
    for number, text in enumerate(_json_texts(path)):
        if not text.strip() or text[0].isspace():
            got = "one that begins with blank space" if text.strip() else "blank space alone"
            raise InputError(
                f"{path}: expected texts that begin with a letter, as annotations count texts and letters, got "
                f"{got} as text {number}; take it out, and move its annotations"
            )


def check_text(text: str, where: str) -> None:
    """InputError where `text` has a character that no file and no tokenizer can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: expected text, got half a character (the lone surrogate {text[error.start]!r}) at character "
            f"{error.start + 1}; replace it"
        ) from error


def _check_file(path: Path) -> None:
    if is_folder(path):
        raise InputError(f"{path}: expected a .txt or .jsonl file, got a folder; pass one of its files")
    if path.suffix.lower() not in (".txt", ".jsonl"):
        raise InputError(f'{path}: expected a .txt file, or a .jsonl file with a "text" in each line')


def _paragraphs(path: Path) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, block in _blocks(path):
        for line in block.splitlines():
            if not line.strip() or size >= LONGEST:
                yield "\n".join(lines)
                lines, size = [], 0
            lines.append(line.rstrip())
            size += len(line)
        # Part of a line, or the end of the file: a piece of its own, so that no line end is put within a line.
        if not block.endswith("\n"):
            yield "\n".join(lines)
            lines, size = [], 0
    yield "\n".join(lines)


def _json_texts(path: Path) -> Iterator[str]:
    for number, block in _blocks(path):
        if len(block.encode()) >= LONGEST:
            raise InputError(
                f"{path}:{number}: expected lines of less than {LONGEST:,} bytes, got a longer one; write one "
                'document in each line, as {"text": "..."}'
            )
        # A carriage return alone ended lines once; within a JSON string it is escaped.
        for line in block.replace("\r", "\n").split("\n"):
            if line.strip():
                yield _text_of(line, f"{path}:{number}")


def _blocks(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line), or the next part of a line that is longer than `LONGEST`."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    number, ended = 1, False
    try:
        with path.open("rb") as file:
            while not ended:
                block = file.readline(LONGEST)
                ended = not block
                if b"\0" in block:
                    raise InputError(
                        f"{path}:{number}: expected UTF-8 text, got a NUL byte; convert it first if it is UTF-16, "
                        "or take the byte out"
                    )
                yield number, decoder.decode(block, final=ended)
                number += block.endswith(b"\n")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{path}:{number}: expected UTF-8 text, got byte 0x{byte:02x} ({error.reason}); convert it first"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from error


def _text_of(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    # ValueError: no JSON, or an integer of thousands of digits; RecursionError: brackets within brackets.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f'{where}: expected {{"text": "..."}}, got {line[:60]!r}') from error
    if not isinstance(text, str):
        raise InputError(f'{where}: expected a string as "text", got {type(text).__name__}')
    check_text(text, where)
    return text
