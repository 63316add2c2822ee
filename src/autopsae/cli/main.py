"""The entry point: one verb a module, and one line for whatever goes wrong."""

import sys

import tyro
from rich.console import Console
from rich.markup import escape

from autopsae.activations.shards import HarvestInterrupted
from autopsae.arrays import InputError
from autopsae.cli.autopsy import autopsy
from autopsae.cli.convert import convert
from autopsae.cli.diagnose import diagnose
from autopsae.cli.harvest import harvest
from autopsae.cli.train import train
from autopsae.training.loop import Diverged


def main() -> None:
    """Run the verb of the command line. Bad input and a full disk end with one line and code 2, Ctrl-C with 130."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"autopsy": autopsy, "convert": convert, "diagnose": diagnose, "harvest": harvest, "train": train},
            prog="autopsae",
        )
    except (InputError, HarvestInterrupted, Diverged, OSError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; what was written before is whole", highlight=False)
        sys.exit(130)
