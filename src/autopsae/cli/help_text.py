"""What `--help` prints: texts of the options as paragraphs, and lines that fit the terminal.

tyro breaks the lines inside its boxes, but neither the usage nor the description above them. It keeps the line ends
of a docstring whose lines are indented, and colours what it prints whatever NO_COLOR says.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from inspect import cleandoc
from io import StringIO
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
"""What sets a colour or a weight: it takes no column of the terminal."""

_WHITE = re.compile(r"(?<=\x1b\[)37;")
"""What sets the frames of tyro to white, which is not seen on a white terminal. They stay dim."""


def as_paragraphs(text: str) -> str:
    """A docstring with each of its paragraphs in one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n"))


def field_texts(options: type[object]) -> dict[str, str]:
    """{field: the docstring under it} of a dataclass; those of its base classes too."""
    from docstring_parser import parse_from_object  # tyro reads them by it; only --help needs it

    texts = dict[str, str]()
    for one in reversed(options.__mro__[:-1]):
        told = parse_from_object(one).params
        texts |= {field.arg_name: as_paragraphs(field.description) for field in told if field.description}
    return texts


@contextmanager
def fit_output(shorter: Mapping[str, str] | None = None) -> Iterator[None]:
    """Within the context, what is printed on standard output waits. At its end it is written, and what is longer
    than a line of the terminal is broken between words, without its colours.

    shorter: {what tyro writes: what is written in its place}. tyro asks standard output whether it may use colours,
    on standard error too: it may not where NO_COLOR is set.
    """
    target = sys.stdout
    held = _Held(target, is_plain=bool(os.environ.get("NO_COLOR")))
    try:
        with redirect_stdout(held):
            yield
    finally:
        text = _WHITE.sub("", held.getvalue())
        for long, short in (shorter or {}).items():
            text = text.replace(long, short)
        columns, before = get_terminal_size().columns, ""
        for line in text.splitlines():
            shown = _COLOUR.sub("", line).rstrip()
            if shown or before:  # one empty line after another tells nothing
                broken = wrap(shown, columns, break_long_words=False, break_on_hyphens=False)
                target.write("\n".join(broken if len(shown) > columns else [line.rstrip()]) + "\n")
            before = shown


class _Held(StringIO):
    """Text that waits, and what tyro asks of the stream that it is for."""

    def __init__(self, target: Any, *, is_plain: bool) -> None:
        super().__init__()
        self._target, self._is_plain = target, is_plain

    def isatty(self) -> bool:
        """Whether colours may be used."""
        return bool(self._target.isatty()) and not self._is_plain

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Whether there are lines for boxes."""
        return str(self._target.encoding)
