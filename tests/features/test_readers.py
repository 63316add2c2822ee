"""Laws of the readers: what a program, a flat file or a mask says of its letters is what they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autopsae.arrays import InputError
from autopsae.features.flat_files import flat_file_annotations
from autopsae.features.image_masks import mask_annotations
from autopsae.features.python_source import python_annotations

pytestmark = pytest.mark.quick

PROGRAM = '''"""Says π."""
import math

class Circle(object):  # of radius r
    @property
    def area(self, n=2):
        """π r²"""
        return math.pi * self.r ** n + len("π") + [x[0] for x in ()][1:]
'''


def marked(concept: str, program: str = PROGRAM) -> list[str]:
    """What of the program has a concept."""
    return [program[start:end] for _, start, end, name in python_annotations([program]).rows() if name == concept]


@pytest.mark.parametrize(
    ("concept", "expected"),
    [
        ("comment", ["# of radius r"]),
        ("docstring", ['"""Says π."""', '"""π r²"""']),
        ("string", ['"""Says π."""', '"""π r²"""', '"π"']),
        ("number", ["2", "0", "1"]),
        ("keyword", ["import", "class", "def", "return", "for", "in"]),
        ("keyword def", ["def"]),
        ("operator **", ["**"]),
        ("operator @", ["@"]),
        ("class name", ["Circle"]),
        ("function name", ["area"]),
        ("parameter", ["self", "n"]),
        ("self", ["self"]),
        ("call", ["len"]),
        ("call arguments", ['"π"']),
        ("attribute", ["pi", "r"]),
        ("builtin", ["object", "property", "len"]),
        ("decorator", ["property"]),
        ("import", ["import math"]),
        ("default value", ["2"]),
        ("comprehension", ["[x[0] for x in ()]"]),
        ("subscript", ["0", "1:"]),
    ],
)
def test_a_program_says_what_its_characters_are(concept: str, expected: list[str]) -> None:
    assert marked(concept) == expected


def test_the_name_of_a_definition_is_not_a_letter_of_the_word_before_it() -> None:
    program = "async def f(): pass\nclass s: pass\ndef d(): pass\n"
    rows = python_annotations([program]).rows()
    starts = {program[start:end]: start for _, start, end, concept in rows if concept.endswith(" name")}
    assert starts == {"f": 10, "s": program.index("s:"), "d": program.index("d()")}


def test_brackets_and_domains_of_a_program() -> None:
    assert len(marked("bracket")) == 14
    annotations = python_annotations([PROGRAM])
    assert {"comment", "docstring", "call arguments"} <= annotations.domains
    assert "keyword" not in annotations.domains


def test_lines_are_those_of_python_and_not_of_splitlines() -> None:
    program = "x = '\x0c\x1c'\ny = f(3)\r\nz = 'é' + g(4)\n"
    assert marked("call", program) == ["f", "g"]
    assert marked("number", program) == ["3", "4"]


def test_every_document_has_its_own_number() -> None:
    rows = python_annotations(["x = 1\n", "# only a comment\n"]).rows()
    assert {(row[0], row[3]) for row in rows} == {(0, "number"), (0, "operator"), (0, "operator ="), (1, "comment")}


SWISS = """ID   ONE_HUMAN               Reviewed;          20 AA.
AC   P00001;
FT   CHAIN         1     20       Whole.
FT   DOMAIN        3      6       SH3 1.
FT   DISULFID      8     15
FT   MOD_RES       2      2       Phosphoserine (by X).
FT   MOD_RES       9      9       By similarity.
FT   HELIX         ?      5
SQ   SEQUENCE   20 AA;  2000 MW;  0000000000000000 CRC64;
     MKTAYIAKQR MKTAYIAKQR
//
ID   TWO_HUMAN               Reviewed;          10 AA.
AC   P00002;
FT   DOMAIN        1      4       Kinase.
SQ   SEQUENCE   10 AA;  1000 MW;  0000000000000000 CRC64;
     MKTAYIAKQR
//
"""

EMBL = """ID   X1; SV 1; linear; genomic DNA; STD; HUM; 30 BP.
XX
FH   Key             Location/Qualifiers
FH
FT   source          1..30
FT   exon            2..9
FT   CDS             join(2..5,11..14)
FT   repeat_region   complement(20..25)
FT   CDS             join(7..9,Z9:1..4)
XX
SQ   Sequence 30 BP; 10 A; 10 C; 5 G; 5 T; 0 other;
     acgtacgtac gtacgtacgt acgtacgtac                                        30
//
"""


def test_features_of_swiss_prot_are_residues_from_zero_and_bonds_are_their_ends(tmp_path: Path) -> None:
    pytest.importorskip("Bio", reason="needs the extra [bio]")
    (tmp_path / "s.dat").write_text(SWISS)
    annotations = flat_file_annotations(tmp_path / "s.dat")
    assert annotations.rows() == [
        (0, 1, 2, "MOD_RES"),
        (0, 1, 2, "MOD_RES: Phosphoserine"),
        (0, 2, 6, "DOMAIN"),
        (0, 2, 6, "DOMAIN: SH3 1"),
        (0, 7, 8, "DISULFID"),
        (0, 8, 9, "MOD_RES"),  # whose note is no name but the evidence
        (0, 14, 15, "DISULFID"),
        (1, 0, 4, "DOMAIN"),
        (1, 0, 4, "DOMAIN: Kinase"),
    ]
    assert annotations.domains == {"DOMAIN", "DOMAIN: SH3 1", "DOMAIN: Kinase"}
    assert "DOMAIN: Kinase" not in flat_file_annotations(tmp_path / "s.dat", notes=False).concepts


def test_marks_of_embl_are_bases_from_zero_and_joined_parts_are_domains_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("Bio", reason="needs the extra [bio]")
    (tmp_path / "e.dat").write_text(EMBL)
    assert flat_file_annotations(tmp_path / "e.dat").rows() == [
        (0, 1, 5, "CDS"),
        (0, 1, 9, "exon"),
        (0, 6, 9, "CDS"),
        (0, 10, 14, "CDS"),
        (0, 19, 25, "repeat_region"),
    ]


def test_a_patch_has_the_concept_of_a_mask_that_covers_half_of_it() -> None:
    mask = np.zeros((8, 12))  # the middle square is columns 2 to 9
    mask[0:2, 2:6] = 1  # the two left patches of the first row, of 2 x 2 pixels
    mask[2, 4:6] = 1  # half of the second patch of the second row
    mask[4, 4] = 1  # a quarter of one
    mask[:, 11] = 1  # beyond the square
    annotations = mask_annotations([{"cat": mask}, {"dog": np.ones((4, 4)), "cat": np.zeros((4, 4))}], patches=4)
    assert annotations.rows() == [
        (0, 0, 2, "cat"),
        (0, 5, 6, "cat"),
        *((1, 4 * row, 4 * row + 4, "dog") for row in range(4)),
    ]


def test_patches_that_are_no_whole_pixels_get_the_pixels_whose_centres_they_hold() -> None:
    mask = np.zeros((5, 5))
    mask[:2] = 1
    rows = mask_annotations([{"top": mask}], patches=2).rows()
    assert rows == [(0, 0, 2, "top")]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda _: python_annotations(["x = 1\n", "x = \n"]),
            "document 1: expected Python that this version can parse",
        ),
        (lambda _: python_annotations(["x = (\n"]), "document 0: expected Python"),
        (lambda _: python_annotations([""]), "expected at least one row"),
        (
            lambda _: mask_annotations([{"a": np.ones((3, 9))}], patches=4),
            r"image 0: the mask of 'a': expected a matrix .* at least 4 x 4 pixels, got shape \(3, 9\)",
        ),
        (lambda _: mask_annotations([{"a": np.zeros((8, 8))}], patches=4), "expected at least one row"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(act: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        act(tmp_path)


def test_a_flat_file_without_features_and_fasta_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("Bio", reason="needs the extra [bio]")
    (tmp_path / "a.fasta").write_text(">one\nMKT\n")
    with pytest.raises(InputError, match="got FASTA, which has no features"):
        flat_file_annotations(tmp_path / "a.fasta")
    (tmp_path / "s.dat").write_text("\n".join(line for line in SWISS.split("\n") if not line.startswith("FT")))
    with pytest.raises(InputError, match="expected features with positions, got none"):
        flat_file_annotations(tmp_path / "s.dat")
