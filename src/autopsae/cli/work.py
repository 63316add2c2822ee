"""The work of a verb, and one line for whatever goes wrong."""

from collections.abc import Sequence
from importlib import import_module

from autopsae.activations.shards import HarvestInterrupted
from autopsae.arrays import InputError
from autopsae.cli import interrupts
from autopsae.cli.config import add_settings, with_config
from autopsae.cli.overwriting import check_overwriting
from autopsae.cli.parsing import Options
from autopsae.cli.printing import print_error, print_note
from autopsae.cli.quiet import quiet_hub
from autopsae.training.one import Diverged

_INTERRUPTED = "interrupted; what was written before is whole; the same can be run again"


def work(verb: str, words: Sequence[str], options: Options) -> int:
    """Do what a verb is asked for, and return the exit code. words: those that `options` were read from."""
    quiet_hub()
    act = getattr(import_module(f"autopsae.cli.{verb}"), verb)
    try:
        with interrupts.raise_signals():
            options = with_config(verb, words, options)
            check_overwriting(verb, options)
            with add_settings(verb, options):
                act(options)
    except SystemExit as asked:  # a value of the file that an option does not take
        return asked.code if isinstance(asked.code, int) else 0
    except (InputError, HarvestInterrupted, Diverged, OSError) as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt as interrupt:
        print_note(str(interrupt) or _INTERRUPTED)
        return interrupts.exit_code()
    except Exception:
        # Code in C that a signal interrupts may make another exception of it (matplotlib: "Invalid bounding box").
        if not interrupts.is_interrupted():
            raise
        print_note(_INTERRUPTED)
        return interrupts.exit_code()
    return 0
