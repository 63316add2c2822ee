"""A sweep from activations to a folder: each SAE in a folder of its own, and which is best on held-out tokens."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError, Tokens
from autopsae.disk import LOCK, DiskFull, locked
from autopsae.files import differing
from autopsae.kinds import anything, fields, listed, mapped, nothing_or, text
from autopsae.memory import available_bytes
from autopsae.passes import same_passes
from autopsae.run.folder import Births, Delay, Entry, Folder, Loggers, Plan, check_finished, finished, summary_kind
from autopsae.run.one import saved_if_interrupted, uninterrupted
from autopsae.saved import as_json, load_object, save_object
from autopsae.training.config import Record
from autopsae.training.memory import bytes_of, groups_that_fit
from autopsae.training.sweep import Sweep
from autopsae.training.terms import terms, with_defaults


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


PORTIONS, SWEEP = "autopsae-portions", "autopsae-sweep"

_MEMBERS = mapped(fields({"about": mapped(anything), "settings": mapped(anything), "sae": text}))
_BEGUN = fields({"groups": listed(listed(text)), "members": _MEMBERS})


def _member(value: object) -> str | None:
    return fields({"name": text, "data": text}, others=anything)(value) or summary_kind(value)


_RESULT = fields({"best": mapped(nothing_or(text)), "chosen_by": text, "members": listed(_member)})


def check_sweep_out(out: Path, *, resume: bool = False) -> None:
    """InputError where a sweep's results would replace others, or could not be written."""
    begun, ended = (out / "portions.json").exists(), (out / "sweep.json").exists()
    others = any(path.exists() for path in [*out.glob("summary.json"), *out.glob("*/summary.json")])
    if (ended and not resume) or (others and not begun and not ended) or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: expected a new folder, or one without finished results; pass another name")
    if begun and not resume:
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
    delay: Delay = uninterrupted,
) -> dict[str, Any]:
    """Train all members in place, so many at once as `portions` says; each writes into `out`/NAME what `run` writes
    for one. Returns what it writes into sweep.json: every member's summary, and `best`: for each `data` of the
    entries the name of the member with the least mean squared error on held-out tokens (None where all diverged).

    resume: go on where an earlier sweep of the same members broke off; members that are done stay as they are, and
    of a sweep that is finished the results are returned.
    delay: as of `run`.
    progress: given the records of a step by name; at_birth: what held-out tokens say of the SAEs that are trained
    at once, before their first step. A member that diverges or reaches the plan's target stops, the others go on;
    one whose result is absurd (`divergence`) has diverged too, and is never the best.

    Raises InputError where another process writes `out`, as `check_sweep_out`, `Sweep` and `Plan.check`, for two
    members of one name, and where what is resumed began with other members.
    """
    out, plan, training = Path(out), plan or Plan(), same_passes(training)
    check_sweep_out(out, resume=resume)
    by_name = {entry.name: entry for entry in entries}
    if len(by_name) < len(entries) or not all(by_name):
        raise InputError(f"sweep: expected a name of its own for each member, got {[e.name for e in entries]}")
    plan.check(entries[0].member.config)
    with locked(out / LOCK, what=out):
        check_sweep_out(out, resume=resume)  # another process may have ended since
        result = _ended(out, by_name)
        if result is None:
            try:
                result = _all(by_name, training, held_out, out, portions, plan, loggers, progress, at_birth, delay)
            except DiskFull as error:
                raise DiskFull(f"{error}; members that are done stay as they are: resume the sweep") from error
        (out / "portions.json").unlink(missing_ok=True)
    return result


def _all(
    entries: dict[str, Entry],
    training: Tokens,
    held_out: Tokens,
    out: Path,
    portions: Portions | None,
    plan: Plan,
    loggers: Loggers,
    progress: Callable[[dict[str, Record]], None] | None,
    at_birth: Births | None,
    delay: Delay,
) -> dict[str, Any]:
    """Train the groups that are not done, and write what became of all."""
    summaries: dict[str, dict[str, Any]] = {}
    for number, names in enumerate(_portions(out, [*entries.values()], portions)):
        group = [entries[name] for name in names]
        checkpoint = out / f"checkpoint-{number}.safetensors"
        done = [finished(out / name, entries[name]) for name in names]
        if not all(done):
            summaries |= _train(
                group, training, held_out, out, checkpoint, plan, loggers, progress, at_birth, delay
            )
        else:
            summaries |= {name: summary for name, summary in zip(names, done, strict=True) if summary}
        checkpoint.unlink(missing_ok=True)
    members = [{"name": name, "data": entry.data, **summaries[name]} for name, entry in entries.items()]
    result = {"best": _best(members), "chosen_by": "mse_raw", "members": members}
    return save_object(out / "sweep.json", format=SWEEP, content=result)


def _ended(out: Path, entries: dict[str, Entry]) -> dict[str, Any] | None:
    """What a sweep of the same members left when it ended; None of one that has not."""
    path = out / "sweep.json"
    if not path.exists():
        return None
    result = load_object(path, format=SWEEP, kind=_RESULT)
    members = {member["name"]: member for member in result["members"]}
    if changed := {*members} ^ {*entries}:
        raise InputError(_others(out, sorted(changed)))
    for name, entry in entries.items():
        check_finished(out / name, members[name], entry)
    return result


def _others(out: Path, names: Sequence[str]) -> str:
    return f"{out}: expected the members that the sweep began with, but these differ: {', '.join(names)}"


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
    about = as_json({entry.name: {"about": entry.about, **terms(entry.member)} for entry in entries})
    if path.exists():
        before = load_object(path, format=PORTIONS, kind=_BEGUN)
        groups: list[list[str]] = before["groups"]
        was = {name: {**one, "settings": with_defaults(one["settings"])} for name, one in before["members"].items()}
        if changed := differing(was, about):
            raise InputError(_others(out, changed))
        if sorted(name for group in groups for name in group) != sorted(about):
            raise InputError(f"{path}: expected groups of all members, got {groups}; pass another folder")
        return groups
    groups = (portions or Portions.of(entries)).groups
    save_object(path, format=PORTIONS, content={"groups": groups, "members": about})
    return groups


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
    delay: Delay,
) -> dict[str, dict[str, Any]]:
    """Train one group, and return the summaries by name."""
    resumed = checkpoint.exists()
    sweep = Sweep([entry.member for entry in group], training)
    folders = [Folder(out / entry.name, entry, training, held_out) for entry in group]
    summaries: dict[str, dict[str, Any]] = {}

    def finish(m: int) -> None:
        kept = finished(folders[m].out, group[m])  # from before the break after which the sweep went on
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
        for m, folder in enumerate(folders):
            # One that had ended when the checkpoint was written has no records after that, and gets none.
            if m not in sweep.diverged and m not in sweep.stopped:
                folder.log(plan, loggers(folder.out, sweep.step), after=sweep.step)
        between_steps = stack.enter_context(saved_if_interrupted(sweep, sweep.config.steps, checkpoint))
        with delay() as interrupted:
            for records in sweep:
                reached = [m for m, record in records.items() if folders[m].take(record)]
                if progress:
                    progress({group[m].name: record for m, record in records.items()})
                for m in [*reached, *sweep.diverged]:
                    if group[m].name not in summaries:
                        finish(m)
                sweep.stop(reached)
                if interrupted():
                    break
                if plan.saves(sweep.step):
                    sweep.save(checkpoint)
            between_steps(True)
        for m in range(len(group)):
            if group[m].name not in summaries:
                finish(m)
    return summaries
