"""The version of the package, as its installed metadata say."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("autopsae")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "unknown"
