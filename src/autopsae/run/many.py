"""A sweep from activations to a folder: each SAE in a folder of its own, and which is best on held-out tokens."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from autopsae.activations.names import file_names
from autopsae.arrays import InputError, Tokens
from autopsae.disk import LOCK, DiskFull, hold_lock
from autopsae.kinds import anything, fields, list_of, mapping_of, nothing_or, text
from autopsae.passes import same_passes
from autopsae.run.driver import Group, drive
from autopsae.run.finished import Settings, check_folder, is_present, load_finished, summary_kind, with_names_of_now
from autopsae.run.folder import Entry, Plan
from autopsae.run.observer import Observer
from autopsae.run.portions import Portions, groups_of, other_members
from autopsae.sae.stored import FORMAT
from autopsae.saved import check_free, load_object, save_object
from autopsae.words import show

SWEEP = "autopsae-sweep"

Elsewhere = Callable[[Mapping[int, Sequence[str]]], None]
"""Trains the groups of a sweep that are not done, each by `train_group` in another process, and returns then. Given
all groups, {number: names}."""


def _member(value: object) -> str | None:
    return fields({"name": text, "data": text}, others=anything)(value) or summary_kind(value)


_RESULT = fields({"best": mapping_of(nothing_or(text)), "chosen_by": text, "members": list_of(_member)})


def check_sweep_out(out: Path, *, resume: bool = False) -> None:
    """InputError where a sweep's results would replace others, or could not be written; as `is_present`."""
    check_folder(out)
    begun, ended = is_present(out / "portions.json"), is_present(out / "sweep.json")
    others = any(is_present(folder / "summary.json") for folder in [out, *out.glob("*")] if folder.is_dir())
    if (ended and not resume) or (others and not begun and not ended):
        raise InputError(f"{out}: expected a new folder, or one without finished results; pass another name")
    if begun and not resume:
        raise InputError(f"{out}: holds an unfinished sweep; resume it, or pass another name")


def load_finished_sweep(out: Path, members: Mapping[str, Settings]) -> dict[str, Any] | None:
    """What is in the sweep.json of a sweep that is finished, without a look at the tokens; None where members are
    to be trained. members: by name.

    Raises InputError where another process writes `out`, for other members or settings, and where the SAE of a
    member is not there or is damaged.
    """
    if not is_present(out / "sweep.json"):
        return None
    with hold_lock(out / LOCK, what=out):
        result = _load_ended(out, members)
        if result is not None:
            (out / "portions.json").unlink(missing_ok=True)
        return result


def folders_of(out: Path, names: Collection[str]) -> dict[str, Path]:
    """The folder of each member, called as `file_names` says. Raises InputError where there is a file
    instead, or what is no SAE has the name of one.
    """
    folders = {name: out / file for name, file in file_names(names).items()}
    for folder in folders.values():
        check_folder(folder)
        check_free(folder / "sae", format=FORMAT)
    return folders


def run_sweep(
    entries: Sequence[Entry],
    training: Tokens,
    held_out: Tokens,
    out: str | Path,
    *,
    portions: Portions | None = None,
    plan: Plan | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Any]:
    """Train all members in place, so many at once as `portions` says; each writes into a folder of its own in
    `out`, called by its name (`file_names`), what `run` writes for one. Returns what it writes into sweep.json:
    every member's summary with the name of its `folder`, and `best`: for each `data` of the entries the name of the
    member with the least mean squared error on held-out tokens (None where all diverged).

    resume: go on where an earlier sweep of the same members broke off; members that are done stay as they are, and
    of a sweep that is finished the results are returned. A member that diverges or reaches the plan's target stops,
    the others go on; one whose result is absurd (`divergence`) has diverged too, and is never the best.
    elsewhere: what trains the groups instead of this process; the SAEs of `entries` are not changed then.

    Raises InputError where another process writes `out`, as `check_sweep_out`, `Training` and `Plan.check`, for two
    members of one name, where what is resumed began with other members, and, before anything is trained, where the
    SAE of a member that is done is not there or is damaged.
    """
    out, plan, training = Path(out), plan or Plan(), same_passes(training)
    check_sweep_out(out, resume=resume)
    by_name = {entry.name: entry for entry in entries}
    _check_names([entry.name for entry in entries])
    folders_of(out, by_name)
    plan.check(entries[0].member.config)
    with hold_lock(out / LOCK, what=out):
        check_sweep_out(out, resume=resume)  # another process may have ended since
        result = _load_ended(out, {name: entry.settings for name, entry in by_name.items()})
        if result is None:
            try:
                result = _all(by_name, training, held_out, out, portions, plan, observer or Observer(), elsewhere)
            except DiskFull as error:
                raise DiskFull(f"{error}; members that are done stay as they are: resume the sweep") from error
        (out / "portions.json").unlink(missing_ok=True)
    return result


def _check_names(names: Sequence[str]) -> None:
    if not names or len({*names}) < len(names):
        raise InputError(f"sweep: expected members, each with a name of its own, got {show(names)}")
    for name in names:
        # What JSON cannot hold could be written, but not resumed.
        if not isinstance(name, str) or any("\ud800" <= c <= "\udfff" for c in name):
            raise InputError(f"sweep: expected names of Unicode characters, got {show(name)}; pass another name")


def train_group(
    entries: Sequence[Entry],
    training: Tokens,
    held_out: Tokens,
    out: str | Path,
    number: int,
    *,
    plan: Plan | None = None,
    observer: Observer | None = None,
) -> dict[str, dict[str, Any]]:
    """Train the group of this number of a sweep that another process has begun in `out` (`run_sweep(elsewhere=)`),
    from its checkpoint if there is one. Returns {name: summary}.

    entries: those of the group, in its order. Raises InputError as `drive`, and where another process trains it.
    """
    out, by_name = Path(out), {entry.name: entry for entry in entries}
    folders = folders_of(out, by_name)
    with hold_lock(out / f"{LOCK}-{number}", what=f"group {number} of {out}"):
        done = _summaries(folders, by_name)
        if len(done) == len(by_name):
            return done
        group = _group(entries, folders, out, number)
        plan, observer = plan or Plan(), observer or Observer()
        return drive(group, same_passes(training), held_out, plan=plan, observer=observer, done=done)


def _summaries(folders: Mapping[str, Path], entries: Mapping[str, Entry]) -> dict[str, dict[str, Any]]:
    """Those of the members that are done, by name."""
    ended = {name: load_finished(folders[name], entry.settings) for name, entry in entries.items()}
    return {name: summary for name, summary in ended.items() if summary is not None}


def _group(entries: Sequence[Entry], folders: Mapping[str, Path], out: Path, number: int) -> Group:
    return Group(
        entries=entries,
        folders=[folders[entry.name] for entry in entries],
        checkpoint=out / f"checkpoint-{number}.safetensors",
        goes_on=True,
    )


def _all(
    entries: dict[str, Entry],
    training: Tokens,
    held_out: Tokens,
    out: Path,
    portions: Portions | None,
    plan: Plan,
    observer: Observer,
    elsewhere: Elsewhere | None,
) -> dict[str, Any]:
    """Train the groups that are not done, and write what became of all."""
    folders = folders_of(out, entries)
    # All before the first step: what cannot be resumed is told before the work.
    summaries = _summaries(folders, entries)
    groups = dict(enumerate(groups_of(out, [*entries.values()], portions, summaries)))
    left = {number: names for number, names in groups.items() if not {*names} <= {*summaries}}
    if elsewhere:
        elsewhere(groups)
        summaries = _summaries(folders, entries)
    for number, names in groups.items():
        group = _group([entries[name] for name in names], folders, out, number)
        if number in left and not elsewhere:
            summaries = drive(group, training, held_out, plan=plan, observer=observer, done=summaries)
        group.checkpoint.unlink(missing_ok=True)
    members = [_with_names(summaries[name], name, entry.data, folders[name]) for name, entry in entries.items()]
    result = {"best": _best(members), "chosen_by": "mse_raw", "members": members}
    return save_object(out / "sweep.json", format=SWEEP, content=result)


def _with_names(summary: Mapping[str, Any], name: str, data: str, folder: Path) -> dict[str, Any]:
    """A member as sweep.json tells of it. Last what the best is chosen by: a summary may hold any words."""
    return {**summary, "name": name, "data": data, "folder": folder.name}


def _load_ended(out: Path, members: Mapping[str, Settings]) -> dict[str, Any] | None:
    """What a sweep of the same members left when it ended; None of one that has not, or in which the summary of a
    member has gone or changed since.
    """
    path = out / "sweep.json"
    if not is_present(path):
        return None
    result = load_object(path, format=SWEEP, kind=_RESULT)
    result["members"] = [with_names_of_now(member) for member in result["members"]]
    told = {member["name"]: member for member in result["members"]}
    if changed := {*told} ^ {*members}:
        raise InputError(other_members(out, sorted(changed)))
    for name, folder in folders_of(out, members).items():
        summary, member = load_finished(folder, members[name]), told[name]
        # Versions before 0.1.0 named no folder.
        if summary is None or _with_names(summary, name, member["data"], folder) != {
            **member,
            "folder": folder.name,
        }:
            return None
    return result


def _best(members: Sequence[dict[str, Any]]) -> dict[str, str | None]:
    """By data: errors on other tokens say nothing."""
    best: dict[str, str | None] = {}
    for data in dict.fromkeys(member["data"] for member in members):
        finished = [m for m in members if m["data"] == data and m["diverged"] is None]
        best[data] = min(finished, key=lambda m: m["mse_raw"])["name"] if finished else None
    return best
