"""What `train` prints: what is trained on, how it goes, and how it ended."""

from pathlib import Path
from typing import Any

from rich.console import Console, JustifyMethod
from rich.progress import Progress, TaskID
from rich.text import Text

from autopsae.cli.printing import print_line, print_note, print_text
from autopsae.report.fitting import Fitting, empty_table, plain
from autopsae.report.training import run_line, worse_than_mean
from autopsae.run.folder import Entry
from autopsae.training.config import Record
from autopsae.training.one import Diverged
from autopsae.words import fvu_text


def print_tokens(console: Console, training: int, held_out: int) -> None:
    """How many tokens there are."""
    print_note(f"training on {training:,} tokens, {held_out:,} are held out", console)


def print_finished(out: Path, result: Path) -> None:
    """That nothing is left to do, and where the result is."""
    print_note(f"{out} is finished: the result is in {result}; no token was read, and nothing was trained")


def print_differences(console: Console, path: Path | None, entry: Entry) -> None:
    """A line where a prescription is used for another layer, SAE or training than it was made for."""
    if differences := entry.differences():
        print_note(
            f"warning: the prescription {path} was made for another layer, SAE or length of training: "
            f"{'; '.join(differences)}; diagnose again for what is trained here, with its --lr and --steps",
            console,
        )


class Live:
    """The progress bar of a run or a sweep: the error, and the fraction of the latents that is dead. Until the
    records know of death, that is the fraction born dead, counted on held-out tokens.
    """

    def __init__(self, bar: Progress, task: TaskID, steps: int) -> None:
        self._bar, self._task, self._steps = bar, task, steps
        self._born_dead: dict[str, float] = {}

    def be_born(self, births: dict[str, dict[str, Any]]) -> None:
        """Show SAEs before their first step, by name."""
        self._born_dead = {name: birth["dead"] for name, birth in births.items()}
        description = f"training: {_range('born dead', [*self._born_dead.values()])}"
        self._bar.update(self._task, completed=0, total=self._steps, description=description)

    def advance(self, records: dict[str, Record]) -> None:
        """Show the records of a step, by name."""
        if not records:
            return
        step = next(iter(records.values())).step + 1
        least = min((record.fvu for record in records.values() if record.fvu is not None), default=None)
        live = [record.dead for record in records.values() if record.dead is not None]
        known = len(live) == len(records)
        dead = _range("dead", live) if known else _range("born dead", [self._born_dead[name] for name in records])
        fvu = f"FVU {fvu_text(least)}" if len(records) == 1 else f"{len(records)} SAEs, least FVU {fvu_text(least)}"
        self._bar.update(self._task, completed=step, total=self._steps, description=f"step {step:,}: {fvu}, {dead}")


def print_run(out: Path, summary: dict[str, Any]) -> None:
    """How a run ended, in a line; what must be said of it besides goes to standard error."""
    print_line(run_line(out, summary))
    for warning in summary["warnings"]:
        print_note(f"warning: {warning}")


def print_sweep(out: Path, result: dict[str, Any]) -> None:
    """How every member of a sweep ended, and which is best. Raises Diverged where none is."""
    [best] = result["best"].values()
    folders = {member["name"]: out / member.get("folder", member["name"]) for member in result["members"]}
    if best is not None:
        print_line(f"best by the error on held-out tokens: {folders[best]}")
    table = empty_table()
    for heading in ("", "born dead", "dead", "held-out tokens", "raw FVU", "L0"):
        side: JustifyMethod = "left" if heading in ("", "raw FVU") else "right"
        table.add_column(heading, justify=side, no_wrap=bool(heading), min_width=None if heading else 8)
    lines = []
    for member in result["members"]:
        is_best = member["name"] == best
        name = plain(member["name"] + (" (best)" if is_best else ""), "bold" if is_best else "")
        born_dead, tokens = f"{member['birth']['dead']:.1%}", f"{member['birth']['tokens']:,}"
        if member["diverged"]:
            end = f"diverged, {member['diverged'].split(':')[0]}"
            row = [born_dead, end, tokens]
            lines.append(Text.assemble(name, f": born dead {born_dead}, {end}, held-out tokens {tokens}"))
        else:
            fvu = f"{fvu_text(member['fvu_raw'])}{worse_than_mean(member['fvu_raw'])}"
            row = [born_dead, f"{member['dead']:.1%}", tokens, fvu, f"{member['l0']:.1f}"]
            said = zip((column.header for column in table.columns[1:]), row, strict=True)
            lines.append(Text.assemble(name, ": " + ", ".join(f"{heading} {value}" for heading, value in said)))
        table.add_row(name, *row)
    print_text(Fitting(table, lines))
    for member in result["members"]:
        for warning in [*member.get("warnings", ()), *([member["diverged"]] if member["diverged"] else [])]:
            print_note(f"warning: {member['name']}: {warning}")
    if best is None:
        raise Diverged(f"{out}: all {len(result['members'])} SAEs diverged; lower the learning rates")


def _range(what: str, fractions: list[float]) -> str:
    least, most = min(fractions), max(fractions)
    return f"{what} {least:.1%}" if len(fractions) == 1 else f"{what} {least:.1%} to {most:.1%}"
