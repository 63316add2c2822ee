"""Each engine, with processes that die: the results of one process."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
import torch

from autopsae.activations.store import open_layers
from autopsae.arrays import InputError
from autopsae.cli.interrupts import job_signals
from autopsae.cli.verbs import run
from autopsae.cluster.diagnose import survey_on
from autopsae.cluster.engine import open_engine
from autopsae.cluster.manifest import run_jobs
from autopsae.diagnosis.survey import survey
from tests.cluster.test_manifest import die_always, die_twice, jobs_of, write
from tests.diagnosis.test_parts import ASKED, check_same, write_store
from tests.processes import SECONDS, children, command_of, wait_for

pytestmark = pytest.mark.long

needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit")
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
ENGINES = [
    "local:2",
    pytest.param("slurm:cluster=local,jobs=2", marks=needs_submitit),
    pytest.param("ray", marks=needs_ray),
]


@pytest.mark.parametrize("on", ENGINES)
def test_a_task_whose_process_dies_is_run_again(on: str, tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, range(4))
    run_jobs(lambda: open_engine(on, tmp_path), die_twice, jobs, tmp_path, request={})
    assert [(tmp_path / f"{n}.txt").read_text() for n in range(4)] == ["0", "1", "4", "9"]
    assert (tmp_path / "2.died").read_text() == "xx"


@pytest.mark.parametrize("on", ENGINES)
def test_a_task_whose_process_always_dies_and_one_of_bad_input_are_one_line(on: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="died one after the other; is there enough memory"):
        run_jobs(lambda: open_engine(on, tmp_path), die_always, jobs_of(tmp_path, [1]), tmp_path, request={})
    with pytest.raises(InputError, match="number: expected at least 0, got -1"):
        run_jobs(lambda: open_engine(on, tmp_path), write, jobs_of(tmp_path, [-1]), tmp_path, request={})


def wait_or_write(*, number: int, result: str) -> None:
    """Of number 1: wait until told to end, and leave a file that says so."""
    if number != 1:
        write(number=number, result=result)
        return
    with job_signals():
        Path(result).with_suffix(".begun").touch()
        try:
            for _ in range(20 * SECONDS):
                time.sleep(0.05)  # Ray interrupts no single long one
        except KeyboardInterrupt:
            Path(result).with_suffix(".told").touch()
            raise


@pytest.mark.parametrize("on", ENGINES)
def test_tasks_are_told_to_end_where_the_work_is_interrupted(on: str, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    tasks = [job.task for job in jobs_of(tmp_path, range(2)).values()]
    with closing(open_engine(on, tmp_path).run(wait_or_write, tasks)) as running:
        assert next(running) == (0, None)
        wait_for((tmp_path / "1.begun").exists)
    wait_for((tmp_path / "1.told").exists)
    assert signal.getsignal(signal.SIGTERM) is before


@contextmanager
def killer(kills: int, is_worker: Callable[[str], bool]) -> Iterator[list[int]]:
    """Kill so many workers at random moments meanwhile. Yields a list of those that were killed."""
    killed, over, random = list[int](), threading.Event(), Random(0)

    def kill() -> None:
        while len(killed) < kills and not over.wait(random.uniform(0.5, 4.0)):
            workers = [pid for pid in children(os.getpid()) if is_worker(command_of(pid))]
            if workers:
                killed.append(random.choice(workers))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


WORKER = {
    "local": "spawn_main",
    "slurm": "submitit.core._submit",
    "ray": "ray::attempt",
}  # not its agents, with which a node ends


@pytest.mark.parametrize("on", ENGINES)
@pytest.mark.parametrize("split", [None, 2])
def test_layers_on_an_engine_are_diagnosed_as_one_process_diagnoses_them_with_workers_killed(
    on: str, split: int | None, tmp_path: Path
) -> None:
    layers = [f"hs{number}" for number in range(3)]
    store = write_store(tmp_path / "s", shards=4, each=1600, layers=layers)
    alone = survey(open_layers(store), exact=False, **ASKED)
    mark = WORKER[on.partition(":")[0]]
    with killer(2, lambda command: mark in command) as killed:
        spread = survey_on(lambda: open_engine(on, tmp_path / "w"), store, tmp_path / "w", split=split, **ASKED)
    assert [d.layer for d in spread] == layers
    assert len(killed) <= 2
    for one, other in zip(alone, spread, strict=True):
        if split is None:
            assert one.to_dict() == other.to_dict()
            assert torch.equal(one.prescription.b_dec, other.prescription.b_dec)
        check_same(other, one)


def test_the_verb_writes_what_it_writes_without_an_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "s", shards=2, each=300, layers=["hs1", "hs2"])
    asked = ["diagnose", str(store), "--d-sae", "96", "--k", "4", "--json"]
    on = ["--on", "local:1", "--work", str(tmp_path / "w")]
    assert run([*asked, str(tmp_path / "a.json")]) == 0
    printed = capsys.readouterr().out
    assert run([*asked, str(tmp_path / "b.json"), *on]) == 0
    assert capsys.readouterr().out == printed
    assert run([*asked, str(tmp_path / "c.json"), *on]) == 0  # nothing is left to do: no process is started
    assert capsys.readouterr().out == printed
