"""What a run or a sweep resumes from is checked: it does not go on silently with damaged files."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.run.folder import Entry, Plan
from autopsae.run.many import run_sweep
from autopsae.run.observer import Observer
from autopsae.run.one import run
from autopsae.run.portions import Portions
from autopsae.training.config import Record
from tests.damage import change_object, change_pair
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
        run(entry("m"), X[:300], X[300:], folder / "run", plan=PLAN, observer=Observer(on_records=stop))
    portions = Portions(groups=[["a"], ["b"]], bytes_at_once=0)

    def stop_b(records: dict[str, Record]) -> None:
        if "b" in records:
            stop(records)

    with pytest.raises(Stopped):
        run_sweep(
            entries(),
            X[:300],
            X[300:],
            folder / "sweep",
            plan=PLAN,
            portions=portions,
            observer=Observer(on_records=stop_b),
        )
    return folder


def resumed(kind: str, path: Path, *, resume: bool = True) -> dict[str, Any]:
    if kind == "run":
        return run(entry("m"), X[:300], X[300:], path, plan=PLAN, resume=resume)
    return run_sweep(entries(), X[:300], X[300:], path, plan=PLAN, resume=resume)


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


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and a sweep that are finished."""
    folder = tmp_path_factory.mktemp("ended")
    for kind in ("run", "sweep"):
        resumed(kind, folder / kind)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def of_another(path: Path) -> None:
    """A whole pair, but of another SAE of the same shapes."""
    change_pair(path.with_suffix(""), lambda tensors: tensors["b_dec"].add_(1.0))


LOST: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no tensors": ("sae.safetensors", Path.unlink, "there is no such file"),
    "no words": ("sae.json", Path.unlink, "there is no such file"),
    "cut tensors": ("sae.safetensors", cut, "not the tensors that sae.json describes"),
    "a flipped bit": ("sae.safetensors", flip, "not the tensors that sae.json describes"),
    "cut words": ("sae.json", cut, "could not read it"),
    "another SAE": ("sae.safetensors", of_another, "another SAE than the one that was trained here"),
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("state", ["run", "sweep", "unfinished sweep"])
def test_a_finished_sae_that_is_lost_or_damaged_is_told_before_training_and_nothing_changes(
    tmp_path: Path, ended: Path, broken_off: Path, state: str, lost: str
) -> None:
    kind, (name, change, message) = state.split()[-1], LOST[lost]
    shutil.copytree((broken_off if "unfinished" in state else ended) / kind, tmp_path / kind)
    member = tmp_path / kind / ("a" if kind == "sweep" else "")
    change(member / name)
    before = contents(tmp_path / kind)
    with pytest.raises(InputError) as raised:
        resumed(kind, tmp_path / kind)
    assert str(raised.value).startswith(f"{member}: expected the SAE that the summary.json of this finished run")
    assert message in str(raised.value)
    advice = f"put it back from a copy, or remove {member / 'summary.json'} and resume to train it again"
    assert str(raised.value).endswith(advice)
    assert contents(tmp_path / kind) == before


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_what_is_advised_for_a_lost_sae_trains_it_again_to_the_same_end(
    tmp_path: Path, ended: Path, kind: str
) -> None:
    shutil.copytree(ended / kind, tmp_path / kind)
    member, before = tmp_path / kind / ("a" if kind == "sweep" else ""), contents(tmp_path / kind)
    other = {path: Path(path).stat().st_mtime_ns for path in before if "/b/" in path}
    for name in ("sae.safetensors", "summary.json"):
        (member / name).unlink()
    resumed(kind, tmp_path / kind)
    assert contents(tmp_path / kind) == before
    assert {path: Path(path).stat().st_mtime_ns for path in other} == other  # a member that is done is left alone


def test_a_sweep_tells_what_the_summaries_of_its_members_tell(tmp_path: Path, ended: Path) -> None:
    shutil.copytree(ended / "sweep", tmp_path / "sweep")
    right = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["best"]
    best = right[""]
    change_object(tmp_path / "sweep" / best / "summary.json", mse_raw=1e9)
    [other] = {"a", "b"} - {best}
    assert resumed("sweep", tmp_path / "sweep")["best"] == {"": other}
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["best"] == {"": other}


def test_a_member_that_a_checkpoint_says_had_ended_must_have_its_summary(tmp_path: Path) -> None:
    listed, portions = entries(), Portions(groups=[["a", "b"]], bytes_at_once=0)
    with torch.no_grad():
        listed[0].member.sae.W_enc.mul_(torch.finfo(torch.float32).max)  # diverges at once
    with pytest.raises(Stopped):
        run_sweep(
            listed,
            X[:300],
            X[300:],
            tmp_path / "out",
            plan=PLAN,
            portions=portions,
            observer=Observer(on_records=stop),
        )
    (tmp_path / "out" / "a" / "summary.json").unlink()
    before = contents(tmp_path / "out")
    with pytest.raises(InputError) as raised:
        resumed("sweep", tmp_path / "out")
    assert str(raised.value) == (
        f"{tmp_path}/out/checkpoint-0.safetensors: expected the summary.json of members that had ended before it "
        "was written, but a has none; put it back, or remove this checkpoint to train its SAEs from the start"
    )
    assert contents(tmp_path / "out") == before


LINKS = ["run/summary.json", "run/checkpoint.safetensors", "sweep/sweep.json", "sweep/a/summary.json", "sweep/a"]


@pytest.mark.parametrize("name", [*LINKS, "sweep/portions.json", "run", "sweep"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_link_to_nothing_is_no_missing_result(tmp_path: Path, ended: Path, name: str, resume: bool) -> None:
    for kind in ("run", "sweep"):
        shutil.copytree(ended / kind, tmp_path / kind)
    path, gone = tmp_path / name, tmp_path / "gone"
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(gone)
    before = contents(tmp_path)
    with pytest.raises(InputError) as raised:
        resumed(name.split("/")[0], tmp_path / name.split("/")[0], resume=resume)
    told = (
        f"{path}: expected a file or a folder, got a symbolic link to {gone}, which is not there; bring it back "
        "(is its disk mounted?), or remove the link to start afresh"
    )
    # Not resumed, a folder may be refused for another result in it.
    assert str(raised.value) == told or (not resume and "expected a new folder" in str(raised.value))
    assert contents(tmp_path) == before


def test_a_link_that_leads_to_a_result_is_that_result(tmp_path: Path, ended: Path) -> None:
    for kind in ("run", "sweep"):
        shutil.copytree(ended / kind, tmp_path / kind)
        for path in [*(tmp_path / kind).rglob("summary.json"), *(tmp_path / kind).glob("sweep.json")]:
            moved = tmp_path / f"{kind}-{path.parent.name}-{path.name}"
            path.rename(moved)
            path.symlink_to(moved)
        before = contents(tmp_path / kind)
        resumed(kind, tmp_path / kind)
        assert contents(tmp_path / kind) == before


@pytest.mark.parametrize("name", ["run/summary.json", "sweep/a/summary.json", "sweep/sweep.json"])
@pytest.mark.parametrize("what", ["folder", "pipe", "loop"])
def test_a_result_that_is_no_file_is_refused_and_left(tmp_path: Path, ended: Path, name: str, what: str) -> None:
    kind = name.split("/")[0]
    shutil.copytree(ended / kind, tmp_path / kind)
    path = tmp_path / name
    path.unlink()
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[what]()
    with pytest.raises(InputError, match=f"^{path}: expected "):
        resumed(kind, tmp_path / kind)
    assert path.is_dir() or path.is_fifo() or path.is_symlink()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for path in (tmp_path / "run", tmp_path / "out" / "a"):
        path.write_text("mine")
    for act in (
        lambda: run(entry("m"), X[:300], X[300:], tmp_path / "run"),
        lambda: run_sweep(entries(), X[:300], X[300:], tmp_path / "out"),
    ):
        with pytest.raises(InputError, match="expected a folder, or nothing yet, got a file; pass another name"):
            act()
