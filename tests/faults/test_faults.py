"""A small share of `make check`: damaged files, kills, disks and rights; and the table that tells of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.fuzz import fuzz, told
from tests.faults.verbs import ON_AN_ENGINE, VERBS

ROOT = Path(__file__).parents[2]


def run(*command: str, before: tuple[str, ...] = ()) -> None:
    """A module of this folder in a process of its own, which may fork as it likes."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    whole = [*before, sys.executable, "-m", *command]
    done = subprocess.run(whole, capture_output=True, text=True, env=env, cwd=ROOT)
    if before and ("unshare" in done.stderr or "mount:" in done.stderr):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


def test_five_hundred_damaged_files_are_refused_or_read_and_none_hangs_or_fills_the_memory() -> None:
    pytest.importorskip("gguf", reason="needs the extra [models]")
    failures = [told(outcome) for outcome in fuzz(500) if outcome.failed]
    assert not failures, "\n".join(failures)


def test_twenty_kills_leave_the_results_of_an_undisturbed_run_and_no_partial_file() -> None:
    names = [word for name in VERBS if name != ON_AN_ENGINE for word in ("--verb", name)]
    run("tests.faults.kills", "--kills", "20", *names)


QUICK = ["--verb", "diagnose", "--verb", "train", "--verb", "convert"]


def test_verbs_that_may_not_write_or_not_so_much_say_so_in_one_line_and_end_as_usual_once_they_can() -> None:
    run("tests.faults.disks", *QUICK)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks")
def test_verbs_on_full_and_read_only_disks_say_so_in_one_line_and_end_as_usual_once_there_is_room() -> None:
    run("tests.faults.disks", "--mount", *QUICK, before=("unshare", "--mount"))


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks")
def test_a_disk_that_fills_under_the_jobs_of_an_engine_is_told_in_one_line_and_the_harvest_goes_on() -> None:
    engine = ["--verb", ON_AN_ENGINE, "--rounds", "3"]
    run("tests.faults.disks", "--mount", *engine, before=("unshare", "--mount"))


def test_each_row_of_the_tables_of_what_may_go_wrong_names_a_test_that_there_is() -> None:
    page = (ROOT / "docs" / "outputs.md").read_text()
    sources = {path.stem: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    there = {*sources, *re.findall(r"^def (test_\w+)", "\n".join(sources.values()), re.MULTILINE)}
    tables = re.findall(r"^\|.*\| test \|\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.rsplit("|", 2)[1])
        assert named, row
        assert {*named} <= there, row
