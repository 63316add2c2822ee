"""Shapes and types in signatures are checked while the tests run: a wrong shape is an error at its call.

One thread, in this process and in those that it starts: two processes test side by side (`-n 2`), and no number
depends on the machine. A test of more threads asks for them.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read when PyTorch is imported

from jaxtyping import install_import_hook

install_import_hook("autopsae", "beartype.beartype").__enter__()
