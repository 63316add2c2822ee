"""Files at a URL, of all stores that fsspec knows: listed, read in pieces and written, with a limit on each wait.

A URL is given as text, or as a Path, which writes s3://bucket/name as s3:/bucket/name: `url_of` tells both. Keys
and addresses come from where the store's own tools take them (AWS_PROFILE, AWS_ENDPOINT_URL).
"""

import errno
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from queue import Empty
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from autopsae.arguments import number_told
from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.threads import answer_within
from autopsae.words import printable, reason

Answer = TypeVar("Answer")

TIMEOUT = "AUTOPSAE_TIMEOUT"
"""Names the variable of the environment that says how many seconds to wait for an answer of a store."""
SECONDS = 60.0
"""The limit where that variable is not set. An answer has `BLOCK` bytes at most for each of `AT_ONCE` requests."""
TRIES = 3
"""A request that fails, or is not answered in time, is made so often."""
PAUSE = 0.5
"""Seconds before the second try; twice as many before the third."""
BLOCK, AT_ONCE = 4 * 2**20, 4
"""Bytes that are asked for in one request, and requests at once."""
SLOWEST = 1e6
"""Bytes a second: an upload that is slower is taken to hang."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(?!/)(.*)", re.DOTALL)
_LOCAL = ("file", "local")
_READ_ONLY = ("http", "https")
_WHOLE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory", "oci", "oss")
"""Stores in which an object is there when all of it is, so that no name of its own is needed until then."""
_MARKS = ("ETag", "etag", "generation", "md5", "md5Hash", "LastModified", "last_modified", "mtime", "created")
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""What does not change when the same is asked again."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def url_of(path: object) -> str | None:
    """The URL that a text or a Path is; None for a path of this machine."""
    text = os.fspath(path) if isinstance(path, str | Path) else ""
    match = _URL.fullmatch(text.replace("\\", "/") if os.name == "nt" else text)
    if match is None:
        return None
    scheme = match[1].lower()
    return f"{scheme}:///{match[2]}" if scheme in _LOCAL else f"{scheme}://{match[2]}"


def absolute(path: str | Path) -> Path:
    """The path as another process finds it, wherever it runs; of a URL the URL."""
    return Path(path) if url_of(path) else Path(path).resolve()


def name_of(url: str) -> str:
    """The last name in a URL, without what follows a question mark in an address of the web."""
    return PurePosixPath(urlsplit(url).path if is_of_the_web(url) else url).name


def is_of_the_web(url: str) -> bool:
    """Whether it is an address of the web: files can be read there, not listed, and not written."""
    return url.startswith(_READ_ONLY)


def refuse_url(path: object, what: str, advice: str) -> None:
    """InputError where `path` is a URL. what: is expected in its place; advice: what to do instead."""
    if url := url_of(path):
        raise InputError(f"{printable(url)}: expected {what}, got a URL; {advice}")


class State(NamedTuple):
    """What a store tells of a file: its bytes, and `_MARKS`, which another one of the same name has not."""

    size: int
    marks: tuple[str, ...]


def state_of(url: str) -> State:
    """What the store tells of a file. Raises InputError for what is no file, or tells no size."""
    system, path = _system(url)
    told = _ask(url, lambda: system.info(path))
    marks = tuple(f"{name} {told[name]}" for name in _MARKS if told.get(name) is not None)
    if told.get("type") == "directory" or not isinstance(told.get("size"), int):
        raise InputError(f"{url}: expected a file whose size the store tells, got none; copy it to a local disk")
    return State(int(told["size"]), marks)


def check_state(url: str, state: State) -> None:
    """InputError where the file is no longer the one of which the store told this."""
    if state_of(url) != state:
        raise InputError(f"{url}: expected one file while it is read, got another of the same name; run it again")


def is_there(url: str) -> bool:
    """Whether there is a file or a folder of that name."""
    system, path = _system(url)
    return bool(_ask(url, lambda: system.exists(path)))


def is_file_there(path: Path) -> bool:
    """Whether there is a file, on this machine or at a URL."""
    url = url_of(path)
    return is_there(url) if url else path.is_file()


def list_folder(url: str) -> dict[str, int | None]:
    """What lies in a folder: the names of files with their bytes, those of folders with None.

    Raises InputError where there is nothing.
    """
    system, path = _system(url)
    listed = _ask(url, lambda: system.ls(path, detail=True))
    held = {
        PurePosixPath(one["name"]).name: None if one["type"] == "directory" else int(one["size"] or 0)
        for one in listed
        if one["name"].strip("/") != str(path).strip("/")
    }
    if not held:
        raise InputError(f"{url}: expected files, found none; check the name")
    return held


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes begin ... end - 1 of each range, asked for at once; those after the first that failed are left out,
    at least one is there. Raises InputError where the store gives none in time, or others than those.
    """
    system, path = _system(url)
    begins, ends = (list(bounds) for bounds in zip(*ranges, strict=True))

    def act() -> list[bytes]:
        answers = system.cat_ranges([path] * len(ranges), begins, ends, on_error="return")
        got = list[bytes]()
        for answer, begin, end in zip(answers, begins, ends, strict=True):
            if isinstance(answer, BaseException):
                if not got:
                    raise answer
                break
            if len(answer) != end - begin:
                if not got:
                    raise EOFError(f"{len(answer):,} bytes for the {end - begin:,} from {begin:,} on")
                break
            got.append(bytes(answer))
        return got

    return _ask(url, act)


def read_url(url: str, most: int) -> bytes:
    """The content of a file. Raises ValueError where it has more bytes than `most`, and as `read_ranges`."""
    state = state_of(url)
    if state.size > most:
        raise ValueError(f"over {most:,} bytes")
    blocks: list[bytes] = []
    while (done := sum(map(len, blocks))) < state.size:
        blocks += read_ranges(url, block_ranges(done, state.size))
    if state.size:
        check_state(url, state)
    return b"".join(blocks)


def block_ranges(begin: int, end: int) -> list[tuple[int, int]]:
    """The next ranges to ask for at once."""
    stop = min(end, begin + AT_ONCE * BLOCK)
    return [(first, min(first + BLOCK, stop)) for first in range(begin, stop, BLOCK)]


def put(local: Path, url: str) -> None:
    """Write a local file to a URL, whole or not at all. Raises InputError where the store does not take it, and
    OSError where it is full.
    """
    check_target(url)
    system, path = _system(url)
    parent, name = str(PurePosixPath(path).parent), PurePosixPath(path).name
    seconds = _limit() + local.stat().st_size / SLOWEST
    if urlsplit(url).scheme in _WHOLE:
        _ask(url, lambda: system.put_file(str(local), path), seconds)
        return
    partial = f"{parent}/.{name[:40]}.{uuid4().hex}.partial"

    def act() -> None:
        system.makedirs(parent, exist_ok=True)
        try:
            system.put_file(str(local), partial)
            system.mv(partial, path)
        except BaseException:
            if system.exists(partial):
                system.rm_file(partial)
            raise

    _ask(url, act, seconds)


def remove_file(path: Path) -> None:
    """Remove a file, of this machine or at a URL."""
    if url := url_of(path):
        system, there = _system(url)
        _ask(url, lambda: system.rm_file(there))
    else:
        path.unlink(missing_ok=True)


def check_target(url: str) -> None:
    """InputError where nothing can be written at `url`, as far as that can be known before."""
    system, path = _system(url)
    bucket = str(path).strip("/").split("/")[0]
    if is_of_the_web(url):
        raise InputError(
            f"{url}: expected a store that is written to, got an address of the web; write to s3:// or gs://"
        )
    if urlsplit(url).scheme in ("s3", "s3a", "gs", "gcs") and not _ask(url, lambda: system.exists(bucket)):
        raise InputError(f"{url}: expected a bucket that is there, got {printable(bucket)}; check the name")


def _system(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path in it). Listings are not kept: others write to the store too."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise package_error(printable(url), "fsspec", error, install="autopsae[stores]") from error
    try:
        system, path = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        scheme = urlsplit(url).scheme
        named = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(
            scheme, f"that fsspec needs for {scheme}"
        )
        raise package_error(printable(url), named, error, install="autopsae[stores]") from error
    except ValueError as error:
        raise InputError(
            f"{url}: expected a URL as s3://BUCKET/NAME that fsspec knows ({reason(error)})"
        ) from error
    return system, str(path)


def _limit() -> float:
    """Seconds to wait for an answer."""
    return number_told(TIMEOUT, SECONDS, "seconds")


def _ask(url: str, act: Callable[[], Answer], seconds: float | None = None) -> Answer:
    """What `act` returns, in time; it is tried again where that may help. Raises InputError, and OSError where the
    store is full.
    """
    limit = seconds or _limit()
    for number in range(TRIES):
        try:
            return answer_within(limit, act)
        except InputError:
            raise
        except Empty:
            fault = f"nothing in {limit:g} s ({TIMEOUT} allows more)"
        except _LASTING as error:
            said = "there is no such file" if isinstance(error, FileNotFoundError) else reason(error)
            raise InputError(
                f"{url}: expected a file or a folder that can be used ({said}); check the name"
            ) from error
        except Exception as error:
            if getattr(error, "errno", None) in _NO_SPACE:
                raise
            if "Credentials" in type(error).__name__:
                raise InputError(
                    f"{url}: expected keys for the store ({reason(error)}); set them as its tools do"
                ) from error
            fault = reason(error)
        if number + 1 < TRIES:
            time.sleep(PAUSE * 2**number)
    raise InputError(
        f"{url}: expected the store to answer, tried {TRIES} times and got {fault}; see that it can be reached, "
        "and run the same again"
    )
