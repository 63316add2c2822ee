"""Rows of a result file, a line each, so that a new one is a line of its commit."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autopsae.files import write_text

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where it is not there."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """All at once: whoever reads meanwhile, or after a kill, has the old or the new. Raises ValueError at NaN."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    write_text(path, f"[\n{lines}\n]\n")
