"""The texts of a dataset of the Hugging Face Hub, streamed.

The package datasets reads it: `pip install 'autopsae[datasets]'`. It is imported only when a dataset is asked for.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from autopsae.activations.sources import one_line
from autopsae.activations.texts import check_text
from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.words import list_names

ROWS = 10_000
"""Rows that are read: a dataset may be larger than any disk."""


def texts_of_dataset(name: str, *, rows: int = ROWS) -> Iterator[str]:
    """The "text" of each of the first rows of a dataset's "train" split; None and empty ones are left out.

    name: as `datasets.load_dataset` takes it, also a folder of JSON lines.

    Raises InputError where the package is missing, where the dataset cannot be had or breaks off, for rows without
    a "text" or with one that is no string, and where no text is left.
    """
    source = _open(name)
    some = False
    for number, row in enumerate(_watch(itertools.islice(source, rows), name)):
        where = f"{name}: row {number:,}"
        if "text" not in row:
            raise InputError(f'{where}: expected a "text", got the columns {list_names(sorted(row))}')
        text = row["text"]
        if not (text is None or isinstance(text, str)):
            raise InputError(f'{where}: expected a string as "text", got {type(text).__name__}')
        if text and text.strip():
            check_text(text, where)
            some = True
            yield text
    if not some:
        raise InputError(f"{name}: expected rows with some text, got none")


def _open(name: str) -> Iterable[dict[str, Any]]:
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise package_error(name, "datasets", error, install="autopsae[datasets]") from error
    # What goes wrong is said once, by the error that is raised.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(name, split="train", streaming=True)
    except StopIteration:  # of a dataset whose files are empty
        return []
    except Exception as error:
        raise InputError(f"{name}: cannot be had ({one_line(error)})") from error
    return rows


def _watch(rows: Iterable[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        for row in rows:
            yield row
            number += 1
    except InputError:  # of whoever uses the rows
        raise
    except Exception as error:
        raise InputError(
            f"{name}: the stream broke off after {number:,} rows ({one_line(error)}); run the same again, or save "
            "the rows as a .jsonl file first"
        ) from error
