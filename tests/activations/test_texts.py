"""Laws of reading texts: what is there is read whole and in order, what is no text is told with file and line."""

import json
import os
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

from autopsae.activations import texts
from autopsae.activations.presets import read_documents
from autopsae.activations.texts import documents_in
from autopsae.arrays import InputError


def in_lines(documents: list[str]) -> str:
    return "\n".join(json.dumps({"text": text}) for text in documents)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_line_ends_change_nothing(mark: bytes, end: str, tmp_path: Path) -> None:
    lines, paragraphs = tmp_path / "a.jsonl", tmp_path / "a.TXT"
    documents = ["one", "two \u00e9\u2028 still two", "three"]
    lines.write_bytes(mark + in_lines(documents).replace("\n", end).encode())
    paragraphs.write_bytes(mark + end.join(["one", "  ", "two", "still two  ", "", "", "three"]).encode())
    assert read_documents(lines) == documents
    assert read_documents(paragraphs) == ["one", "two\nstill two", "three"]


def test_empty_documents_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(in_lines(["", "one", "  \n", "two"]))
    assert read_documents(path) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n\n{"text": "a \\ud83d b"}', r"a.jsonl:3: expected text, got half a character"),
        ("b.jsonl", b"[" * 100_000, r"b.jsonl:1: expected \{\"text\": \"...\"\}, got '\[\[\["),
        ("c.jsonl", b'{"text": ' + b"1" * 5000 + b"}", "c.jsonl:1: expected "),
        ("d.jsonl", b'{"text": "x"}\n{"text": "\xff"}', r"d.jsonl:2: .* got byte 0xff \(.*\); convert it first"),
        ("e.jsonl", b'{"text": "x"}\n\0', "e.jsonl:2: expected UTF-8 text, got a NUL byte; convert it first"),
        ("f.txt", "words".encode("utf-16"), r"f.txt:1: expected UTF-8 text, got a NUL byte"),
        ("g.txt", b"one\n\ntwo \xc3", r"g.txt:3: .* got byte 0xc3 \(unexpected end of data\)"),
        ("h.txt", b"\0", r"h.txt:1: expected UTF-8 text, got a NUL byte"),
        ("i.jsonl", b"null", r"i.jsonl:1: expected \{\"text\""),
        ("j.jsonl", b'{"text": null}', r"j.jsonl:1: expected a string as \"text\", got NoneType"),
    ],
)
def test_what_is_no_text_is_told_with_its_line_in_one_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_documents(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_surrogate_pair_is_one_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude00"}')
    assert read_documents(tmp_path / "a.jsonl") == ["\U0001f600"]


@pytest.mark.parametrize("name", ["missing.txt", "missing.md", "missing/a.txt", "a.txt/b.txt", "a\0.txt"])
def test_a_file_that_is_not_there_is_said_to_be_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(InputError, match="no such file or folder|embedded null"):
        read_documents(tmp_path / name)


def test_a_folder_and_a_pipe_are_no_texts_and_nothing_waits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match=r"a.txt: expected .*, got a folder; pass one of its files"):
        read_documents(tmp_path / "a.txt")
    if not hasattr(os, "mkfifo"):
        return
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(
        InputError, match=r"b.txt: expected a regular file .*, got a pipe or a device; write it to a file"
    ):
        read_documents(tmp_path / "b.txt")


def test_reading_the_first_documents_does_not_read_the_file(tmp_path: Path) -> None:
    """A line that is no text stands behind them; a file of 50 MB takes no memory."""
    for name, document in (("a.txt", "word " * 200 + "\n\n"), ("a.jsonl", in_lines(["word " * 200]) + "\n")):
        with (tmp_path / name).open("w") as file:
            for _ in range(50_000):
                file.write(document)
            file.write("\0")
        tracemalloc.start()
        first = list(islice(documents_in(tmp_path / name), 3))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert first == ["word " * 199 + "word"] * 3
        assert peak < 2**20


def test_a_document_that_is_too_long_to_hold_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "LONGEST", 64)
    path = tmp_path / "a.txt"
    path.write_text("\n".join(["a word \u00e9"] * 40) + "\n\nlast")
    pieces = read_documents(path)
    assert "\n".join(pieces[:-1]) == "\n".join(["a word \u00e9"] * 40)
    assert max(map(len, pieces)) <= 64 + 10
    assert pieces[-1] == "last"
    path.write_text("\u00e9" * 100)  # one line, cut within a character's bytes
    assert "".join(read_documents(path)) == "\u00e9" * 100


def test_a_json_line_that_is_too_long_to_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "LONGEST", 64)
    path = tmp_path / "a.jsonl"
    path.write_text(in_lines(["x" * 50]) + "\n" + in_lines(["x" * 53]))
    with pytest.raises(InputError, match=r"a.jsonl:2: expected lines of less than 64 bytes, got a longer"):
        read_documents(path)
    path.write_text(in_lines(["x" * 50, "x" * 51]))
    assert len(read_documents(path)) == 2
