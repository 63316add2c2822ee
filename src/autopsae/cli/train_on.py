"""train --on: the SAEs of a sweep in processes of their own, here or on a cluster."""

import json
from collections.abc import Mapping, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.cli.config import add_settings, settings_of, with_config
from autopsae.cli.interrupts import job_signals
from autopsae.cli.options.train import Jobs, TrainOptions
from autopsae.cli.parsing import parse_options
from autopsae.cli.prepare import choices_asked, make_members, prepare, provenance_asked
from autopsae.cli.terminal import progress_bar
from autopsae.cluster.engine import open_engine
from autopsae.cluster.manifest import Job, run_jobs
from autopsae.files import write_text
from autopsae.progress import Progress
from autopsae.provenance import add_provenance
from autopsae.run.driver import Interrupted
from autopsae.run.many import Elsewhere, folders_of, train_group

FOLDER = "jobs"
"""In OUT: the manifest of the jobs, and what they are asked for."""


def check_jobs(options: TrainOptions, *, many: bool) -> None:
    """InputError for options of an engine without one, for what no engine is asked to do, and for a single SAE."""
    asked = options.jobs
    if asked.on is None:
        if asked != Jobs():
            raise InputError("--jobs: expected --on with it, got none")
        return
    if asked.jobs is not None and asked.jobs < 1:
        raise InputError(f"--jobs: expected at least one, got {asked.jobs}")
    if not many:
        raise InputError("--on: expected several SAEs (--lr 1e-4,3e-4), got one; leave --on out")
    if options.device:
        raise InputError("--device: expected without --on; leave one of them out")
    open_engine(asked.on, options.out / FOLDER)  # an engine that cannot be had is told before anything is written


def spread_groups(options: TrainOptions, progress: Progress) -> Elsewhere:
    """What trains the groups of a sweep on the engine that is asked for. progress: told those done, as "jobs"."""
    folder = options.out.resolve() / FOLDER

    def elsewhere(groups: Mapping[int, Sequence[str]]) -> None:
        assert options.jobs.on is not None
        settings = settings_of(options)
        source = str(settings.pop("source"))
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "options.json"
        write_text(config, json.dumps(settings))
        words = [source, "--out", str(options.out.resolve()), "--config", str(config), "--resume"]
        common = {"words": words, "folder": str(Path.cwd())}
        jobs = dict[str, Job]()
        for number, names in groups.items():
            folders = folders_of(options.out.resolve(), names)
            task = {**common, "number": number, "names": [*names]}
            jobs[str(number)] = Job(task=task, results=tuple(one / "summary.json" for one in folders.values()))
        engine = partial(open_engine, options.jobs.on, folder)
        request = {"source": source, "settings": settings}
        try:
            run_jobs(engine, train_members_of_job, jobs, folder, request=request, progress=progress)
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"interrupted; what is done is in {options.out}; resume (run the same with --resume) to go on from "
                "the checkpoints there"
            ) from error

    return elsewhere


def train_members_of_job(*, words: list[str], folder: str, number: int, names: list[str]) -> None:
    """The task of a group of a sweep: the members of these names, into their folders.

    words: of the command line, with --config; folder: where its paths begin.
    """
    with job_signals(), chdir(folder):
        options = with_config("train", words, parse_options("train", words))
        assert isinstance(options, TrainOptions)
        with add_settings("train", options):
            prepared = prepare(options, choices_asked(options))
            with provenance_asked(prepared), progress_bar("", is_shown=False) as (bar, task):
                made = make_members(prepared, names, options.device, bar, task)
                with add_provenance(digest=made.digest):
                    train_group(
                        made.entries,
                        made.tokens,
                        prepared.held,
                        options.out,
                        number,
                        plan=prepared.plan,
                        observer=made.observer,
                    )
