"""Programs in processes of their own, forked from one process that has imported PyTorch and the verbs.

A new Python takes 2 to 3 seconds to import PyTorch. Here one process imports it, does nothing else, and forks for
each program. As the process of a user, a fork has its own memory, signals, standard streams and exit code, and
checks no shapes. A new Python is needed where a test is about the import itself: what is imported, a signal while
it lasts, a variable that is read in it (OMP_NUM_THREADS).
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple, TextIO

CONTEXT = multiprocessing.get_context("forkserver")
LOOPS = [f"autopsae.kernels.numba_{name}" for name in ("adam", "choose", "sums")]
CONTEXT.set_forkserver_preload(["tests.preloaded", *LOOPS, "matplotlib.figure", "pandas", "pytest"])
SECONDS = 300
"""A process that takes longer hangs."""


class Streams(NamedTuple):
    """The files that standard output and standard error go into."""

    out: Path
    err: Path


Work = Callable[[list[str]], None]


def command(words: list[str]) -> None:
    """As `python -m autopsae WORDS` does."""
    from autopsae.cli.main import main

    sys.argv = ["autopsae", *words]
    main()


def code(words: list[str]) -> None:
    """As `python -c WORDS` does."""
    sys.argv = ["-c", *words[1:]]
    exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})


def file(words: list[str]) -> None:
    """As `python WORDS` does."""
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def _forked(work: Work, words: list[str], streams: Streams, folder: Path, environment: dict[str, str]) -> None:
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    # Those that came with the fork know where the first process wrote: a file, where here may be a pipe.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    work(words)


def _start(work: Work, words: tuple[object, ...], streams: Streams, folder: Path | None) -> ForkServerProcess:
    arguments = (work, [*map(str, words)], streams, folder or Path.cwd(), dict(os.environ))
    process = CONTEXT.Process(target=_forked, args=arguments)
    process.start()
    return process


def _wait(process: ForkServerProcess) -> int:
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def run(work: Work, *words: object, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """A `command`, `code` or `file` to its end, in a folder: how it ended and what it printed."""
    with tempfile.TemporaryDirectory(prefix="streams-") as place:
        streams = Streams(Path(place) / "out", Path(place) / "err")
        exit_code = _wait(_start(work, words, streams, folder))
        out, err = (path.read_text() for path in streams)
    return subprocess.CompletedProcess([*map(str, words)], exit_code, out, err)


class Running(NamedTuple):
    """A process at its work."""

    process: ForkServerProcess
    lines: TextIO
    """Its standard output."""
    errors: Path
    """The file of its standard error."""


@contextmanager
def running(work: Work, *words: object) -> Iterator[Running]:
    """A `command`, `code` or `file` at its work; its end is waited for when the block ends."""
    with tempfile.TemporaryDirectory(prefix="streams-") as place:
        streams = Streams(Path(place) / "out", Path(place) / "err")
        os.mkfifo(streams.out)
        process = _start(work, words, streams, None)
        with streams.out.open() as lines:
            try:
                yield Running(process, lines, streams.err)
            except BaseException:
                process.kill()
                raise
            finally:
                _wait(process)


def children(process: int) -> set[int]:
    """All processes under one, by their ids."""
    parents = dict[int, int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    under, new = set[int](), {process}
    while new := {child for child, parent in parents.items() if parent in new}:
        under |= new
    return under


def command_of(process: int) -> str:
    """What a process was started with; "" where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def wait_for(is_so: Callable[[], bool]) -> None:
    """Until something is so, which it must be soon."""
    until = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)
