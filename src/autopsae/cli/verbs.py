"""All verbs, one a module, and one line for whatever goes wrong."""

import sys
from collections.abc import Sequence

import tyro

from autopsae.activations.shards import HarvestInterrupted
from autopsae.arrays import InputError
from autopsae.cli import interrupts
from autopsae.cli.autopsy import autopsy
from autopsae.cli.convert import convert
from autopsae.cli.diagnose import diagnose
from autopsae.cli.harvest import harvest
from autopsae.cli.printing import print_error, print_note
from autopsae.cli.streams import unwritten
from autopsae.cli.train import train
from autopsae.training.loop import Diverged


def run(arguments: Sequence[str]) -> int:
    """Run a verb, and return the exit code."""
    code = _run(arguments)
    if (failure := unwritten(sys.stdout)) and code == 0:
        print_error(f"standard output: cannot be written ({failure.strerror}); files that were asked for are whole")
        return 2
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        with interrupts.raised():
            tyro.extras.subcommand_cli_from_dict(
                {"autopsy": autopsy, "convert": convert, "diagnose": diagnose, "harvest": harvest, "train": train},
                prog="autopsae",
                args=arguments,
            )
    except SystemExit as asked:  # --help, and options that there are not
        return asked.code if isinstance(asked.code, int) else 0
    except (InputError, HarvestInterrupted, Diverged, OSError) as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt as interrupt:
        print_note(str(interrupt) or "interrupted; what was written before is whole; the same can be run again")
        return interrupts.exit_code()
    return 0
