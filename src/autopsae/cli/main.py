"""The entry point: it makes the streams and the signals safe before anything heavy is imported."""

import sys

from autopsae.cli.interrupts import install, is_interrupted
from autopsae.cli.streams import guard_streams


def main() -> None:
    """Run the verb of the command line, and exit with its code, unless that is 0.

    It is 0 also where the reader of standard output had enough. It is 2 for bad input, training that diverged, a
    full disk, and what could not be printed: each is one line. It is 130 after Ctrl-C, 143 after SIGTERM.
    """
    with guard_streams():
        install()
        sys.unraisablehook = _unraisable
        from autopsae.cli.verbs import run

        code = run(sys.argv[1:])
    if code:
        sys.exit(code)


def _unraisable(error: "sys.UnraisableHookArgs") -> None:
    """What Python says of objects that fail as they are deleted. An interrupted constructor (of Numba's compiler)
    leaves such objects: after a signal that is no news.
    """
    if not is_interrupted():
        sys.__unraisablehook__(error)
