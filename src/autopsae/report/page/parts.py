"""What a page is made of: sections with findings, commands, figures and tables. All text is plain: the template
escapes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from autopsae.words import number_text

Number = int | float
"""A number as JSON has it: 0 may stand for 0.0."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    """What is shown."""
    value: Number | None = None
    """The number behind it, by which the table is sorted; None for words."""
    link: str = ""
    """The anchor of the part of the page with its details; "" for none."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that can be sorted by each of its columns."""

    caption: str
    """What it shows."""
    header: tuple[str, ...]
    """The names of the columns; the first column names the rows."""
    rows: tuple[tuple[Cell, ...], ...]
    """A cell for each column."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An interactive figure, and the table of its numbers."""

    anchor: str
    """Its name on the page, unlike any other."""
    title: str
    """What it shows, in a few words."""
    caption: str
    """How it is read."""
    action: str
    """What a click on it does, in a sentence, which is not printed; "" for nothing."""
    drawn: Mapping[str, Any]
    """`data` and `layout` as Plotly takes them. Colours that begin with @ are names of the page's palette."""
    table: Table
    """The same numbers."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A finding, as it stands in the JSON."""

    name: str
    """Its name."""
    value: Number
    """The value, in its unit."""
    threshold: Number
    """What it is compared with."""
    tokens: int
    """Sample size."""
    meaning: str
    """What it says."""
    advice: str
    """What to do; "" for nothing."""
    source: str
    """Where threshold and claim come from."""
    where: str = ""
    """The layers that it is about, where the section is about several."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """Something to run."""

    what: str
    """What it does, in a sentence."""
    lines: str
    """A command of the shell, or lines of Python."""
    language: str = "sh"
    """sh or python."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A token on which a latent fires, in its context."""

    value: Cell
    """The latent's code."""
    where: str
    """Which token it is."""
    before: str
    """The text before it."""
    text: str
    """The token."""
    after: str
    """The text after it."""


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A part of a section that is closed until it is asked for: a layer, or an SAE of a sweep."""

    anchor: str
    """Its name on the page."""
    title: str
    """What it is about."""
    summary: str
    """The essence in a few words, shown beside the title."""
    said: tuple[str, ...] = ()
    """Sentences at its top."""
    findings: tuple[Said, ...] = ()
    """What its numbers mean."""
    code: tuple[Code, ...] = ()
    """What to run."""
    figures: tuple[Figure, ...] = ()
    """Its figures."""
    tables: tuple[Table, ...] = ()
    """Its numbers."""


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A long table of which the page shows the row that is asked for, by a click in a figure or by its number."""

    anchor: str
    """Its name on the page."""
    what: str
    """What a row is, in a word."""
    header: tuple[str, ...]
    """The names of the columns; the first has whole numbers, by which a row is asked for."""
    rows: Sequence[Sequence[Number | str]]
    """The rows, in the order of their numbers."""
    contexts: str = ""
    """The anchor of the top activations of the rows; "" where they are not known."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page says of one result."""

    anchor: str
    """Its name on the page."""
    title: str
    """What kind of result it is, and of what."""
    verdict: tuple[str, ...]
    """The verdict in sentences, which also stand at the top of the page."""
    warnings: tuple[str, ...] = ()
    """What must be known before a number is believed."""
    findings: tuple[Said, ...] = ()
    """What the numbers mean."""
    code: tuple[Code, ...] = ()
    """What to run."""
    figures: tuple[Figure, ...] = ()
    """The figures."""
    tables: tuple[Table, ...] = ()
    """The tables."""
    lookup: Lookup | None = None
    """Where a row of a long table is asked for; None where there is none."""
    examples: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """Tokens in their context, by what they have in common."""
    details: tuple[Detail, ...] = ()
    """What is closed until it is asked for."""
    wrote: tuple[tuple[str, str], ...] = ()
    """What wrote the result: (name, value) each."""


def anchor(*names: object) -> str:
    """A name for a part of the page that is the same for the same names, and holds letters and digits alone."""
    return "p" + sha256("\0".join(map(str, names)).encode("utf-8", "replace")).hexdigest()[:12]


def percent(value: Number | None, link: str = "") -> Cell:
    """A fraction in percent."""
    return Cell("none") if value is None else Cell(f"{value:.1%}", value, link)


def write_number(value: Number, form: str) -> str:
    """A number in the form of `format`; "" for four digits."""
    return format(value, form) if form else number_text(value)


def number(value: Number | None, form: str = "") -> Cell:
    """A number as `write_number` writes it."""
    return Cell("none") if value is None else Cell(write_number(value, form), value)


def count(value: int | None) -> Cell:
    """A whole number."""
    return number(value, ",")


def with_interval(value: Number | None, interval: Sequence[Number] | None, form: str = ".1%") -> Cell:
    """A number, and in brackets the interval of it where there is one."""
    if value is None or interval is None:
        return number(value, form)
    low, high = interval
    return Cell(f"{value:{form}} ({low:{form}} to {high:{form}})", value)


def said_of(findings: Sequence[Mapping[str, Any]]) -> tuple[Said, ...]:
    """The findings of a JSON file."""
    names = ("name", "value", "threshold", "tokens", "meaning", "advice", "source")
    return tuple(Said(**{name: finding[name] for name in names}) for finding in findings)
