"""From the words of the command line to a verb, and to its exit code."""

import sys
from collections.abc import Sequence

from autopsae.cli.parsing import VERBS, ListByBlanks, choose, nearest, parse_options
from autopsae.cli.printing import print_error, print_line
from autopsae.cli.streams import unwritten
from autopsae.version import version
from autopsae.words import show


def run(arguments: Sequence[str]) -> int:
    """Run a verb, and return the exit code."""
    code = _run(arguments)
    if (failure := unwritten(sys.stdout)) and code == 0:
        print_error(f"standard output: cannot be written ({failure.strerror}); files that were asked for are whole")
        return 2
    return code


def _run(arguments: Sequence[str]) -> int:
    if [*arguments] == ["--version"]:
        print_line(f"autopsae {version()}")
        return 0
    verb, words = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb not in VERBS and verb[:1] not in ("", "-"):
        print_error(f"expected a verb ({', '.join(VERBS)}), got {show(verb)}; try {nearest(verb, [*VERBS])!r}")
        return 2
    try:
        if verb not in VERBS:
            choose(arguments)
        options = parse_options(verb, words)
    except SystemExit as asked:  # --help, and options that there are not
        return asked.code if isinstance(asked.code, int) else 0
    except ListByBlanks as error:
        print_error(str(error))
        return 2
    # Only now: what imports PyTorch takes seconds.
    from autopsae.cli.work import work

    return work(verb, words, options)
