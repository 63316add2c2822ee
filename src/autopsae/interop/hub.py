"""SAEs on the Hugging Face hub: only the files that a reader may ask for are fetched."""

from collections.abc import Collection
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.extras import package_error

HUB = "hf:"


def fetch(name: str, files: Collection[str], suffixes: Collection[str]) -> Path:
    """Where `owner/repository/folder/in/it`, or a file in it, lies on this machine once it is fetched.

    files: those of a folder that are wanted; suffixes: of names that are files themselves. Raises InputError for a
    name that is none, and for whatever the hub or the network says.
    """
    owner, repository, *rest = [*name.split("/"), "", ""][: max(2, name.count("/") + 1)]
    if not owner or not repository or {"", ".", ".."} & {*rest}:
        raise InputError(f"{HUB}{name}: expected {HUB}owner/repository, or {HUB}owner/repository/folder/in/it")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise package_error(f"{HUB}{name}", "huggingface_hub", error, install="huggingface_hub") from error
    inside = "/".join(rest)
    is_file = Path(inside).suffix in suffixes
    wanted = [inside] if is_file else [f"{inside}/{file}" if inside else file for file in files]
    try:
        snapshot = snapshot_download(f"{owner}/{repository}", allow_patterns=wanted)
    except Exception as error:  # the hub's and the network's errors have no common class
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{HUB}{name}: could not be fetched ({type(error).__name__}: {reason}); check the name and the network"
        ) from error
    local = Path(snapshot) / inside
    if not any((Path(snapshot) / file).is_file() for file in wanted):
        listed = inside if is_file else ", ".join(files)
        raise InputError(
            f"{HUB}{name}: expected one of {listed} there, got none; check the name, and name a file that "
            "is an SAE by itself"
        )
    return local
