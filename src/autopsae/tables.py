"""How results show themselves: in a line, as rows of a data frame, in CSV and Parquet files, in a notebook."""

import csv
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.files import write_whole
from autopsae.words import list_names, printable, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Columns = Mapping[str, list[Any]]


def frame(columns: Columns) -> Any:
    """A pandas DataFrame. Raises InputError where pandas is missing."""
    return import_pandas().DataFrame(columns)


def import_pandas() -> Any:
    """The module. Raises InputError where it is missing."""
    try:
        import pandas
    except ImportError as error:
        raise package_error("to_frame", "pandas", error, install="autopsae[report]") from error
    return pandas


def save_table(columns: Columns, path: str | Path) -> None:
    """Write .csv or .parquet, whole or not at all. Raises InputError as `check_table`."""
    path = Path(path)
    check_table(path)

    def write(temporary: Path) -> None:
        if is_parquet(path):
            frame(columns).to_parquet(temporary, index=False)
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    write_whole(path, write)


def check_table(path: Path) -> None:
    """InputError unless a table can be written under this name: to be known before the work, not after."""
    if is_parquet(path):
        try:
            import pandas  # noqa: F401
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise package_error(f"{path} (or name a .csv)", "pyarrow", error, install="autopsae[report]") from error


def is_parquet(path: Path) -> bool:
    """Whether a table of this name is Parquet; it is CSV otherwise. Raises InputError for another suffix."""
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: expected a table named .csv or .parquet, got {path.suffix or 'no suffix'!r}")
    return path.suffix == ".parquet"


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"birth": {"none": {"dead": 0.9}}} -> {"birth.none.dead": 0.9}."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = (), said: Sequence[str] = ()
) -> str:
    """A table with its verdict above it (`said`) and notes under it; every text is escaped."""
    above = "".join(f'<p style="font-weight: bold; margin: 0.3em 0">{escape(line)}</p>' for line in said)
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    under = "".join(f"<li>{escape(note)}</li>" for note in notes)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return above + table + (f"<ul>{under}</ul>" if under else "")


def draw_result(result: object) -> "Figure":
    """The figure of a result. Raises InputError as `Result.plot`."""
    # Figures are drawn in a room after this one, which is looked up only when a figure is made.
    from autopsae.report.figures import draw_figure

    return draw_figure(result)


def html_figure(result: object) -> str:
    """The figure of a result as an image within HTML; "" where it has none, and where matplotlib is missing."""
    try:
        picture = draw_result(result)._repr_png_()  # type: ignore[attr-defined]
    except InputError:
        return ""
    words = escape(f"Figure of {type(result).__name__}")
    return f'<img alt="{words}" src="data:image/png;base64,{b64encode(picture).decode()}" style="max-width:100%">'


class Result:
    """A dataclass that shows itself shortly: `repr` names its fields, tensors by their shapes alone; a notebook
    gets them as a table, and under it the figure, if there is one. Declare it with `@dataclass(..., repr=False)`,
    and say its verdict in `__str__`.
    """

    def plot(self) -> "Figure":
        """The figure of this result, drawn by matplotlib: `result.plot().savefig("figure.pdf")`.

        Raises InputError for a result that has none (settings, single statements), and where matplotlib is missing.
        """
        return draw_result(self)

    def __repr__(self) -> str:
        """At most some 300 characters. A field that has its default is left out."""
        return _call(self, _MOST)

    def _repr_html_(self) -> str:
        return self._html_table() + html_figure(self)

    def _html_table(self) -> str:
        """The table of a notebook, every text in it escaped."""
        rows = [[name, _cell(getattr(self, name), words)] for name, words in _fields(self)]
        return html_table(["field", "value"], rows, said=str(self).split("\n"))


_MOST = 280  # characters of a repr
_SHORT = 30  # characters of a part that is shown whole
_LONG = 500  # characters of a sentence in a notebook's table


def _cell(value: object, words: str) -> str:
    """A value as a notebook shows it: a text and the sentence of a result are whole; `words` for all else."""
    return printable(str(value), _LONG) if isinstance(value, str | Result) else words


def _fields(result: object) -> list[tuple[str, str]]:
    """(name, value in a few words) of the fields that are not at their default."""
    values = [(field, getattr(result, field.name)) for field in fields(result)]  # type: ignore[arg-type]
    return [(field.name, brief(value)) for field, value in values if not _is_default(value, field.default)]


def _is_default(value: object, default: object) -> bool:
    return value is default or (isinstance(default, bool | int | float | str | tuple) and value == default)


def brief(value: object) -> str:
    """A value in a few words: the shape of a tensor, the names in a mapping, how many entries a list has."""
    if isinstance(value, Tensor | np.ndarray):
        return str([*value.shape])
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return f"{{{list_names(value, 3)}}}"
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"[{len(value)} of {type(value[0]).__name__}]"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(brief, value))}]"
    if isinstance(value, Result) and len(str(value)) <= _SHORT:
        return str(value)
    if isinstance(value, Result) or type(value).__repr__ is object.__repr__:
        return f"{type(value).__name__}(...)"
    if is_dataclass(value):
        return _call(value, 2 * _SHORT)
    return show(value, 2 * _SHORT)


def _call(result: object, most: int) -> str:
    """Name(field=value, ...) in about `most` characters."""
    parts, length = [], len(type(result).__name__)
    for name, value in _fields(result):
        length += len(f"{name}={value}, ")
        parts.append(f"{name}={value}" if length <= most else "...")
        if length > most:
            break
    return f"{type(result).__name__}({', '.join(parts)})"
