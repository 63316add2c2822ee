"""A table where the terminal is wide enough for it, and lines that wrap between words where it is not."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from autopsae.words import printable


class Fitting:
    """A table whose numbers are never cut: on a terminal that is too narrow, `lines` are shown under the title. The
    title may be wider than the table.
    """

    def __init__(self, table: Table, lines: Sequence[RenderableType]) -> None:
        self._table, self._lines = table, lines
        self._title = [Text(str(table.title), style="italic")] if table.title else []
        table.title = None  # rich would break it where the table ends

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = [self._width_of(console, options, number) for number in range(len(self._table.columns))]
        if sum(widths) + len(widths) - 1 <= options.max_width:
            yield Group(*self._title, self._table)
        else:
            yield Group(*self._title, *self._lines)

    def _width_of(self, console: Console, options: ConsoleOptions, number: int) -> int:
        """Columns of the terminal that a column of the table needs; one that may wrap says it itself."""
        column = self._table.columns[number]
        if not column.no_wrap:
            return column.min_width or 1
        wide = options.update(max_width=10_000)
        cells = [column.header, *column.cells]
        return max(Measurement.get(console, wide, cell).maximum for cell in cells)


def empty_table(title: str | None = None) -> Table:
    """A table in the style of all, with one space between columns."""
    return Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, title=title)


def plain(words: str, style: str = "") -> Text:
    """Words that may come from a file, on one line, without markup or control characters."""
    return Text(printable(words), style=style)
