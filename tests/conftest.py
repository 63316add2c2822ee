"""Shapes and types in signatures are checked while the tests run (`shapes`): a wrong shape is an error at its call.

One thread, in this process and in those that it starts: two processes test side by side (`-n 2`), and no number
depends on the machine. A test of more threads asks for them. Each test begins with the same seeds, so that no draw
depends on which tests ran before.
"""

import os
import random
import signal

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("SOURCE_DATE_EPOCH", "1700000000")  # tests that compare files may run over midnight
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read when PyTorch is imported

# A shell's background job ignores Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

install_import_hook("autopsae", "tests.shapes.check").__enter__()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from tests import shapes  # noqa: E402


@pytest.hookimpl(tryfirst=True)  # before the fixtures, which draw too
def pytest_runtest_setup() -> None:
    shapes.begin()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")  # sparsify's fit() lowers it for the whole process
