"""Several jobs at once in one process, or in copies of it, give what each gives alone."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from tests.test_ambient import JOBS, plain

TOGETHER = (
    "counted",
    "diagnosed topk",
    "measured batch_topk",
    "trained topk",
    "trained, auxk",
    "described",
    "tried",
)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """A new folder for each job."""

    def make() -> Iterator[Path]:
        for number in range(1000):
            folder = tmp_path / str(number)
            folder.mkdir()
            yield folder

    return make()


def test_threads_of_python_do_not_meet_in_a_number(folders: Iterator[Path]) -> None:
    alone = {name: plain(JOBS[name](next(folders))) for name in TOGETHER}
    names = [*TOGETHER, *reversed(TOGETHER)]  # each beside another, and beside itself
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(JOBS[name], next(folders)) for name in names]
        together = [plain(job.result()) for job in jobs]
    assert {name for name, got in zip(names, together, strict=True) if got != alone[name]} == set()


def in_a_copy(name: str, folder: Path) -> object:
    torch.set_num_threads(1)
    return plain(JOBS[name](folder))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot copy a process")
def test_a_copied_process_with_one_thread_works_after_its_parent_did(folders: Iterator[Path]) -> None:
    """With more, PyTorch itself waits for threads that are not in the copy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = {name: plain(JOBS[name](next(folders))) for name in TOGETHER[:4]}
    finally:
        torch.set_num_threads(threads)
    plain(JOBS["trained topk"](next(folders)))  # the parent has its threads
    with get_context("fork").Pool(2) as copies:
        jobs = {name: copies.apply_async(in_a_copy, (name, next(folders))) for name in alone}
        assert {name: job.get(timeout=300) for name, job in jobs.items()} == alone
