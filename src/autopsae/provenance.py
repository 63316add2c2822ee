"""What wrote a result: the version, the day, and what the command line was asked for. Every JSON of ours says it.

The day is the only thing in a result that differs where the same is done again. `SOURCE_DATE_EPOCH` (seconds since
1970, reproducible-builds.org) sets it, so that files can be compared to the byte.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import torch

from autopsae.arrays import InputError
from autopsae.version import version
from autopsae.words import show

PROVENANCE = "provenance"
"""Its name in JSON files."""

_TOLD: ContextVar[Mapping[str, Any]] = ContextVar("told")


@contextmanager
def add_provenance(**told: Any) -> Iterator[None]:
    """In this context results say this too: values that JSON has, by name."""
    token = _TOLD.set({**_TOLD.get({}), **told})
    try:
        yield
    finally:
        _TOLD.reset(token)


def provenance() -> dict[str, Any]:
    """{"autopsae": its version, "torch": its version, "date": the day (UTC), and what is recorded}."""
    return {"autopsae": version(), "torch": str(torch.__version__), "date": _today(), **_TOLD.get({})}


def _today() -> str:
    told = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        return datetime.fromtimestamp(time.time() if told is None else int(told), UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {show(told)}; set it to such a number or unset it"
        ) from error
