"""autopsae harvest MODEL OUT: a model's activations on text, as shards on disk."""

from typing import Any

import torch

from autopsae.activations.harvest_text import harvest_text
from autopsae.activations.presets import load_model, python_reference_text
from autopsae.activations.room import Room
from autopsae.activations.store import Activations
from autopsae.activations.texts import documents_in
from autopsae.arrays import InputError
from autopsae.cli.options.harvest import HarvestOptions, Replicas
from autopsae.cli.printing import print_line, print_note
from autopsae.cli.terminal import check_places, progress_bar, progress_on, take_device
from autopsae.cluster.engine import open_engine
from autopsae.cluster.harvest import JOBS, harvest_text_on
from autopsae.urls import refuse_url


def harvest(options: HarvestOptions) -> None:
    """Write activations into a folder. Raises InputError and HarvestInterrupted."""
    _check_replicas(options)
    harvested = _harvest(options)
    first = next(iter(harvested.values()))
    print_line(f"{options.out}: {len(harvested)} layers of {first.tokens:,} tokens")


def _harvest(options: HarvestOptions) -> dict[str, Activations]:
    """What is harvested, by this process or by those of an engine."""
    asked = options.replicas
    engine = open_engine(asked.on, asked.work.resolve()) if asked.on and asked.work else None
    # Of an engine's processes, each looks for the device itself.
    device = "cpu" if engine else take_device(options.device) or "cpu"
    documents = documents_in(options.text) if options.text else python_reference_text()
    with progress_bar(f"loading {options.model}") as (bar, task):

        def announce(room: Room) -> None:
            print_note(f"{options.out}: {room}", bar.console)

        common: dict[str, Any] = {
            "layers": options.layers or None,
            "context": options.context,
            "batch_size": options.batch_size,
            "tokens": options.tokens,
            "skip_first": options.skip_first,
            "skip_ids": options.skip_ids,
            "dtype": getattr(torch, options.dtype),
            "announce": announce,
            "progress": progress_on(bar, task),
        }
        if engine is None:
            return harvest_text(load_model(options.model, device=device), documents, options.out, **common)
        assert asked.work is not None
        return harvest_text_on(
            lambda: engine,
            options.model,
            documents,
            options.out,
            asked.work,
            jobs=JOBS if asked.jobs is None else asked.jobs,
            device=options.device,
            **common,
        )


def _check_replicas(options: HarvestOptions) -> None:
    """InputError for options of an engine without one, and for what an engine cannot do."""
    asked = options.replicas
    if asked.on is None:
        if asked != Replicas():
            raise InputError("--work, --jobs: expected --on with them, got none")
        return
    if asked.work is None:
        raise InputError("--on: expected --work DIR with it, a folder that keeps what is done and that all see")
    refuse_url(asked.work, "a folder that can be locked", "name one on a disk that all machines see")
    check_places(folder=asked.work)
    if asked.work.resolve() == options.out.resolve():
        raise InputError(f"--work: expected another folder than OUT, got {asked.work} for both; name another one")
    if asked.on.partition(":")[0] == "ray" and options.device != "cpu":
        raise InputError(
            f"--device: expected cpu with --on ray, which gives a job a core and no GPU, got {options.device}; "
            "leave it out, or use --on slurm"
        )
