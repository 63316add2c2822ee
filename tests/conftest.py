"""Shapes and types in signatures are checked while the tests run: a wrong shape is an error at its call."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("SOURCE_DATE_EPOCH", "1700000000")  # tests that compare files may run over midnight

from jaxtyping import install_import_hook

install_import_hook("autopsae", "beartype.beartype").__enter__()
