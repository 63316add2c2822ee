"""What is no regular file and is written through: pipes, devices, and this process' own open files."""

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from autopsae.arrays import InputError

_DESCRIPTOR = re.compile(r"(?:/dev/fd|/proc/(?:self|thread-self)/fd)/(\d+)")
_PATIENCE = 10.0  # seconds until somebody must read a pipe


def descriptor_of(path: Path) -> int | None:
    """The number of this process' own open file that is meant by /dev/stdout, /dev/fd/N or a link to them."""
    name = os.path.abspath(path)
    for _ in range(40):  # as many links as the system follows
        if match := _DESCRIPTOR.fullmatch(name):
            return int(match[1])
        if not os.path.islink(name):
            return None
        name = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(name)))
    return None


def write_through(path: Path, descriptor: int | None, write: Callable[[Path], None]) -> None:
    """Copy what `write` leaves, as a pipe cannot be written by writers that go back in their file."""
    with TemporaryDirectory() as folder:
        temporary = Path(folder) / "partial"
        write(temporary)
        with _open(path, descriptor) as out, temporary.open("rb") as written:
            shutil.copyfileobj(written, out)


def _open(path: Path, descriptor: int | None) -> BinaryIO:
    if descriptor is not None:
        # What was printed before must come before; opened by its name, a redirected file would be cut.
        sys.stdout.flush()
        return os.fdopen(os.dup(descriptor), "wb")
    if not path.is_fifo():
        return path.open("wb")
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            number = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise InputError(
                    f"{path}: expected a process that reads this pipe, got none in {_PATIENCE:g} s; start it first"
                ) from error
            time.sleep(0.02)
        else:
            os.set_blocking(number, True)
            return os.fdopen(number, "wb")
