"""Names that come from files, as names of files."""

import random
import re
import unicodedata
from pathlib import Path

import pytest

from autopsae.activations.names import file_names
from autopsae.files import pair_files

NAMES = [
    *(
        ".",
        "",
        "..",
        "...",
        "x",
        "x.json",
        "x.safetensors",
        "X",
        "a/b",
        "a\\b",
        "a%2Fb",
        "h" * 300,
        "h" * 301,
        "é" * 90,
    ),
    *(
        "h.3.mlp:input",
        '*?"<>|',
        "x.",
        "x ",
        " x",
        ".x",
        "CON",
        "con",
        "nul.txt",
        "Aux .x",
        "lpt1",
        "\x1b[2J",
        "\n",
    ),
    *("层", "e\u0301", "é", "\udcff", "\\udcff", "%", "%empty", "hs1~", "MLP", "mlp", "Mlp"),
]
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\uffff]')
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)[ ]*(\..*)?", re.IGNORECASE)


def check(names: list[str]) -> None:
    files = file_names(names)
    assert len({file.lower() for file in files.values()}) == len(files) == len({*names})
    for file in files.values():
        assert file
        assert len(file) <= 200
        assert not FORBIDDEN.search(file)
        assert not DEVICES.fullmatch(file)
        assert file[0] not in ". "
        assert file[-1] not in ". "
        assert [path.name for path in pair_files(Path("p") / file)] == [f"{file}.json", f"{file}.safetensors"]


def test_every_name_gets_a_file_of_its_own_that_any_system_can_hold() -> None:
    check(NAMES)


def test_any_names_get_files_of_their_own() -> None:
    draw = random.Random(0)
    letters = [*map(chr, range(256)), "\u0301", "\ud800", "\u202e", "\U0001f600", *"..aA%/\\: "]
    for _ in range(300):
        names = ["".join(draw.choices(letters, k=draw.choice([1, 2, 3, 80]))) for _ in range(10)]
        check([*names, *map(str.swapcase, names), *(unicodedata.normalize("NFD", name) for name in names)])


@pytest.mark.parametrize(
    "name", ["hs12", "model.layers.3.mlp", "W_enc", "a-b+c=d,e (1)", "encoder.block.0.SelfAttention"]
)
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert file_names([name]) == {name: name}


def test_the_names_of_files_are_readable() -> None:
    assert file_names(["h.3.mlp:input", ".", "", "x.json", "CON", "a/b", "MLP", "mlp"]) == {
        "h.3.mlp:input": "h.3.mlp%3Ainput",
        ".": "%2E",
        "": "%empty",
        "x.json": "x%2Ejson",
        "CON": "%43ON",
        "a/b": "a%2Fb",
        "MLP": "MLP%~10e9c505be9370b1bd72",
        "mlp": "mlp",
    }
