"""autopsae train SOURCE --out DIR: SAEs, their records, and what held-out tokens say of them."""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from rich.progress import Progress as Bar
from rich.progress import TaskID

from autopsae.arrays import InputError
from autopsae.cli.members import choices_of, d_sae_of, sparsity_of, with_defaults
from autopsae.cli.options.train import Birth, TrainOptions
from autopsae.cli.outcome import print_finished, print_run, print_sweep
from autopsae.cli.page import check_paging, write_run_outputs
from autopsae.cli.prepare import Prepared, make_members, prepare, provenance_asked
from autopsae.cli.printing import print_note
from autopsae.cli.terminal import check_places, progress_bar, progress_on
from autopsae.cli.torchrun import device_of_rank, ranks_of_torchrun
from autopsae.cli.train_on import open_asked, spread_groups
from autopsae.cluster.engine import Engine
from autopsae.disk import check_unlocked
from autopsae.kernels.ranks import Ranks
from autopsae.provenance import add_provenance
from autopsae.report.plots import check_figure
from autopsae.run.finished import Settings
from autopsae.run.many import check_sweep_out, load_finished_sweep, run_sweep
from autopsae.run.on_ranks import run_on_ranks
from autopsae.run.one import check_out, load_finished_run, run
from autopsae.run.portions import Portions
from autopsae.training.one import Diverged
from autopsae.training.rank_files import all_or_none
from autopsae.training.ranks import own_latents
from autopsae.training.wandb_runs import import_wandb


def train(options: TrainOptions) -> None:
    """Train SAEs into the folder OUT, show them on a page where that is asked, and print what became of them.

    Raises InputError, Diverged and DiskFull.
    """
    if options.figure is not None:
        check_figure(options.figure)
        check_places(options.figure)
    check_paging(options.paging)
    with ranks_of_torchrun(options.data_parallel) as ranks:
        try:
            result = _train(replace(options, device=device_of_rank(options.device)), ranks)
        except Diverged as error:
            if not ranks.everyone.is_first:
                raise SystemExit(2) from error  # the first rank says it for all
            write_run_outputs(options.paging, options.figure, options.out)  # they say how far the run came
            raise
    if not ranks.everyone.is_first:
        return
    try:
        write_run_outputs(options.paging, options.figure, options.out)
    finally:
        (print_sweep if "members" in result else print_run)(options.out, result)


def _train(options: TrainOptions, ranks: Ranks) -> dict[str, Any]:
    """Check what is asked for, read what is needed, and return what summary.json or sweep.json says in the end."""
    with all_or_none(ranks.everyone):
        birth = with_defaults(options.birth)
        choices = choices_of(birth, options.fit, options.seed)
        engine = open_asked(options, many=len(choices) > 1)
        _check(options, asked=len(choices), ranks=ranks)
        sparsity_of(birth)  # before a file is opened: InputError where no such SAE can be
        prepared = prepare(options, birth, choices)
    keep, out = options.keep, options.out
    # On several ranks, `run_on_ranks` looks: two processes must not hold the folder at once.
    if keep.resume and ranks.everyone.is_alone and (result := _load_finished(out, prepared.settings)) is not None:
        return result
    with (
        provenance_asked(prepared),
        progress_bar("reading the statistics", is_shown=ranks.everyone.is_first) as (bar, task),
    ):
        return _train_members(prepared, ranks, engine, bar, task)


def _train_members(
    prepared: Prepared, ranks: Ranks, engine: Engine | None, bar: Bar, task: TaskID
) -> dict[str, Any]:
    """Draw the SAEs and train them, here or on an engine."""
    options, keep, out = prepared.options, prepared.options.keep, prepared.options.out
    # A whole SAE need not fit on the device of a rank.
    device = options.device if ranks.everyone.is_alone else None
    with all_or_none(ranks.everyone):
        latents = _latents_to_draw(prepared.birth, ranks)
        made = make_members(prepared, [*prepared.choices], device, bar, task, latents=latents)
    entries, tokens, held = made.entries, made.tokens, prepared.held
    common: dict[str, Any] = {"plan": prepared.plan, "resume": keep.resume, "observer": made.observer}
    wrote = add_provenance(digest=made.digest)
    if not ranks.everyone.is_alone:
        return wrote(run_on_ranks)(entries[0], tokens, held, out, ranks=ranks, device=options.device, **common)
    if len(entries) == 1:
        return wrote(run)(entries[0], tokens, held, out, **common)
    memory = None if keep.memory is None else int(1e9 * keep.memory)
    portions = Portions.of(entries, memory, tokens=prepared.training.tokens)
    if engine:
        portions = portions.split(options.jobs.jobs or len(entries))
        common["elsewhere"] = spread_groups(options, engine, progress_on(bar, task))
    if not any((out / name).exists() for name in ("portions.json", "sweep.json")):
        print_note(_describe_portions(portions), bar.console)
    return wrote(run_sweep)(entries, tokens, held, out, portions=portions, **common)


def _latents_to_draw(birth: Birth, ranks: Ranks) -> range | None:
    """Those that this rank owns; None for all: the first rank measures the whole SAE, and a fit needs all."""
    if ranks.everyone.is_alone:
        return None
    owned = own_latents(ranks, d_sae_of(birth), sparsity_of(birth))
    return None if ranks.everyone.is_first or birth.fit_encoder else owned


def _check(options: TrainOptions, *, asked: int, ranks: Ranks) -> None:
    """InputError where the results cannot be written. asked: number of SAEs."""
    out, keep, many = options.out, options.keep, asked > 1
    if many and not ranks.everyone.is_alone:
        raise InputError(f"torchrun: expected one SAE on {ranks.everyone.size} ranks, got {asked} by the options")
    if many:
        check_sweep_out(out, resume=keep.resume)
    else:
        check_out(out, resume=keep.resume, on_ranks=not ranks.everyone.is_alone)
    check_unlocked(out)
    if keep.wandb is not None:
        import_wandb()
    if keep.memory is not None and not 0 < keep.memory < inf:
        raise InputError(f"--memory: expected a number of GB over 0, got {keep.memory:g}")


def _load_finished(out: Path, settings: dict[str, Settings]) -> dict[str, Any] | None:
    """The result where nothing is left to do; None otherwise."""
    many = len(settings) > 1
    result = load_finished_sweep(out, settings) if many else load_finished_run(out, *settings.values())
    if result is not None:
        print_finished(out, out / ("sweep.json" if many else "summary.json"))
    return result


def _describe_portions(portions: Portions) -> str:
    members = sum(len(group) for group in portions.groups)
    at_once = max(len(group) for group in portions.groups)
    needed = f"about {portions.bytes_at_once / 1e9:.2g} GB"
    if len(portions.groups) == 1:
        return f"{members} SAEs at once, which takes {needed}"
    return f"{members} SAEs in {len(portions.groups)} sweeps of {at_once} at most, which takes {needed}"
