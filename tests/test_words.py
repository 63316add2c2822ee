"""What comes from anywhere stands in a message on one line, cut, and harmless to a terminal."""

import pickle

import pytest

from autopsae.activations.parts import NoLayers
from autopsae.arrays import InputError, NoTokens
from autopsae.words import fvu_text, list_names, number_text, printable, reason, show

pytestmark = pytest.mark.quick

HOSTILE = "\x1b[2J a\nb\r\x00\x9b\u202e\u2028 \udcff é \ud800"


@pytest.mark.parametrize("error", [InputError, NoTokens, NoLayers])
def test_no_error_of_ours_holds_a_control_or_a_broken_character(error: type[InputError]) -> None:
    text = str(error(f"{HOSTILE}: expected a name"))
    assert text.isprintable()
    text.encode()
    assert text == "\\x1b[2J a\\nb\\r\\x00\\x9b\\u202e\\u2028 \\udcff é \\ud800: expected a name"


def test_an_error_that_is_pickled_or_quoted_in_another_stays_as_it_is() -> None:
    error = InputError(HOSTILE)
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == str(InputError(error))


def test_what_is_printable_stays_as_it_is() -> None:
    assert printable("layers.3 \\n é 層") == "layers.3 \\n é 層"
    assert printable("x" * 11, 10) == "x" * 7 + "..."
    assert printable("x" * 10, 10) == "x" * 10


def test_a_value_of_any_size_is_shown_in_a_line() -> None:
    endless: list[object] = []
    endless += [endless] * 100
    for value in (endless, "x" * 10**6, 10**5000, -(10**5000), {str(i): i for i in range(10**5)}, HOSTILE):
        assert len(show(value)) <= 80
        assert show(value).isprintable()
    assert show(10**5000) == "a whole number of 16,610 bits"
    assert show({"k": 3}) == "{'k': 3}"


def test_names_are_listed_up_to_a_number_of_them() -> None:
    assert list_names(["a", "b\n"], 2) == "a, b\\n"
    assert list_names(iter("abc"), 2) == "a, b, ..."


def test_a_reason_is_the_first_line_of_an_error_with_its_type() -> None:
    assert reason(ValueError("one\ntwo")) == "one"
    assert reason(ValueError("")) == "ValueError: "
    assert reason(KeyError("x")) == "KeyError: 'x'"
    assert len(reason(RuntimeError("x" * 1000))) == 200


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00012345, "0.0001234"),
        (1000, "1,000"),
        (35744.6, "35,745"),
        (-20550, "-20,550"),
        (1e7, "1e+07"),
    ],
)
def test_a_number_has_four_digits_and_all_before_its_point(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("fvu", "text"),
    [(0.00123456, "0.00123"), (0.01, "0.0100"), (13.177, "13.1770"), (35740.4, "35,740"), (2e12, "2e+12")],
)
def test_an_fvu_keeps_its_digits(fvu: float, text: str) -> None:
    assert fvu_text(fvu) == text
