"""Results as tables: rows for a data frame, CSV and Parquet files, a plain HTML table for notebooks."""

import csv
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.extras import missing
from autopsae.files import write_whole

Columns = Mapping[str, list[Any]]


def frame(columns: Columns) -> Any:
    """A pandas DataFrame. Raises InputError where pandas is missing."""
    return import_pandas().DataFrame(columns)


def import_pandas() -> Any:
    """The module. Raises InputError where it is missing."""
    try:
        import pandas
    except ImportError as error:
        raise missing("to_frame", "pandas", error, install="autopsae[report]") from error
    return pandas


def save_table(columns: Columns, path: str | Path) -> None:
    """Write .csv or .parquet, whole or not at all. Raises InputError as `check_table`."""
    path = Path(path)
    check_table(path)

    def write(temporary: Path) -> None:
        if path.suffix == ".parquet":
            frame(columns).to_parquet(temporary, index=False)
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    write_whole(path, write)


def check_table(path: Path) -> None:
    """InputError unless a table can be written under this name: to be known before the work, not after."""
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: expected a table named .csv or .parquet, got {path.suffix or 'no suffix'!r}")
    if path.suffix == ".parquet":
        try:
            import pandas  # noqa: F401
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise missing(f"{path} (or name a .csv)", "pyarrow", error, install="autopsae[report]") from error


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"birth": {"none": {"dead": 0.9}}} -> {"birth.none.dead": 0.9}."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A table with notes under it; every text is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    under = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{under}</ul>"
