"""Before a training: what is asked for is checked, tokens are read, and SAEs are drawn."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress as Bar
from rich.progress import TaskID

from autopsae.activations.store import Activations, open_activations
from autopsae.arrays import Tokens
from autopsae.cli.interrupts import delay_signals
from autopsae.cli.members import about_of, config_of, entry_of
from autopsae.cli.options.train import Birth, Keep, TrainOptions
from autopsae.cli.outcome import Live, print_differences, print_tokens
from autopsae.cli.terminal import take_device
from autopsae.diagnosis.prescription import Prescription
from autopsae.passes import known_digest
from autopsae.provenance import add_provenance
from autopsae.run.choices import Choice
from autopsae.run.data import count_tokens, hold_out
from autopsae.run.finished import Settings
from autopsae.run.folder import Entry, Plan
from autopsae.run.members import Layer
from autopsae.run.observer import Observer
from autopsae.run.start import load_start
from autopsae.saved import provenance_of
from autopsae.training.config import TrainConfig
from autopsae.training.logs import Csv, Logger, TensorBoard
from autopsae.training.wandb_runs import WandBFolder


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is asked for, checked, and what it needs."""

    options: TrainOptions
    birth: Birth
    """With its defaults."""
    plan: Plan
    saved: Prescription | None
    training: Activations
    held: Activations
    choices: dict[str, Choice]
    """The members by name."""
    settings: dict[str, Settings]
    """Those of each member."""


def prepare(options: TrainOptions, birth: Birth, choices: dict[str, Choice]) -> Prepared:
    """Open the source, and say how each member is trained. birth: with its defaults; choices: the members that are
    asked for, by name.
    """
    fit, keep = options.fit, options.keep
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
    return Prepared(
        options=options,
        birth=birth,
        plan=plan,
        saved=saved,
        training=training,
        held=held,
        choices=choices,
        settings=settings,
    )


def provenance_asked(prepared: Prepared) -> AbstractContextManager[None]:
    """What results say of where they are from."""
    options, saved = prepared.options, prepared.saved
    first_day = _first_day(options.out) if options.keep.resume else {}
    made_for = None if saved is None else saved.made_for()
    return add_provenance(layer=prepared.training.layer, prescription=made_for, **first_day)


class Made(NamedTuple):
    """What is trained."""

    entries: list[Entry]
    tokens: Tokens
    digest: dict[str, Any] | None
    observer: Observer


def make_members(
    prepared: Prepared,
    names: Sequence[str],
    device: str | None,
    bar: Bar,
    task: TaskID,
    *,
    latents: range | None = None,
) -> Made:
    """Read the statistics, and draw the SAEs of these names on the device, with these latents, all for None."""
    options, birth, fit = prepared.options, prepared.birth, prepared.options.fit
    read = Layer(prepared.training, layer_norm=birth.layer_norm, strays=fit.strays, device=device)
    entries = [
        entry_of(
            read,
            prepared.choices[name],
            birth,
            prepared.saved,
            settings=prepared.settings[name],
            name=name,
            latents=latents,
        )
        for name in names
    ]
    tokens = read.training_tokens(options.seed[0])
    print_tokens(bar.console, count_tokens(tokens), prepared.held.tokens)
    print_differences(bar.console, birth.prescription, entries[0])
    live = Live(bar, task, fit.steps)
    observer = Observer(
        loggers=partial(_loggers, options.keep, options.out),
        at_birth=live.be_born,
        on_records=live.advance,
        delay=delay_signals,
    )
    known = known_digest(read.all_tokens)
    return Made(entries, tokens, asdict(known) if known else None, observer)


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


def _loggers(keep: Keep, out: Path, folder: Path, after: int) -> list[Logger]:
    kept: list[Logger] = [Csv(folder / "records.csv", after=after, every=keep.record_every)] if keep.csv else []
    kept += [TensorBoard(folder, after=after)] if keep.tensorboard else []
    group = None if folder == out else out.name
    return [*kept, *([WandBFolder(folder, keep.wandb, group=group, after=after)] if keep.wandb else [])]
