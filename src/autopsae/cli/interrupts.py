"""Ctrl-C and the signals that end a process (SIGTERM, SIGHUP; Ctrl-Break on Windows), each when it does no harm.

While modules are imported they end the process at once; while a verb runs they raise KeyboardInterrupt
(`raise_signals`); while steps are taken they wait until the step is done (`delay_signals`). A second one ends the
process at once, whatever it does. Only the command line handles signals, never the library. Nothing heavy is
imported here.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


class _Moment:
    """What a signal does now: it ends the process unless `ready`, and waits where `delayed`."""

    ready = False
    delayed = False
    received: int | None = None
    """The signal that came, of which there can be one: the second ends the process."""


def install() -> None:
    """Handle the signals, except those that the process was told to ignore (nohup, a job in the background)."""
    _Moment.ready, _Moment.delayed, _Moment.received = False, False, None
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _receive)


@contextmanager
def raise_signals() -> Iterator[None]:
    """All is imported: in this context a signal raises KeyboardInterrupt."""
    _Moment.ready = True
    try:
        yield
    finally:
        _Moment.ready = False


@contextmanager
def job_signals() -> Iterator[None]:
    """In a process that an engine started for a job: in this context the first signal raises KeyboardInterrupt, or
    waits (`delay_signals`), and all others are ignored. Who started the process may tell it by several ways, and
    kills it where it does not end. After the context, signals do what they did before.
    """
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _receive_in_job) for number in handled}
    _Moment.delayed, _Moment.received = False, None
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_interrupted() -> bool:
    """Whether a signal came."""
    return _Moment.received is not None


def exit_code() -> int:
    """128 plus the number of the signal that came: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (_Moment.received or signal.SIGINT)


@contextmanager
def delay_signals() -> Iterator[Callable[[], bool]]:
    """In this context the first signal waits; what is yielded says whether one does. Raises KeyboardInterrupt at
    the end of the context where one has waited in vain.
    """
    _Moment.delayed = True
    try:
        yield lambda: _Moment.received is not None
    finally:
        _Moment.delayed = False
    if _Moment.received is not None:
        raise KeyboardInterrupt


def _receive(number: int, frame: FrameType | None) -> None:
    if _Moment.received is not None or not _Moment.ready:
        # Not through sys.stderr, in the midst of whose work the signal may have come.
        _tell(b"interrupted again; ended at once\n" if _Moment.received is not None else b"interrupted\n")
        os._exit(128 + number)
    _Moment.received = number
    if _Moment.delayed:
        _tell(b"interrupted; ends when this step is done; once more ends at once\n")
    else:
        raise KeyboardInterrupt


def _receive_in_job(number: int, frame: FrameType | None) -> None:
    if _Moment.received is None:
        _Moment.received = number
        if not _Moment.delayed:
            raise KeyboardInterrupt


def _tell(line: bytes) -> None:
    # A progress bar has hidden the cursor.
    shown = b"\r\x1b[?25h" if os.isatty(2) else b""
    try:
        os.write(2, shown + line)
    except OSError:
        return
