"""What is done is kept, whatever becomes of the processes."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from autopsae.arrays import InputError
from autopsae.cluster.engine import Ended, Task, Work, attempt, open_engine, read_options
from autopsae.cluster.manifest import Job, run_jobs

pytestmark = pytest.mark.quick


def write(*, number: int, result: str) -> None:
    if number < 0:
        raise InputError(f"number: expected at least 0, got {number}")
    Path(result).write_text(str(number**2))


class Here:
    """An engine in this process; its processes "die" for the numbers in `dying`, once."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.ran = list[int]()
        self._stop_after = stop_after

    def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
        for number, task in enumerate(tasks):
            if len(self.ran) == self._stop_after:
                raise KeyboardInterrupt
            self.ran.append(task["number"])
            yield number, attempt(work, task)


def jobs_of(folder: Path, numbers: Sequence[int]) -> dict[str, Job]:
    results = {number: folder / f"{number}.txt" for number in numbers}
    return {
        f"job {n}": Job(task={"number": n, "result": str(path)}, results=(path,)) for n, path in results.items()
    }


def test_interrupted_work_goes_on_and_the_manifest_says_what_is_done(tmp_path: Path) -> None:
    jobs, first, second = jobs_of(tmp_path, range(5)), Here(stop_after=2), Here()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(lambda: first, write, jobs, tmp_path, request={"power": 2})
    done = json.loads((tmp_path / "manifest.json").read_text())["done"]
    assert [name for name, is_done in done.items() if is_done] == ["job 0", "job 1"]
    ended = list[str]()
    run_jobs(lambda: second, write, jobs, tmp_path, request={"power": 2}, ended=ended.append)
    assert (first.ran, second.ran) == ([0, 1], [2, 3, 4])
    assert ended == list(jobs)
    assert [(tmp_path / f"{n}.txt").read_text() for n in range(5)] == ["0", "1", "4", "9", "16"]
    third = Here()
    run_jobs(lambda: third, write, jobs, tmp_path, request={"power": 2})
    assert third.ran == []


def test_a_job_whose_result_is_there_is_done_also_where_nobody_was_left_to_say_so(tmp_path: Path) -> None:
    jobs, engine = jobs_of(tmp_path, range(3)), Here(stop_after=0)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(lambda: engine, write, jobs, tmp_path, request={})
    write(number=1, result=str(tmp_path / "1.txt"))
    again = Here()
    run_jobs(lambda: again, write, jobs, tmp_path, request={})
    assert again.ran == [0, 2]


def test_a_job_that_fails_costs_only_itself(tmp_path: Path) -> None:
    jobs, engine = jobs_of(tmp_path, [1, -1, 2, -2]), Here()
    with pytest.raises(InputError, match=r"number: expected at least 0, got -1 \(and 1 more: job -2\)"):
        run_jobs(lambda: engine, write, jobs, tmp_path, request={})
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["1.txt", "2.txt"]


def test_other_work_is_refused(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, range(2))
    run_jobs(Here, write, jobs, tmp_path, request={"power": 2})
    with pytest.raises(InputError, match="expected work with the settings that it was begun with: power 2, got 3"):
        run_jobs(Here, write, jobs, tmp_path, request={"power": 3})
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"expected a new folder, or one with its manifest\.json"):
        run_jobs(Here, write, jobs, tmp_path, request={"power": 2})


@pytest.mark.parametrize("on", ["local", "local:0", "local:x", "pbs", ""])
def test_an_engine_that_there_is_not_is_refused(on: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--on"):
        open_engine(on, tmp_path)


def test_options_of_slurm_are_names_and_values() -> None:
    options = read_options("slurm_partition=gpu,timeout_min=60,cluster=local")
    assert options == {"slurm_partition": "gpu", "timeout_min": 60, "cluster": "local"}
    with pytest.raises(InputError, match="expected NAME=VALUE joined by commas, got 'gpu'"):
        read_options("gpu")


def die_twice(*, number: int, result: str) -> None:
    """Kill its own process, until two files say that it was done twice."""
    died = Path(result).with_suffix(".died")
    if number == 2 and (len(died.read_text()) if died.exists() else 0) < 2:
        with died.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), 9)
    write(number=number, result=result)


def die_always(*, number: int, result: str) -> None:
    os.kill(os.getpid(), 9)
