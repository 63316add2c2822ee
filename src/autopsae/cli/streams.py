"""Standard output and standard error that cannot fail: what cannot be written there costs no result.

Nothing heavy is imported here: the streams are guarded before anything else happens.
"""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EPIPE
from typing import Any, TextIO, cast

from autopsae.words import printable

# Colours, and what a progress bar needs: erase a line, go up, hide the cursor. No screen is cleared, no title set.
_HARMLESS = re.compile(r"(\x1b\[[0-9;]*m|\x1b\[[0-9]*[AK]|\x1b\[\?25[hl]|[\r\n\t])")


class Guarded(io.TextIOBase):
    """A stream that never raises: it goes silent at the first failure, and keeps that as `failure`.

    Characters that its encoding lacks become question marks, and all control characters become escapes except for
    those of colours and progress bars, whoever writes them.
    """

    def __init__(self, stream: TextIO | io.TextIOBase) -> None:
        self._stream = cast(TextIO, stream)
        self.failure: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    @property
    def buffer(self) -> Any:
        return self._stream.buffer

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.failure is None:
            try:
                self._stream.write(harmless(text))
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        # What still lies in the buffer would fail once more when Python ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def harmless(text: str) -> str:
    """`text` with every control character as an escape, save those of colours and progress bars."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(piece if i % 2 else printable(piece) for i, piece in enumerate(_HARMLESS.split(text)))


@contextmanager
def guard_streams() -> Iterator[None]:
    """In this context sys.stdout and sys.stderr are guarded."""
    _fill_closed()
    before = sys.stdout, sys.stderr
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stdout, sys.stderr = (Guarded(stream or nowhere) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        nowhere.close()


def _fill_closed() -> None:
    """Open nothing in the place of standard streams that were closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The next file that is opened would get its number, and what is printed. Read-only, so that
            # `--json /dev/stdout` is an error then.
            os.open(os.devnull, os.O_RDONLY)


def unwritten(stream: object) -> OSError | None:
    """Why not all that was printed on a guarded stream was written; None also where its reader had enough."""
    if not isinstance(stream, Guarded):
        return None
    stream.flush()
    failure = stream.failure
    return None if failure is None or failure.errno == EPIPE else failure
