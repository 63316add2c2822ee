"""autopsae train SOURCE --out DIR: SAEs, their records, and what held-out tokens say of them."""

from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional

from autopsae.activations.store import open_activations
from autopsae.arrays import InputError
from autopsae.cli.interrupts import delayed
from autopsae.cli.members import about_of, choices_of, config_of, entry_of, sparsity_of, with_defaults
from autopsae.cli.options import Birth, Fit, Integers, Keep, Padding
from autopsae.cli.outcome import Live, print_differences, print_finished, print_run, print_sweep, print_tokens
from autopsae.cli.printing import print_note
from autopsae.cli.terminal import checked_device, progress_bar
from autopsae.disk import check_unlocked
from autopsae.run.data import count_tokens, hold_out
from autopsae.run.finished import Settings
from autopsae.run.folder import Plan
from autopsae.run.many import check_sweep_out, finished_sweep, run_sweep
from autopsae.run.members import Layer
from autopsae.run.observer import Observer
from autopsae.run.one import check_out, finished_run, run
from autopsae.run.portions import Portions
from autopsae.run.start import load_start
from autopsae.training.logs import Csv, Logger, TensorBoard


def train(
    source: Positional[Path],
    /,
    *,
    out: Path,
    layer: str | None = None,
    padding: Annotated[Padding, OmitArgPrefixes] = Padding(),
    birth: Annotated[Birth, OmitArgPrefixes] = Birth(),
    fit: Annotated[Fit, OmitArgPrefixes] = Fit(),
    keep: Annotated[Keep, OmitArgPrefixes] = Keep(),
    seed: Integers = (0,),
    device: str | None = None,
) -> None:
    """Train an SAE on one layer of SOURCE, from a prescription or a chosen start; OUT receives the SAE
    (sae.safetensors + sae.json), its records (records.jsonl) and what held-out tokens say (summary.json).

    Where --lr, --init, --alpha, --l1 or --seed have several values (--lr 1e-4,3e-4), all combinations are trained
    at once, each into a folder of its own in OUT, and sweep.json says which is best on held-out tokens.

    Args:
        source: Activations, as a file or a folder: what `harvest` writes, or a layout of docs/files.md.
        out: Folder for the results.
        layer: Layer to train on, where the source holds several; N stands for hsN.
        padding: Which tokens are padding, and left out.
        birth: The SAE as it is born.
        fit: How it is trained.
        keep: What is measured and kept on the way.
        seed: Of the drawn rows and of the order of the tokens.
        device: Where to train, for example cuda.
    """
    birth = with_defaults(birth)
    choices = choices_of(birth, fit, seed)
    many = len(choices) > 1
    _check(out, birth, keep, many=many)
    device = checked_device(device)
    configs = [config_of(birth, fit, keep, choice) for choice in choices.values()]
    plan = Plan(
        checkpoint_every=keep.checkpoint_every, evaluate_every=keep.evaluate_every, target_fvu=keep.target_fvu
    )
    plan.check(configs[0])
    activations = open_activations(source, layer, lengths=padding.lengths, mask=padding.mask)
    training, held = hold_out(activations, keep.held_out)
    saved = load_start(birth.prescription, activations.d_in) if birth.prescription else None
    told = partial(
        about_of, birth=birth, strays=fit.strays, saved=saved, layer=training.layer, held_out=held.tokens
    )
    settings = {
        name: Settings(about=told(choice), config=config)
        for (name, choice), config in zip(choices.items(), configs, strict=True)
    }
    if keep.resume and _is_finished(out, settings):
        return
    loggers = partial(_loggers, keep)
    with progress_bar("reading the statistics") as (bar, task):
        read = Layer(training, layer_norm=birth.layer_norm, strays=fit.strays, device=device)
        entries = [
            entry_of(read, choice, birth, saved, settings=settings[name], name=name)
            for name, choice in choices.items()
        ]
        tokens = read.training_tokens(seed[0])
        print_tokens(bar.console, count_tokens(tokens), held.tokens)
        print_differences(bar.console, birth.prescription, entries[0])
        live = Live(bar, task, fit.steps)
        observer = Observer(loggers=loggers, at_birth=live.be_born, progress=live.advance, delay=delayed)
        common: dict[str, Any] = {"plan": plan, "resume": keep.resume, "observer": observer}
        if not many:
            result = run(entries[0], tokens, held, out, **common)
        else:
            memory = None if keep.memory is None else int(1e9 * keep.memory)
            portions = Portions.of(entries, memory, tokens=training.tokens)
            if not any((out / name).exists() for name in ("portions.json", "sweep.json")):
                print_note(_portioned(portions), bar.console)
            result = run_sweep(entries, tokens, held, out, portions=portions, **common)
    (print_sweep if many else print_run)(out, result)


def _check(out: Path, birth: Birth, keep: Keep, *, many: bool) -> None:
    """InputError where the results cannot be written, or no such SAE can be."""
    (check_sweep_out if many else check_out)(out, resume=keep.resume)
    check_unlocked(out)
    sparsity_of(birth)
    if keep.memory is not None and not 0 < keep.memory < inf:
        raise InputError(f"--memory: expected a number of GB over 0, got {keep.memory:g}")


def _is_finished(out: Path, settings: dict[str, Settings]) -> bool:
    """Whether nothing is left to do; then the result is printed again."""
    many = len(settings) > 1
    result = finished_sweep(out, settings) if many else finished_run(out, *settings.values())
    if result is not None:
        print_finished(out, out / ("sweep.json" if many else "summary.json"))
        (print_sweep if many else print_run)(out, result)
    return result is not None


def _loggers(keep: Keep, folder: Path, after: int) -> list[Logger]:
    kept: list[Logger] = [Csv(folder / "records.csv", after=after, every=keep.record_every)] if keep.csv else []
    return [*kept, *([TensorBoard(folder, after=after)] if keep.tensorboard else [])]


def _portioned(portions: Portions) -> str:
    members = sum(len(group) for group in portions.groups)
    at_once = max(len(group) for group in portions.groups)
    needed = f"about {portions.bytes_at_once / 1e9:.2g} GB"
    if len(portions.groups) == 1:
        return f"{members} SAEs at once, which takes {needed}"
    return f"{members} SAEs in {len(portions.groups)} sweeps of {at_once} at most, which takes {needed}"
