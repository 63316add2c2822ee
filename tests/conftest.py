"""Shapes and types in signatures are checked while the tests run: a wrong shape is an error at its call."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

install_import_hook("autopsae", "beartype.beartype").__enter__()
