"""Saved results read back: what kind of result a file or a folder is, checked before anything is drawn of it."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from math import isfinite
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.diagnosis.survey import FORMAT as DIAGNOSIS
from autopsae.evaluation.result import FORMAT as AUTOPSY
from autopsae.evaluation.result import Autopsy
from autopsae.features.content import FORMAT as FEATURES
from autopsae.kinds import Kind, check_kind
from autopsae.provenance import PROVENANCE
from autopsae.reading import input_errors, is_folder, parse, read_bytes
from autopsae.report.page import schema
from autopsae.run.finished import BIRTH, SUMMARY, with_names_of_now
from autopsae.run.many import SWEEP
from autopsae.saved import as_json, load_object, provenance_of
from autopsae.training.logs import read_lines
from autopsae.trial.result import FORMAT as TRIAL
from autopsae.urls import url_of
from autopsae.version import version
from autopsae.words import list_names, printable, show

_EXPECTED = (
    "a result of autopsae: the JSON of diagnose, autopsy or features, of a trial, or the folder of a run or a sweep"
)
_VERSION = 1  # of a diagnosis, an autopsy and features
_A = {"diagnosis": "a diagnosis", "autopsy": "an autopsy", "features": "features"}
_WORDS, _COUNTS, _NUMBERS = ("fate", "cause"), ("latent", "fired"), ("rate", "shift", "signal")
_POINTS = 300  # records of a run that are drawn at most: more could not be told apart
_ALL_POINTS = 3000  # of all members of a sweep


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a run recorded on its way."""

    records: tuple[Mapping[str, Any], ...] = ()
    """Records of training, in the order of their steps; some of them where there are many."""
    of: int = 0
    """How many there are."""
    held_out: tuple[Mapping[str, Any], ...] = ()
    """Measurements on held-out tokens."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A result, read and checked."""

    kind: str
    """diagnosis, trial, run, sweep, autopsy, latents or features."""
    name: str
    """Where it was read, as it was given."""
    content: Mapping[str, Any]
    """What its JSON says."""
    wrote: Mapping[str, Any]
    """What wrote it (`provenance`); {} where it does not say."""
    rows: Sequence[Mapping[str, Any]] = ()
    """Of an autopsy, where they are known: its latents, one by one. Of a table: its rows."""
    curves: Mapping[str, Curves] = field(default_factory=dict)
    """Of a run: under "". Of a sweep: by the name of the member, where its folder is there."""


def read_result(result: object) -> Saved:
    """A result from a file, a folder, an object with `to_dict`, such as a Survey, or the content of a JSON file.
    What was read before is returned as it is.

    Raises InputError for what is none, for a file that is damaged, and for one of a version that is not known.
    """
    if isinstance(result, Saved):
        return result
    if not isinstance(result, str | Path):
        return _of_object(result)
    path = Path(result)
    if not (url_of(path) and path.suffix == ".json") and is_folder(path):
        return _of_folder(path)
    if path.name == "summary.json":
        return _of_run(path.parent)
    if path.name == "sweep.json":
        return _of_sweep(path.parent)
    if path.suffix == ".csv":
        return _of_table(path)
    with input_errors(path, _EXPECTED, "take an earlier copy, or make it anew"):
        content = parse(read_bytes(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected {_EXPECTED}, got {show(content, 60)}")
    if content.get("format") == SUMMARY:
        summary = load_object(path, format=SUMMARY, kind=schema.run)
        return Saved(
            kind="run",
            name=str(path),
            content=with_names_of_now(summary),
            wrote=provenance_of(path),
        )
    if content.get("format") == TRIAL:
        checked = load_object(path, format=TRIAL, kind=schema.TRIAL)
        return Saved(kind="trial", name=str(path), content=checked, wrote=provenance_of(path))
    return read_content(content, str(path))


def _of_table(path: Path) -> Saved:
    """The table of an autopsy, as `autopsy --table` writes it: a row for each latent."""
    what = f"the table of an autopsy with {', '.join((*_WORDS, *_COUNTS, *_NUMBERS))}"
    with input_errors(path, what, "make it anew by autopsy --table"):
        read = csv.DictReader(read_bytes(path).decode("utf-8").splitlines(), strict=True)
        rows = [_row_of(row) for row in read]
        if not rows:
            raise ValueError("it has no rows")
    return Saved(kind="latents", name=str(path), content={}, rows=rows, wrote={})


def _row_of(row: Mapping[str, str]) -> dict[str, Any]:
    """A latent of the table. Raises ValueError and KeyError for another row."""
    numbers = {name: float(row[name]) for name in _NUMBERS}
    if bad := [name for name, value in numbers.items() if not isfinite(value)]:
        raise ValueError(f"{bad[0]} is not finite")
    known = {**{name: row[name] for name in _WORDS}, **{name: int(row[name]) for name in _COUNTS}, **numbers}
    return known | {name: _value_of(value) for name, value in row.items() if name and name not in known}


def _value_of(word: str) -> Any:
    """A further column of the table: a number where it is one."""
    if word in ("True", "False"):
        return word == "True"
    try:
        return float(word)
    except (TypeError, ValueError):
        return str(word)


def _of_object(result: object) -> Saved:
    """A result of Python, as its JSON would tell of it."""
    to_dict = getattr(result, "to_dict", None)
    told = to_dict() if callable(to_dict) else result
    if not isinstance(told, Mapping):
        raise InputError(f"page: expected a path, or a result with to_dict(), got {show(result)}")
    name, content = type(result).__name__, parse(dumps(as_json(told)).encode())
    if "birth" in content and "prescription" in content and "layers" not in content:
        content = {"format": DIAGNOSIS, "version": _VERSION, "verdict": [], "layers": [content]}
    return read_content(content, name, latent_rows(result) if isinstance(result, Autopsy) else ())


def latent_rows(autopsy: Autopsy) -> list[dict[str, Any]]:
    """The latents of an autopsy, as `autopsy --table` writes them."""
    columns = autopsy.columns()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read_content(content: Mapping[str, Any], name: str, rows: Sequence[Mapping[str, Any]] = ()) -> Saved:
    """A result from what its JSON file holds. name: how it is called; rows: the latents of an autopsy.

    Raises InputError for content that is no result, and for a version that is not known.
    """
    kind, check = _kind_of(content, name)
    written = content.get("version")
    if kind in _A and "format" in content and written != _VERSION:
        raise InputError(
            f"{name}: expected version {_VERSION} of {_A[kind]}, got version {show(written)}; use the autopsae "
            "that wrote it, or make it anew"
        )
    check_kind(name, content, check)
    wrote = content.get(PROVENANCE)
    return Saved(kind=kind, name=name, content=content, rows=rows, wrote=wrote if isinstance(wrote, dict) else {})


def _kind_of(content: Mapping[str, Any], path: str) -> tuple[str, Kind]:
    """(the kind of result, what it must be). Autopsies and features of earlier versions name no format."""
    if content.get("format") == DIAGNOSIS:
        return "diagnosis", schema.DIAGNOSIS
    if {"chosen", "candidates"} <= {*content}:
        return "trial", schema.TRIAL
    if content.get("format", AUTOPSY) == AUTOPSY and {"causes", "wake_on_recentring"} <= {*content}:
        return "autopsy", schema.AUTOPSY
    parts = [check for name, check in schema.FEATURES.items() if name in content]
    if content.get("format", FEATURES) == FEATURES and parts:
        return "features", lambda value: next((wrong for check in parts if (wrong := check(value))), None)
    raise InputError(f"{path}: expected {_EXPECTED}, got {_describe(content)}")


def _describe(content: Mapping[str, Any]) -> str:
    """What a JSON object is that is no result."""
    if content.get("format") == BIRTH:
        return "the beginning of a run; pass its folder once it is finished"
    if isinstance(content.get("format"), str):
        return f"a file of the format {printable(content['format'], 60)}; pass the result that it belongs to"
    if "fates" in content or {"alive", "causes"} <= {*content}:
        return "an autopsy of another version; make it again with this one"
    return f"an object with {list_names(content)}" if content else "an empty object"


def _of_folder(path: Path) -> Saved:
    if (path / "sweep.json").is_file():
        return _of_sweep(path)
    if (path / "summary.json").is_file():
        return _of_run(path)
    if (path / "birth.json").is_file() or (path / "portions.json").is_file():
        raise InputError(f"{path}: expected a finished run or sweep, got one that goes on; resume it to its end")
    raise InputError(f"{path}: expected {_EXPECTED}, got a folder without summary.json and sweep.json")


def _of_run(path: Path) -> Saved:
    file = path / "summary.json"
    summary = with_names_of_now(load_object(file, format=SUMMARY, kind=schema.run))
    curves = {"": _curves(path, _POINTS)}
    return Saved(kind="run", name=str(path), content=summary, wrote=provenance_of(file), curves=curves)


def _of_sweep(path: Path) -> Saved:
    file = path / "sweep.json"
    content = load_object(file, format=SWEEP, kind=schema.SWEEP)
    members = [with_names_of_now(member) for member in content["members"]]
    most = max(30, min(_POINTS, _ALL_POINTS // max(1, len(members))))
    folders = {str(member["name"]): path / Path(member.get("folder", member["name"])).name for member in members}
    curves = {name: _curves(folder, most) for name, folder in folders.items()}
    wrote = provenance_of(file)
    return Saved(kind="sweep", name=str(path), content={**content, "members": members}, wrote=wrote, curves=curves)


def _curves(folder: Path, most: int) -> Curves:
    """The records of a run; none where they are not kept."""
    records, number = read_lines(folder / "records.jsonl", most=most)
    held_out, _ = read_lines(folder / "held_out.jsonl", most=most)
    return Curves(records=tuple(records), of=number, held_out=tuple(held_out))


def foreign_version(saved: Saved) -> str:
    """A remark where another version of autopsae wrote a result than the one that shows it; "" for the same, and
    where it is not said.
    """
    wrote = saved.wrote.get("autopsae", version())
    if wrote == version():
        return ""
    return f"It was written by autopsae {wrote}, and is shown by {version()}."
