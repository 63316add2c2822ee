"""What the verbs print fits terminals of 50, 80 and 120 columns: no digit is lost, and no word is broken."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional

from autopsae.cli import terminal, verbs
from autopsae.cli.parsing import VERBS, option_types
from autopsae.report import fitting, text
from tests.cli.test_page_option import MAKES, SMALL, here  # noqa: F401
from tests.report import pages

ALL = {
    **MAKES,
    "trial": ["diagnose", "x.npy", *SMALL, "--trial", "--steps", "30", "--batch-tokens", "64"],
    "sweep": [*MAKES["train"], "--seed", "0,1"],
    "recentre": [*MAKES["autopsy"], "--recentre", "out"],
    "probes": [*MAKES["features"], "--probes", "tokens", "--ks", "1,4", "--controls"],
}
WIDTHS = (50, 80, 120)
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")


def words(text: str) -> list[str]:
    return re.findall(r"[^\s─]+", text)


def in_columns(
    given: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What a command prints on so many columns. What it writes gets a new name, which is not in what it prints."""
    monkeypatch.setenv("COLUMNS", str(columns))
    new = "out" + "x" * len([*Path().iterdir()])
    assert verbs.run([new if word == "out" else word for word in given]) == 0
    return capsys.readouterr().out.replace(new, "out")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("verb", ALL)
def test_no_digit_is_lost_and_no_word_is_broken_at_any_width(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    wide = in_columns(ALL[verb], 2000, monkeypatch, capsys)
    with monkeypatch.context() as lines_alone:
        lines_alone.setattr(fitting.Fitting, "_width_of", lambda *_: 10_000)
        in_lines = in_columns(ALL[verb], 2000, monkeypatch, capsys)
    known, numbers = {*words(wide), *words(in_lines)}, {*_NUMBER.findall(wide)}
    assert numbers <= {*_NUMBER.findall(in_lines)}
    for columns in WIDTHS:
        narrow = in_columns(ALL[verb], columns, monkeypatch, capsys)
        assert "…" not in narrow
        assert numbers - {*_NUMBER.findall(narrow)} == set(), columns
        broken = {word for word in words(narrow) if word not in known}
        assert broken == set(), columns
        if verb not in ("train", "sweep"):  # whose lines name a folder, and are one line however wide
            assert max(map(len, narrow.splitlines())) <= columns


@pytest.mark.usefixtures("here")
def test_colours_are_left_out_where_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    colour = re.compile(r"\x1b\[(?:\d+;)*3\dm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert verbs.run(MAKES["diagnose"]) == 0
    assert colour.search(capsys.readouterr().out)
    monkeypatch.setenv("NO_COLOR", "1")
    assert verbs.run(MAKES["diagnose"]) == 0
    assert not colour.search(capsys.readouterr().out)


_PALE = re.compile(r"\x1b\[(?:\d+;)*(?:33|37|9[2367])[;m]")


@pytest.mark.usefixtures("here")
def test_no_colour_is_too_pale_for_a_white_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    layers = [pages.tokens(gamma, n).numpy() for n, gamma in enumerate((0.5, 1, 2, 6))]
    np.savez("x.npz", *layers)
    for given in (["diagnose", "x.npz", *SMALL], ["diagnose", "--help"], ["diagnose"]):
        verbs.run(given)
        printed = "".join(capsys.readouterr())
        assert "\x1b[" in printed
        assert _PALE.findall(printed) == []
    assert {"green", "", "red"} == {text.dead_cell(fraction).style for fraction in (0.01, 0.1, 0.21)}


def test_long_work_shows_per_cent_rate_and_time_left_in_a_line_of_eighty() -> None:
    with Progress(terminal._Description(), console=Console(width=80, quiet=True)) as bar:
        task = bar.add_task("layer 3 of 12: hs12, statistics: 12,000 tokens", total=100)
        for _ in range(20):
            bar.advance(task, 2)
        [one] = bar.tasks
        said = terminal._Description().render(one).plain
    assert said.startswith("layer 3 of 12: hs12, statistics: 12,000 tokens, 40%, ")
    assert " a second, 0:00:0" in said or said.endswith(" a second")


def shown_help(verb: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert verbs.run([verb, "--help"] if verb else ["--help"]) == 0
    return capsys.readouterr().out


def parts_of_help(text: str) -> set[str]:
    """Its words. Lists of choices may be broken after a comma; boxes are no words."""
    parts = {part for word in words(text) for part in word.replace(",", ", ").split()}
    return {part for part in parts if part.strip("-│╭╮╰╯")}


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_its_columns_without_a_broken_word(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = shown_help(verb, 2000, monkeypatch, capsys)
    known = parts_of_help(wide)
    for columns in WIDTHS:
        narrow = shown_help(verb, columns, monkeypatch, capsys)
        assert max(map(len, narrow.splitlines())) <= columns
        assert parts_of_help(narrow) == known, columns


@pytest.mark.parametrize("columns", WIDTHS)
def test_help_in_colours_says_the_same_lines_as_help_without(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for verb in ("", "diagnose"):
        monkeypatch.delenv("NO_COLOR", raising=False)
        coloured = shown_help(verb, columns, monkeypatch, capsys)
        monkeypatch.setenv("NO_COLOR", "1")
        plain = [line.rstrip() for line in shown_help(verb, columns, monkeypatch, capsys).splitlines()]
        assert "\x1b[" in coloured
        assert [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines()] == plain


@pytest.mark.parametrize("verb", VERBS)
def test_help_calls_what_is_given_by_its_name_and_says_nothing_of_python(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = shown_help(verb, 2000, monkeypatch, capsys)
    assert "None" not in shown
    assert "(default: )" not in shown
    assert "(default: '')" not in shown
    given = [name for name, hint in option_types(VERBS[verb]).items() if Positional in get_args(hint)]
    assert all(f" {name.upper()} " in shown for name in given)


def test_paragraphs_of_help_end_where_they_end_and_not_where_lines_of_the_code_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown_help("train", 2000, monkeypatch, capsys).splitlines()
    [about] = [line for line in lines if line.startswith("Train an SAE on one layer")]
    assert about.endswith("(summary.json).")
    [source] = [
        line for line in shown_help("diagnose", 2000, monkeypatch, capsys).splitlines() if " SOURCE " in line
    ]
    assert "activations, as a file or a folder" in source


def test_help_and_errors_of_options_have_no_colours_where_none_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for given in (["stats", "--help"], ["stats", "--nothing"]):
        monkeypatch.delenv("NO_COLOR", raising=False)
        verbs.run(given)
        assert "\x1b[" in "".join(capsys.readouterr())
        monkeypatch.setenv("NO_COLOR", "1")
        verbs.run(given)
        assert "\x1b[" not in "".join(capsys.readouterr())
