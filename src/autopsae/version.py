"""The version of this library, as it is installed."""

from functools import cache
from importlib.metadata import version as installed


@cache
def version() -> str:
    """As in pyproject.toml: "0.1.0"."""
    return installed("autopsae")


__version__ = version()
