"""Laws of records: what a file says is what a network reads, and a file that says nothing is named."""

import gzip
from pathlib import Path

import pytest

from autopsae.arrays import InputError
from autopsae.models import sequences_in

pytest.importorskip("Bio", reason="needs the extra [bio]")

SWISS = """\
ID   ONE_HUMAN               Reviewed;           8 AA.
AC   P00001;
DE   RecName: Full=One;
OS   Homo sapiens.
SQ   SEQUENCE   8 AA;  900 MW;  0000000000000000 CRC64;
     MKTAYIAK
//
"""
EMBL = """\
ID   X00001; SV 1; linear; genomic DNA; STD; HUM; 12 BP.
XX
AC   X00001;
XX
DE   One
XX
SQ   Sequence 12 BP; 3 A; 3 C; 3 G; 3 T; 0 other;
     acgtacgtac gt                                                            12
//
"""


def file(folder: Path, content: str | bytes, name: str = "a.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_fasta_file_gives_every_record_with_its_number_and_name(tmp_path: Path) -> None:
    path = file(tmp_path, ">one of many\nMKT\nAYI\n\n>two\nAK\n")
    assert list(sequences_in(path)) == [(f"{path}: record 1 (one)", "MKTAYI"), (f"{path}: record 2 (two)", "AK")]


def test_small_letters_are_letters_and_gaps_and_a_last_stop_are_none(tmp_path: Path) -> None:
    path = file(tmp_path, ">one\r\nMKtay\r\n>two\r\nM--K.T*\r\n>three\r\nM*K\r\n")
    assert [sequence for _, sequence in sequences_in(str(path))] == ["MKTAY", "MKT", "M*K"]


def test_flat_files_are_told_apart_by_their_first_line(tmp_path: Path) -> None:
    assert [s for _, s in sequences_in(file(tmp_path, SWISS * 2, "uniprot.dat"))] == ["MKTAYIAK"] * 2
    [(where, sequence)] = sequences_in(file(tmp_path, EMBL, "human.dat"))
    assert where.endswith("human.dat: record 1 (X00001.1)")
    assert sequence == "ACGTACGTACGT"


def test_a_byte_order_mark_and_lines_before_the_first_record_are_passed_over(tmp_path: Path) -> None:
    assert [s for _, s in sequences_in(file(tmp_path, "\ufeff>one\nMKT\n"))] == ["MKT"]
    assert [s for _, s in sequences_in(file(tmp_path, "\n\n>one\nMKT\n"))] == ["MKT"]


def test_a_compressed_file_is_read_as_the_file_in_it(tmp_path: Path) -> None:
    path = file(tmp_path, gzip.compress(SWISS.encode()), "uniprot.dat.gz")
    assert [sequence for _, sequence in sequences_in(path)] == ["MKTAYIAK"]


def test_a_record_before_the_one_that_is_refused_is_given(tmp_path: Path) -> None:
    records = sequences_in(file(tmp_path, ">one\nMKT\n>two\n>three\nMK\n"))
    assert next(records)[1] == "MKT"
    with pytest.raises(
        InputError, match=r"a.txt: record 2 \(two\): expected a sequence, got an empty one; leave it"
    ):
        next(records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.txt: expected at least one record, got an empty file"),
        ("\n \n", "a.txt: expected at least one record, got an empty file"),
        ("MKT\n", "expected FASTA, which begins with >, or a Swiss-Prot or EMBL flat file, .* got 'MKT'; convert"),
        ("ID   X; SV 1; 12 words\n", "expected FASTA, which begins with >, or a Swiss-Prot"),
        (b"\x00\xff\xfe\x01" * 20, r"expected FASTA, .* got '.x00"),
        (">one\nMK7\n", r"record 1 \(one\): expected letters, got '7' at letter 3; is it a sequence\?"),
        (b">one\nM\x00K\n", r"record 1 \(one\): expected letters, got '.x00' at letter 2"),
        (b">one\nM\xe9K\n", r"record 1 \(one\): expected letters"),
        (">one\n---*\n", r"record 1 \(one\): expected a sequence, got an empty one"),
        (
            gzip.compress(SWISS.encode() * 50)[:-20],
            r"could not read the one after record \d+ \(EOFError: .*\); get t",
        ),
        (SWISS[:-60], r"could not read the one after record 0 \(.*\); get the file again"),
    ],
)
def test_what_is_no_file_of_sequences_ends_with_one_line(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        list(sequences_in(file(tmp_path, content)))
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "a.txt") in str(raised.value)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a file of sequences, got a folder; pass one of its files"):
        next(sequences_in(tmp_path))
    with pytest.raises(InputError, match=r"nothing.fasta: no such file or folder"):
        next(sequences_in(tmp_path / "nothing.fasta"))
