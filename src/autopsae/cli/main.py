"""The entry point: it makes the streams and the signals safe before anything heavy is imported."""

import sys

from autopsae.cli.interrupts import install
from autopsae.cli.streams import guarded


def main() -> None:
    """Run the verb of the command line, and exit with its code, unless that is 0.

    It is 0 also where the reader of standard output had enough. It is 2 for bad input, training that diverged, a
    full disk, and what could not be printed: each is one line. It is 130 after Ctrl-C, 143 after SIGTERM.
    """
    with guarded():
        install()
        from autopsae.cli.verbs import run

        code = run(sys.argv[1:])
    if code:
        sys.exit(code)
