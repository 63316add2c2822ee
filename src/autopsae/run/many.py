"""A sweep from activations to a folder: each SAE in a folder of its own, and which is best on held-out tokens."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError, Tokens
from autopsae.files import differing, write_text
from autopsae.run.folder import Births, Entry, Folder, Loggers, Plan
from autopsae.training.checkpoint import terms
from autopsae.training.config import Record
from autopsae.training.memory import available_bytes, bytes_of, groups_that_fit
from autopsae.training.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class Portions:
    """Which members are trained at once, and what that takes."""

    groups: list[list[str]]
    bytes_at_once: int
    """Of the largest group."""

    @staticmethod
    def of(entries: Sequence[Entry], memory_bytes: int | None = None, *, tokens: int | None = None) -> "Portions":
        """As many at once as fit into `memory_bytes`; None for half of what is free. tokens: how many each stream
        has, where a buffer may hold more.

        Raises InputError where that cannot be known, and for a negative number.
        """
        members = [entry.member for entry in entries]
        if memory_bytes is not None and memory_bytes <= 0:
            raise InputError(f"memory: expected more than nothing, got {memory_bytes:,} bytes")
        budget = memory_bytes or available_bytes(members[0].sae.W_enc.device) // 2
        groups = groups_that_fit(members, budget, tokens)
        needed = max(bytes_of([members[m] for m in group], tokens) for group in groups)
        return Portions(groups=[[entries[m].name for m in group] for group in groups], bytes_at_once=needed)


def check_sweep_out(out: Path, *, resume: bool = False) -> None:
    """InputError where a sweep's results would replace others, or could not be written."""
    unfinished = (out / "portions.json").exists()
    others = [out / "sweep.json", *([] if unfinished else [*out.glob("summary.json"), *out.glob("*/summary.json")])]
    if any(path.exists() for path in others) or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: expected a new folder, or one without finished results; pass another name")
    if unfinished and not resume:
        raise InputError(f"{out}: holds an unfinished sweep; resume it, or pass another name")


def run_sweep(
    entries: Sequence[Entry],
    training: Tokens,
    held_out: Tokens,
    out: str | Path,
    *,
    portions: Portions | None = None,
    plan: Plan | None = None,
    resume: bool = False,
    loggers: Loggers = lambda folder, after: [],
    progress: Callable[[dict[str, Record]], None] | None = None,
    at_birth: Births | None = None,
) -> dict[str, Any]:
    """Train all members in place, so many at once as `portions` says; each writes into `out`/NAME what `run` writes
    for one. Returns what it writes into sweep.json: every member's summary, and `best`: for each `data` of the
    entries the name of the member with the least mean squared error on held-out tokens (None where all diverged).

    resume: go on where an earlier sweep of the same members broke off; members that are done stay as they are.
    progress: given the records of a step by name; at_birth: what held-out tokens say of the SAEs that are trained
    at once, before their first step. A member that diverges or reaches the plan's target stops, the others go on;
    one whose result is absurd (`divergence`) has diverged too, and is never the best.

    Raises InputError as `check_sweep_out`, `Sweep` and `Plan.check`, for two members of one name, and where what is
    resumed began with other members.
    """
    out, plan = Path(out), plan or Plan()
    check_sweep_out(out, resume=resume)
    by_name = {entry.name: entry for entry in entries}
    if len(by_name) < len(entries) or not all(by_name):
        raise InputError(f"sweep: expected a name of its own for each member, got {[e.name for e in entries]}")
    plan.check(entries[0].member.config)
    summaries: dict[str, dict[str, Any]] = {}
    for number, names in enumerate(_portions(out, entries, portions)):
        group = [by_name[name] for name in names]
        checkpoint = out / f"checkpoint-{number}.safetensors"
        done = [_finished(out / name) for name in names]
        if not all(done):
            summaries |= _train(group, training, held_out, out, checkpoint, plan, loggers, progress, at_birth)
        else:
            summaries |= {name: summary for name, summary in zip(names, done, strict=True) if summary}
        checkpoint.unlink(missing_ok=True)
    members = [{"name": name, "data": by_name[name].data, **summaries[name]} for name in by_name]
    result = {"best": _best(members), "chosen_by": "mse_raw", "members": members}
    write_text(out / "sweep.json", json.dumps(result, indent=2) + "\n")
    (out / "portions.json").unlink()
    return result


def _best(members: Sequence[dict[str, Any]]) -> dict[str, str | None]:
    """By data: errors on other tokens say nothing."""
    best: dict[str, str | None] = {}
    for data in dict.fromkeys(member["data"] for member in members):
        finished = [m for m in members if m["data"] == data and m["diverged"] is None]
        best[data] = min(finished, key=lambda m: m["mse_raw"])["name"] if finished else None
    return best


def _portions(out: Path, entries: Sequence[Entry], portions: Portions | None) -> list[list[str]]:
    """The groups, as they were at the beginning where a sweep is resumed."""
    path = out / "portions.json"
    about = {entry.name: {"about": entry.about, **terms(entry.member)} for entry in entries}
    about = json.loads(json.dumps(about))
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            groups, was = before["groups"], before["members"]
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{path}: expected what the sweep began with ({error!r}); pass another folder"
            ) from error
        changed = differing(was, about)
        if changed:
            raise InputError(
                f"{out}: expected the members that the sweep began with, but these differ: {', '.join(changed)}"
            )
        return [list(group) for group in groups]
    groups = (portions or Portions.of(entries)).groups
    write_text(path, json.dumps({"groups": groups, "members": about}, indent=2) + "\n")
    return groups


def _finished(out: Path) -> dict[str, Any] | None:
    path = out / "summary.json"
    if not path.exists():
        return None
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def _train(
    group: Sequence[Entry],
    training: Tokens,
    held_out: Tokens,
    out: Path,
    checkpoint: Path,
    plan: Plan,
    loggers: Loggers,
    progress: Callable[[dict[str, Record]], None] | None,
    at_birth: Births | None,
) -> dict[str, dict[str, Any]]:
    """Train one group, and return the summaries by name."""
    resumed = checkpoint.exists()
    sweep = Sweep([entry.member for entry in group], training)
    folders = [Folder(out / entry.name, entry, training, held_out) for entry in group]
    summaries: dict[str, dict[str, Any]] = {}

    def finish(m: int) -> None:
        kept = _finished(folders[m].out)  # from before the break after which the sweep went on
        summaries[group[m].name] = kept or folders[m].finish(
            sweep.steps_of(m), diverged=sweep.diverged.get(m), last_resampling=sweep.last_resampling(m)
        )

    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(folder).be_born(resumed=resumed)
        if at_birth:
            at_birth({entry.name: folder.birth for entry, folder in zip(group, folders, strict=True)})
        if resumed:
            sweep.load(checkpoint)
        for folder in folders:
            folder.log(plan, loggers(folder.out, sweep.step), after=sweep.step)
        for records in sweep:
            reached = [m for m, record in records.items() if folders[m].take(record)]
            if progress:
                progress({group[m].name: record for m, record in records.items()})
            for m in [*reached, *sweep.diverged]:
                if group[m].name not in summaries:
                    finish(m)
            sweep.stop(reached)
            if plan.saves(sweep.step):
                sweep.save(checkpoint)
        for m in range(len(group)):
            if group[m].name not in summaries:
                finish(m)
    return summaries
