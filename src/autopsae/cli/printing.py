"""The one place for printing: tables and lines, from words that may come from files."""

import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from autopsae.words import printable

_PIPE = 120  # columns: a table cut to the 80 that a pipe is taken for would hide words


def print_text(content: RenderableType) -> None:
    """A table or a text on standard output, after the results are written: it may be closed or full."""
    is_told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    Console(width=None if is_told else _PIPE).print(content)


def print_line(line: str) -> None:
    """A line on standard output."""
    _print(Console(), Text(printable(line)))


def print_note(line: str, console: Console | None = None) -> None:
    """A line on standard error; above its progress bar where `console` is that of one."""
    _print(console or Console(stderr=True), Text(printable(line)))


def print_error(message: str) -> None:
    """What went wrong, in a line on standard error."""
    _print(Console(stderr=True), Text.assemble(("error:", "bold red"), " ", printable(message)))


def write_all(writers: Sequence[Callable[[], object]]) -> None:
    """Call each, so that an output that fails costs no other; then raise the first error.

    A pipe whose reader had enough is none.
    """
    failed: list[Exception] = []
    for write in writers:
        try:
            write()
        except BrokenPipeError:
            continue
        except Exception as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _print(console: Console, line: Text) -> None:
    """On a terminal, broken between words; one line elsewhere, for whoever reads it line by line."""
    console.print(line, highlight=False, soft_wrap=not console.file.isatty())
