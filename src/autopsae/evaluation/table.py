"""Columns as a data frame, and as a file: CSV from the standard library, Parquet where pandas and pyarrow are."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.files import write_whole

Columns = Mapping[str, list[Any]]


def frame(columns: Columns) -> Any:
    """A pandas DataFrame. Raises InputError where pandas is missing."""
    try:
        import pandas
    except ImportError as error:
        raise InputError("to_frame: needs pandas: pip install 'autopsae[report]'") from error
    return pandas.DataFrame(columns)


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
            raise InputError(f"{path}: Parquet needs pip install 'autopsae[report]'; or name a .csv") from error
