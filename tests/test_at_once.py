"""Several jobs at once in one process, or in copies of it, give what each gives alone."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp

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


def job(name: str, parent: Path) -> object:
    """What a job gives, in a new folder of its own."""
    return plain(JOBS[name](Path(mkdtemp(dir=parent))))


def test_threads_of_python_do_not_meet_in_a_number(tmp_path: Path) -> None:
    alone = {name: job(name, tmp_path) for name in TOGETHER}
    names = [*TOGETHER, *reversed(TOGETHER)]  # each beside another, and beside itself
    with ThreadPoolExecutor(4) as threads:
        together = [*threads.map(partial(job, parent=tmp_path), names)]
    assert {name for name, got in zip(names, together, strict=True) if got != alone[name]} == set()


def in_a_copy(name: str, parent: Path) -> object:
    torch.set_num_threads(1)
    return job(name, parent)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot copy a process")
def test_a_copied_process_with_one_thread_works_after_its_parent_did(tmp_path: Path) -> None:
    """With more, PyTorch itself waits for threads that are not in the copy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = {name: job(name, tmp_path) for name in TOGETHER[:4]}
    finally:
        torch.set_num_threads(threads)
    job("trained topk", tmp_path)  # the parent has its threads
    with get_context("fork").Pool(2) as copies:
        jobs = {name: copies.apply_async(in_a_copy, (name, tmp_path)) for name in alone}
        assert {name: copy.get(timeout=300) for name, copy in jobs.items()} == alone
