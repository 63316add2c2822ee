"""autopsae train SOURCE --out DIR: SAEs, their records, and what held-out tokens say of them."""

from dataclasses import asdict, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from autopsae.activations.store import Activations, open_activations
from autopsae.arrays import InputError
from autopsae.cli.interrupts import delay_signals
from autopsae.cli.members import about_of, choices_of, config_of, entry_of, sparsity_of, with_defaults
from autopsae.cli.options.train import Birth, Keep, TrainOptions
from autopsae.cli.outcome import Live, print_differences, print_finished, print_run, print_sweep, print_tokens
from autopsae.cli.page import check_paging, write_run_outputs
from autopsae.cli.printing import print_note
from autopsae.cli.terminal import check_own_files, progress_bar, take_device
from autopsae.diagnosis.prescription import Prescription
from autopsae.disk import check_unlocked
from autopsae.passes import known_digest
from autopsae.provenance import add_provenance
from autopsae.report.plots import check_figure
from autopsae.run.choices import Choice
from autopsae.run.data import count_tokens, hold_out
from autopsae.run.finished import Settings
from autopsae.run.folder import Plan
from autopsae.run.many import check_sweep_out, load_finished_sweep, run_sweep
from autopsae.run.members import Layer
from autopsae.run.observer import Observer
from autopsae.run.one import check_out, load_finished_run, run
from autopsae.run.portions import Portions
from autopsae.run.start import load_start
from autopsae.saved import provenance_of
from autopsae.training.config import TrainConfig
from autopsae.training.logs import Csv, Logger, TensorBoard
from autopsae.training.loop import Diverged
from autopsae.training.wandb_runs import WandBFolder, import_wandb


def train(options: TrainOptions) -> None:
    """Train SAEs into the folder OUT, show them on a page where that is asked, and print what became of them.

    Raises InputError, Diverged and DiskFull.
    """
    if options.figure is not None:
        check_figure(options.figure)
        check_own_files([options.figure])
    check_paging(options.paging, [options.figure])
    try:
        result = _train(options)
    except Diverged:
        write_run_outputs(options.paging, options.figure, options.out)  # they say how far the run came
        raise
    try:
        write_run_outputs(options.paging, options.figure, options.out)
    finally:
        (print_sweep if "members" in result else print_run)(options.out, result)


def _train(options: TrainOptions) -> dict[str, Any]:
    """Check what is asked for, read what is needed, and return what summary.json or sweep.json says in the end."""
    fit, keep, out = options.fit, options.keep, options.out
    birth = with_defaults(options.birth)
    choices = choices_of(birth, fit, options.seed)
    many = len(choices) > 1
    _check(out, birth, keep, many=many)
    take_device(options.device)
    configs = [config_of(birth, fit, keep, choice) for choice in choices.values()]
    plan = Plan(
        checkpoint_every=keep.checkpoint_every, evaluate_every=keep.evaluate_every, target_fvu=keep.target_fvu
    )
    plan.check(configs[0])
    activations = open_activations(
        options.source, options.layer, lengths=options.padding.lengths, mask=options.padding.mask
    )
    training, held = hold_out(activations, keep.held_out)
    saved = load_start(birth.prescription, activations.d_in) if birth.prescription else None
    if saved:
        configs = [_as_prescribed(config, saved, with_bias=not fit.bias) for config in configs]
    told = partial(
        about_of, birth=birth, strays=fit.strays, saved=saved, layer=training.layer, held_out=held.tokens
    )
    settings = {
        name: Settings(about=told(choice), config=config)
        for (name, choice), config in zip(choices.items(), configs, strict=True)
    }
    if keep.resume and (result := _load_finished(out, settings)) is not None:
        return result
    made_for = None if saved is None else saved.made_for()
    with add_provenance(layer=training.layer, prescription=made_for, **(_first_day(out) if keep.resume else {})):
        return _train_members(options, birth, plan, saved, training, held, settings, choices)


def _train_members(
    options: TrainOptions,
    birth: Birth,
    plan: Plan,
    saved: Prescription | None,
    training: Activations,
    held: Activations,
    settings: dict[str, Settings],
    choices: dict[str, Choice],
) -> dict[str, Any]:
    """Draw the SAEs and train them."""
    fit, keep, out, many = options.fit, options.keep, options.out, len(settings) > 1
    with progress_bar("reading the statistics") as (bar, task):
        read = Layer(training, layer_norm=birth.layer_norm, strays=fit.strays, device=options.device)
        entries = [
            entry_of(read, choice, birth, saved, settings=settings[name], name=name)
            for name, choice in choices.items()
        ]
        tokens = read.training_tokens(options.seed[0])
        print_tokens(bar.console, count_tokens(tokens), held.tokens)
        print_differences(bar.console, birth.prescription, entries[0])
        live = Live(bar, task, fit.steps)
        observer = Observer(
            loggers=partial(_loggers, keep, out),
            at_birth=live.be_born,
            on_records=live.advance,
            delay=delay_signals,
        )
        common: dict[str, Any] = {"plan": plan, "resume": keep.resume, "observer": observer}
        known = known_digest(read.all_tokens)
        wrote = add_provenance(digest=known and asdict(known))
        if not many:
            return wrote(run)(entries[0], tokens, held, out, **common)
        memory = None if keep.memory is None else int(1e9 * keep.memory)
        portions = Portions.of(entries, memory, tokens=training.tokens)
        if not any((out / name).exists() for name in ("portions.json", "sweep.json")):
            print_note(_describe_portions(portions), bar.console)
        return wrote(run_sweep)(entries, tokens, held, out, portions=portions, **common)


def _as_prescribed(config: TrainConfig, saved: Prescription, *, with_bias: bool) -> TrainConfig:
    return replace(
        config,
        bias=saved.bias if with_bias else config.bias,
        relative_encoder_lr=config.relative_encoder_lr or saved.training["relative_encoder_lr"],
    )


def _first_day(out: Path) -> dict[str, str]:
    """The day on which a run that is resumed began, so that it ends as if nothing had interrupted it."""
    first = next((path for name in ("portions.json", "birth.json") if (path := out / name).is_file()), None)
    date = None if first is None else provenance_of(first).get("date")
    return {"date": date} if isinstance(date, str) else {}


def _check(out: Path, birth: Birth, keep: Keep, *, many: bool) -> None:
    """InputError where the results cannot be written, or no such SAE can be."""
    (check_sweep_out if many else check_out)(out, resume=keep.resume)
    check_unlocked(out)
    sparsity_of(birth)
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


def _loggers(keep: Keep, out: Path, folder: Path, after: int) -> list[Logger]:
    kept: list[Logger] = [Csv(folder / "records.csv", after=after, every=keep.record_every)] if keep.csv else []
    kept += [TensorBoard(folder, after=after)] if keep.tensorboard else []
    group = None if folder == out else out.name
    return [*kept, *([WandBFolder(folder, keep.wandb, group=group, after=after)] if keep.wandb else [])]


def _describe_portions(portions: Portions) -> str:
    members = sum(len(group) for group in portions.groups)
    at_once = max(len(group) for group in portions.groups)
    needed = f"about {portions.bytes_at_once / 1e9:.2g} GB"
    if len(portions.groups) == 1:
        return f"{members} SAEs at once, which takes {needed}"
    return f"{members} SAEs in {len(portions.groups)} sweeps of {at_once} at most, which takes {needed}"
