"""autopsae train SOURCE --out DIR: SAEs, their records, and what held-out tokens say of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from autopsae.activations.store import open_activations
from autopsae.cli.members import Births, choices_of, config_of, name_of, sparsity_of
from autopsae.cli.options import Birth, Fit, Integers, Keep, Padding
from autopsae.cli.terminal import checked_device, progress_bar
from autopsae.run.folder import Plan
from autopsae.run.many import Portions, check_sweep_out, run_sweep
from autopsae.run.one import check_out, run
from autopsae.run.start import load_start
from autopsae.survival.closed_form import check_k
from autopsae.training.config import Record
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
    choices = choices_of(birth, fit, seed)
    (check_out if len(choices) == 1 else check_sweep_out)(out, resume=keep.resume)
    device = checked_device(device)
    configs = [config_of(birth, fit, keep, choice) for choice in choices]
    sparsity_of(birth).check(birth.d_sae)
    if birth.sparsity != "relu":
        check_k(birth.k, birth.d_sae)
    plan = Plan(
        checkpoint_every=keep.checkpoint_every, evaluate_every=keep.evaluate_every, target_fvu=keep.target_fvu
    )
    plan.check(configs[0])
    activations = open_activations(source, layer, lengths=padding.lengths, mask=padding.mask)
    training, held = activations.split(keep.held_out)
    saved = load_start(birth.prescription, activations.d_in) if birth.prescription else None
    loggers = partial(_loggers, keep)
    with progress_bar("reading the statistics") as (bar, task):
        births = Births(training, birth, fit.strays, saved, device)
        entries = [
            births.entry(choice, config, keep, name_of(choice, choices))
            for choice, config in zip(choices, configs, strict=True)
        ]
        tokens = births.tokens(seed[0])
        common: dict[str, Any] = {"plan": plan, "resume": keep.resume, "loggers": loggers}
        common["progress"] = _progress(bar, task, fit.steps)
        if len(entries) == 1:
            _say(out, run(entries[0], tokens, held, out, **common))
            return
        memory = None if keep.memory is None else int(1e9 * keep.memory)
        portions = Portions.of(entries, memory, tokens=training.tokens)
        if not (out / "portions.json").exists():
            bar.console.print(_portioned(portions), highlight=False)
        _say_sweep(out, run_sweep(entries, tokens, held, out, portions=portions, **common))


def _progress(bar: Progress, task: TaskID, steps: int) -> Callable[[dict[str, Record]], None]:
    def advance(records: dict[str, Record]) -> None:
        if not records:
            return
        step, least = next(iter(records.values())).step + 1, min(record.fvu for record in records.values())
        dead = [record.dead for record in records.values()]
        fvu = f"FVU {least:.4f}" if len(records) == 1 else f"{len(records)} SAEs, least FVU {least:.4f}"
        shown = f"{dead[0]:.1%}" if len(dead) == 1 else f"{min(dead):.1%} to {max(dead):.1%}"
        bar.update(task, completed=step, total=steps, description=f"step {step:,}: {fvu}, dead {shown}")

    return advance


def _loggers(keep: Keep, folder: Path, after: int) -> list[Logger]:
    kept: list[Logger] = [Csv(folder / "records.csv", after=after)] if keep.csv else []
    return [*kept, *([TensorBoard(folder, after=after)] if keep.tensorboard else [])]


def _portioned(portions: Portions) -> str:
    members = sum(len(group) for group in portions.groups)
    at_once = max(len(group) for group in portions.groups)
    needed = f"about {portions.bytes_at_once / 1e9:.2g} GB"
    if len(portions.groups) == 1:
        return f"{members} SAEs at once, which takes {needed}"
    return f"{members} SAEs in {len(portions.groups)} sweeps of {at_once} at most, which takes {needed}"


def _say(out: Path, summary: dict[str, Any]) -> None:
    born_dead, dead = summary["birth"]["dead"], summary["dead"]
    Console().print(
        f"{out}: {born_dead:.1%} of {summary['d_sae']:,} latents were born dead, {dead:.1%} are dead after "
        f"{summary['steps']:,} steps ({summary['relu']:.1%} by ReLU, {summary['topk']:.1%} by TopK); raw FVU "
        f"{summary['fvu_raw']:.4f}" + _typical(summary),
        highlight=False,
        soft_wrap=True,
    )


def _typical(summary: dict[str, Any]) -> str:
    """The error without strays, where there are some."""
    if not summary["strays"]:
        return ""
    return f" ({summary['fvu_typical']:.4f} without the {summary['strays']:.2%} of over ten times the median norm)"


def _say_sweep(out: Path, result: dict[str, Any]) -> None:
    [best] = result["best"].values()
    table = Table("", "born dead", "dead", "raw FVU", "L0", box=None)
    for member in result["members"]:
        name = f"[bold]{member['name']}[/] (best)" if member["name"] == best else member["name"]
        if member["diverged"]:
            table.add_row(name, f"{member['birth']['dead']:.1%}", f"diverged, {member['diverged'].split(':')[0]}")
        else:
            shown = (f"{member['dead']:.1%}", f"{member['fvu_raw']:.4f}", f"{member['l0']:.1f}")
            table.add_row(name, f"{member['birth']['dead']:.1%}", *shown)
    Console().print(table)
    where = "none: all diverged" if best is None else str(out / best)
    Console().print(f"best by the error on held-out tokens: {where}", highlight=False, soft_wrap=True)
