"""train --on: the SAEs of a sweep in processes of their own, here or on a cluster."""

import json
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.cli.config import add_settings, settings_of, with_config
from autopsae.cli.interrupts import job_signals
from autopsae.cli.members import choices_of, with_defaults
from autopsae.cli.options.train import Jobs, TrainOptions
from autopsae.cli.parsing import parse_options
from autopsae.cli.prepare import make_members, prepare, provenance_asked
from autopsae.cli.terminal import progress_bar
from autopsae.cluster.engine import Engine, open_engine
from autopsae.cluster.groups import FOLDER, run_groups
from autopsae.files import write_text
from autopsae.progress import Progress
from autopsae.provenance import add_provenance
from autopsae.run.many import Elsewhere, train_group


def open_asked(options: TrainOptions, *, many: bool) -> Engine | None:
    """The engine that is asked for, opened before anything is written; None without one.

    Raises InputError for options of an engine without one, for what no engine is asked to do, and for a single SAE.
    """
    asked = options.jobs
    if asked.on is None:
        if asked != Jobs():
            raise InputError("--jobs: expected --on with it, got none")
        return None
    if asked.jobs is not None and asked.jobs < 1:
        raise InputError(f"--jobs: expected at least one, got {asked.jobs}")
    if not many:
        raise InputError("--on: expected several SAEs (--lr 1e-4,3e-4), got one; leave --on out")
    if options.device:
        raise InputError("--device: expected without --on; leave one of them out")
    return open_engine(asked.on, options.out.resolve() / FOLDER)


def spread_groups(options: TrainOptions, engine: Engine, progress: Progress) -> Elsewhere:
    """What trains the groups of a sweep on the engine. progress: told those done, as "jobs"."""
    out = options.out.resolve()

    def elsewhere(groups: Mapping[int, Sequence[str]]) -> None:
        settings = settings_of(options)
        source = str(settings.pop("source"))
        config = out / FOLDER / "options.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        write_text(config, json.dumps(settings))
        words = [source, "--out", str(out), "--config", str(config), "--resume"]
        run_groups(
            lambda: engine,
            train_members_of_job,
            groups,
            out,
            task={"words": words, "folder": str(Path.cwd())},
            request={"source": source, "settings": settings},
            again="resume (run the same with --resume)",
            progress=progress,
        )

    return elsewhere


def train_members_of_job(*, words: list[str], folder: str, number: int, names: list[str]) -> None:
    """The task of a group of a sweep: the members of these names, into their folders.

    words: of the command line, with --config; folder: where its paths begin.
    """
    with job_signals(), chdir(folder):
        options = with_config("train", words, parse_options("train", words))
        assert isinstance(options, TrainOptions)
        with add_settings("train", options):
            birth = with_defaults(options.birth)
            prepared = prepare(options, birth, choices_of(birth, options.fit, options.seed))
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
