"""Which members of a sweep are trained at once, so that they fit into memory."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.files import differences
from autopsae.kinds import anything, fields, list_of, mapping_of, text
from autopsae.memory import available_bytes
from autopsae.run.finished import is_present
from autopsae.run.folder import Entry
from autopsae.saved import as_json, load_object, save_object
from autopsae.training.memory import bytes_of, groups_that_fit
from autopsae.training.terms import terms, with_defaults
from autopsae.words import list_names as several
from autopsae.words import show

FORMAT = "autopsae-portions"

_MEMBERS = mapping_of(fields({"about": mapping_of(anything), "settings": mapping_of(anything), "sae": text}))
_BEGUN = fields({"groups": list_of(list_of(text)), "members": _MEMBERS})


@dataclass(frozen=True, kw_only=True)
class Portions:
    """Which members are trained at once, and what that takes."""

    groups: list[list[str]]
    """Names of the members that are trained at once, group by group."""
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

    def split(self, jobs: int) -> "Portions":
        """The same groups in parts, about `jobs` in all, each of which a process of its own may train."""
        size = -(-sum(len(group) for group in self.groups) // jobs)
        parts = [group[start : start + size] for group in self.groups for start in range(0, len(group), size)]
        return replace(self, groups=parts)


def groups_of(
    out: Path, entries: Sequence[Entry], portions: Portions | None, done: Collection[str]
) -> list[list[str]]:
    """The groups that a sweep trains one after the other, which are also written into `out`: where it is resumed
    those of its beginning, else those of `portions`, in which members that are `done` are parted from the others.

    Raises InputError as `load_object` and `Portions.of`, for other members than at the beginning, and for groups
    that are not of all members.
    """
    path = out / "portions.json"
    about = as_json({entry.name: {"about": entry.about, **terms(entry.member)} for entry in entries})
    if is_present(path):
        before = load_object(path, format=FORMAT, kind=_BEGUN)
        was = {name: {**one, "settings": with_defaults(one["settings"])} for name, one in before["members"].items()}
        if changed := differences(was, about):
            raise InputError(other_members(out, changed))
        groups: list[list[str]] = before["groups"]
        _check_all(path, groups, about)
        return groups
    asked = (portions or Portions.of(entries)).groups
    _check_all("portions", asked, about)
    parted = [[name for name in group if (name in done) is so] for group in asked for so in (False, True)]
    groups = [group for group in parted if group]
    save_object(path, format=FORMAT, content={"groups": groups, "members": about})
    return groups


def other_members(out: Path, names: Collection[str]) -> str:
    """The message where a sweep goes on with other members than it began with."""
    return f"{out}: expected the members that the sweep began with, but these differ: {several(names)}"


def _check_all(where: object, groups: list[list[str]], names: Collection[str]) -> None:
    if sorted(name for group in groups for name in group) != sorted(names):
        raise InputError(f"{where}: expected groups of all members, got {show(groups)}; pass another folder")
