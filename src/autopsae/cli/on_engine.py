"""diagnose --on: each layer in a process of its own, here or on a cluster."""

from collections.abc import Callable
from functools import partial
from typing import Any

from autopsae.arrays import InputError
from autopsae.cli.documents import is_model
from autopsae.cli.options.diagnose import DiagnoseOptions, Spreading
from autopsae.cli.terminal import check_places, progress_bar, progress_on
from autopsae.cluster.diagnose import survey_on
from autopsae.cluster.engine import open_engine
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.survey import Survey
from autopsae.urls import refuse_url


def check_spreading(options: DiagnoseOptions) -> None:
    """InputError for options of an engine without one, and for what no engine is asked to do."""
    asked = options.spreading
    if asked.on is None:
        if asked != Spreading():
            raise InputError("--work, --split: expected --on with them, got none")
        return
    if asked.work is None:
        raise InputError("--on: expected --work DIR with it, a folder that keeps what is done and that all see")
    refuse_url(asked.work, "a folder that can be locked", "name one on a disk that all machines see")
    check_places(folder=asked.work)
    if is_model(options.source):
        raise InputError("--on: expected with activations, got a model; harvest it first")
    for name, given in (("device", options.device), ("plan", options.plan)):
        if given:
            raise InputError(f"--{name}: expected without --on; leave one of them out")


def spread_survey(
    options: DiagnoseOptions, settings: dict[str, Any], judged: Callable[[Diagnosis], None]
) -> Survey:
    """The diagnoses of all layers, from an engine."""
    asked = options.spreading
    assert asked.on is not None
    assert asked.work is not None
    with progress_bar("starting") as (bar, task):
        return survey_on(
            partial(open_engine, asked.on, asked.work.resolve()),
            options.source,
            asked.work,
            layers=options.layers,
            tokens=None if asked.split else options.tokens,
            split=asked.split,
            lengths=options.padding.lengths,
            mask=options.padding.mask,
            **{name: value for name, value in settings.items() if name != "plan"},
            repeated=options.repeated,
            exact=options.exact,
            judged=judged,
            progress=progress_on(bar, task),
        )
