"""autopsae harvest MODEL OUT: a model's activations on text, as shards on disk."""

import torch

from autopsae.activations.harvest_text import harvest_text
from autopsae.activations.presets import load_model, python_reference_text
from autopsae.activations.room import Room
from autopsae.activations.texts import documents_in
from autopsae.cli.options.harvest import HarvestOptions
from autopsae.cli.printing import print_line, print_note
from autopsae.cli.terminal import progress_bar, progress_on, take_device


def harvest(options: HarvestOptions) -> None:
    """Write activations into a folder. Raises InputError and HarvestInterrupted."""
    device = take_device(options.device) or "cpu"
    documents = documents_in(options.text) if options.text else python_reference_text()
    with progress_bar(f"loading {options.model}") as (bar, task):
        language_model = load_model(options.model, device=device)

        def announce(room: Room) -> None:
            print_note(f"{options.out}: {room}", bar.console)

        harvested = harvest_text(
            language_model,
            documents,
            options.out,
            layers=options.layers or None,
            context=options.context,
            batch_size=options.batch_size,
            tokens=options.tokens,
            skip_first=options.skip_first,
            skip_ids=options.skip_ids,
            dtype=getattr(torch, options.dtype),
            announce=announce,
            progress=progress_on(bar, task),
        )
    first = next(iter(harvested.values()))
    print_line(f"{options.out}: {len(harvested)} layers of {first.tokens:,} tokens")
