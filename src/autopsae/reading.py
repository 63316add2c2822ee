"""Reading files that may be anything: regular files only, JSON within bounds, one error class.

Our own files and those of others are read by the same functions, which no file can make wait, fill the memory or
end in another exception than InputError.
"""

import codecs
import json
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.urls import read_url, refuse_url, url_of
from autopsae.words import reason, show

MOST_JSON = 32 * 2**20
"""Bytes of JSON at most: an index of 200,000 shards has fewer."""

DEEPEST = 32
"""Levels of objects and arrays within each other."""

LARGEST_COUNT = 2**53
"""Whole numbers above it are not the same in every reader of JSON."""


@contextmanager
def input_errors(where: object, what: str, again: str = "get it again") -> Iterator[None]:
    """Whatever a reader raises within is one InputError: `where` is not `what`; `again` says what to try."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"{where}: expected {what}, could not read it (there is no such file); check the name"
        ) from error
    except Exception as error:  # damaged bytes can end in any of Python's errors
        raise InputError(f"{where}: expected {what}, could not read it ({reason(error)}); {again}") from error


def is_folder(path: Path) -> bool:
    """False for a regular file. Raises InputError for what is neither, is not there or cannot be opened.

    A pipe would be waited for, and a device has no end.
    """
    refuse_url(path, "a file or a folder of this machine", "copy it to a local disk first")
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file or folder; {_advise_on_name(path)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened ({reason(error)}); check the name") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InputError(f"{path}: expected a regular file or a folder, got a pipe or a device; write it to a file")
    return stat.S_ISDIR(mode)


def _advise_on_name(path: Path) -> str:
    """What to try. A saved SAE or prescription is known by its name without a suffix, and is nothing else."""
    if path.with_name(path.name + ".json").is_file() and path.with_name(path.name + ".safetensors").is_file():
        return "there is an SAE or a prescription of that name, expected are activations"
    return "check the name"


def check_regular(path: Path) -> None:
    """Raises ValueError for a pipe, a device and a folder, and OSError for what cannot be opened."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("a folder, not a file" if stat.S_ISDIR(mode) else "a pipe or a device, not a file")


def read_bytes(path: Path, most: int = MOST_JSON) -> bytes:
    """The content of a regular file. Raises ValueError for what is none, or larger, and OSError."""
    if url := url_of(path):
        return read_url(url, most)
    check_regular(path)
    with path.open("rb") as file:
        return up_to(file, most)


def up_to(file: Any, most: int = MOST_JSON) -> bytes:
    """The rest of an open file. Raises ValueError where it has more bytes than `most`."""
    data: bytes = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"over {most:,} bytes")
    return data


def parse(data: bytes) -> Any:
    """What UTF-8 JSON of ours says. Numbers that are not finite (NaN, 1e999) are absent: None.

    Raises ValueError for anything else than JSON, a name given twice in an object, text that cannot be written
    again, and more than DEEPEST levels.
    """

    def finite(digits: str) -> float | None:
        value = float(digits)
        return value if isfinite(value) else None

    return _parse(data, finite)


def parse_foreign(data: bytes) -> Any:
    """`parse` of a file of others, which may begin with a byte order mark. Numbers that are not finite stay what
    they are, as nothing says that they mean "absent" there.
    """
    return _parse(data.removeprefix(codecs.BOM_UTF8), float)


def _parse(data: bytes, number: Callable[[str], float | None]) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise ValueError("a name stands twice in one object")
        return content

    try:
        content = json.loads(
            data.decode("utf-8"), object_pairs_hook=once, parse_float=number, parse_constant=number
        )
    except RecursionError as error:
        raise ValueError(f"over {DEEPEST} levels within each other") from error
    _check_levels(content)
    return content


def _check_levels(content: Any) -> None:
    level, depth = [content], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"over {DEEPEST} levels within each other")
        for item in level:
            for word in [item] if isinstance(item, str) else item if isinstance(item, dict) else ():
                word.encode()  # a lone surrogate cannot be
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        depth += 1


def read_json(path: Path, what: str = "a JSON file", again: str = "get it again") -> Any:
    """What a JSON file of others holds. Raises InputError, naming `what` was expected, for a file that is missing,
    over `MOST_JSON` bytes, or no JSON.
    """
    with input_errors(path, what, again):
        return parse_foreign(read_bytes(path))


def as_object(value: object, where: object, what: str = "a JSON object") -> dict[str, Any]:
    """A JSON object, or InputError."""
    if not isinstance(value, dict):
        # Of a value that is none of JSON's, such as a tensor, the type says more than its first numbers.
        of_json = value is None or isinstance(value, (bool, int, float, str, list))
        got = show(value, 60) if of_json else type(value).__name__
        raise InputError(f"{where}: expected {what}, got {got}; get it again")
    return value


def read_object(path: Path, what: str = "a JSON object") -> dict[str, Any]:
    """The JSON object that a file of others holds. Raises InputError as `read_json`, and for other JSON."""
    return as_object(read_json(path, what), path, what)


def whole_of(
    content: Mapping[str, Any], name: str, where: object, *, least: int = 0, most: int = LARGEST_COUNT
) -> int:
    """The whole number of this name in a JSON object of others, which may write it as 16.0. Raises InputError."""
    value = content.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(
            f"{where}: {name}: expected a whole number from {least:,} to {most:,}, got {show(value)}; correct it "
            "there"
        )
    return value
