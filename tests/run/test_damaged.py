"""What a run or a sweep resumes from is checked: it does not go on silently with damaged files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autopsae.arrays import InputError
from autopsae.run.folder import Entry, Plan
from autopsae.run.many import run_sweep
from autopsae.run.one import run
from autopsae.run.portions import Portions
from autopsae.training.config import Record
from tests.damage import change_object
from tests.test_first_version import X, entry

PLAN = Plan(checkpoint_every=2, evaluate_every=2)


class Stopped(Exception):
    pass


def stop(records: dict[str, Record]) -> None:
    if next(iter(records.values())).step == 5:
        raise Stopped


def entries() -> list[Entry]:
    return [entry("a"), entry("b")]


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and a sweep, the second group of which has not begun."""
    folder = tmp_path_factory.mktemp("broken")
    with pytest.raises(Stopped):
        run(entry("m"), X[:300], X[300:], folder / "run", plan=PLAN, progress=stop)
    portions = Portions(groups=[["a"], ["b"]], bytes_at_once=0)

    def stop_b(records: dict[str, Record]) -> None:
        if "b" in records:
            stop(records)

    with pytest.raises(Stopped):
        run_sweep(entries(), X[:300], X[300:], folder / "sweep", plan=PLAN, portions=portions, progress=stop_b)
    return folder


def resumed(kind: str, path: Path) -> dict[str, Any]:
    if kind == "run":
        return run(entry("m"), X[:300], X[300:], path, plan=PLAN, resume=True)
    return run_sweep(entries(), X[:300], X[300:], path, plan=PLAN, resume=True)


def replace(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def without_line(number: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:number] + lines[number + 1 :]))

    return change


def write(text: str) -> Callable[[Path], int]:
    return lambda path: path.write_text(text)


CASES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "birth is missing": ("run/birth.json", Path.unlink, "could not read it (there is no such file)"),
    "birth is a list": ("run/birth.json", write("[]"), "expected a saved autopsae-birth, got []"),
    "birth is deep": ("run/birth.json", write("[" * 10**5), "over 32 levels within each other"),
    "birth has another digit": ("run/birth.json", replace('"l0": 2', '"l0": 3'), "other content than its checksum"),
    "birth says words": (
        "run/birth.json",
        lambda p: change_object(p, birth={"dead": "no"}),
        ".birth.dead: expected",
    ),
    "birth of another kind": ("run/birth.json", lambda p: change_object(p, about=[]), ".about: expected an object"),
    "records are missing": ("run/records.jsonl", Path.unlink, "none between step -1 and"),
    "a record is missing": ("run/records.jsonl", without_line(2), "none between step 1 and 3"),
    "a record is no record": (
        "run/records.jsonl",
        replace('"step": 2', '"step": "x"'),
        "expected records with a step",
    ),
    "a measurement is missing": ("run/held_out.jsonl", without_line(0), "none between step -1 and 3"),
    "portions are null": ("sweep/portions.json", write("null"), "expected a saved autopsae-portions, got None"),
    "portions of others": (
        "sweep/portions.json",
        lambda p: change_object(p, groups=[["x"]]),
        "expected groups of all members, got [['x']]",
    ),
    "portions name one twice": (
        "sweep/portions.json",
        lambda p: change_object(p, groups=[["a", "a"], ["b"]]),
        "expected groups of all members",
    ),
    "a summary is empty": (
        "sweep/a/summary.json",
        write(""),
        "expected a saved autopsae-summary, could not read it",
    ),
    "a summary says nothing": ("sweep/a/summary.json", write("{}"), "expected birth, scale, diverged, steps"),
    "a summary lacks its error": (
        "sweep/a/summary.json",
        lambda p: change_object(p, mse_raw=...),
        "but it lacks mse_raw",
    ),
    "a summary of other settings": (
        "sweep/a/summary.json",
        lambda p: change_object(p, training={**json.loads(p.read_text())["training"], "lr": 0.5}),
        "expected the settings of the finished run in it: lr 0.5, got 0.001",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_damaged_files_are_refused_and_left_as_they_are(tmp_path: Path, broken_off: Path, case: str) -> None:
    name, change, message = CASES[case]
    kind = name.split("/")[0]
    shutil.copytree(broken_off / kind, tmp_path / kind)
    change(tmp_path / name)
    before = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else None
    with pytest.raises(InputError) as raised:
        resumed(kind, tmp_path / kind)
    assert message in str(raised.value)
    assert str(tmp_path / kind) in str(raised.value)
    assert (tmp_path / name).exists() == (before is not None)
    assert before is None or (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_undamaged_ones_go_on(tmp_path: Path, broken_off: Path, kind: str) -> None:
    shutil.copytree(broken_off / kind, tmp_path / kind)
    result = resumed(kind, tmp_path / kind)
    assert [one["steps"] for one in result.get("members", [result])] == [8] * len(result.get("members", [result]))
    assert not [*(tmp_path / kind).rglob("*checkpoint*"), *(tmp_path / kind).rglob(".*")]
