"""The folder that a harvest is to be written into: the index of one that began there, or nothing yet."""

from pathlib import Path
from typing import Any

from autopsae.activations.index import INDEX, SHARD, check_shards, read_index
from autopsae.activations.remote import check_shards_there
from autopsae.arrays import InputError
from autopsae.disk import LOCK, PARTIAL, sweep
from autopsae.files import differences
from autopsae.urls import check_target, is_there, url_of


def index_of(folder: Path, shards: Path) -> dict[str, Any] | None:
    """The index in `folder` of a harvest, None if one may begin there, InputError if neither. shards: the folder of
    its shards, another one for a part of a harvest.
    """
    if url := url_of(folder):
        return _index_at(url, folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder to harvest into, got a file; pass another name")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / INDEX).exists():
        index = read_index(folder)
        if shards_url := url_of(shards):
            check_shards_there(shards_url, index)
        else:
            check_shards(shards, index)
        return index
    names = [path.name for path in folder.iterdir()]
    foreign = sorted(name for name in names if name != LOCK and not PARTIAL.fullmatch(name))
    if foreign:
        raise InputError(
            f"{folder}: expected an empty folder or one with the {INDEX} of a harvest, got "
            f"{len(foreign)} other files ({', '.join(foreign[:3])}); pass an empty or a new folder"
        )
    return None


def _index_at(url: str, folder: Path) -> dict[str, Any] | None:
    """The same at a URL, where other files may lie: a store has no folders."""
    check_target(url)
    if not is_there(f"{url}/{INDEX}"):
        return None
    index = read_index(folder)
    check_shards_there(url, index)
    return index


def remove_unnamed(folder: Path, index: dict[str, Any]) -> None:
    """Remove the shards that the index of a complete harvest does not name, and partial files of dead processes.
    Jobs wrote them before the harvest was begun again, with larger shards. At a URL all stay.
    """
    if url_of(folder) is None:
        named = {shard["file"] for shard in index["shards"]}
        for path in folder.iterdir():
            if SHARD.fullmatch(path.name) and path.name not in named:
                path.unlink(missing_ok=True)
        sweep(folder)


def check_request(folder: Path, held: dict[str, Any], asked: dict[str, Any]) -> None:
    """InputError, naming what differs, unless the harvest in `folder` was asked for as this one."""
    if held != asked:
        raise InputError(
            f"{folder}: holds a harvest with another request ({_difference(held, asked)}); "
            "ask for the same to resume it, or pass another folder"
        )


def _difference(there: dict[str, Any], asked: dict[str, Any]) -> str:
    def show_value(request: dict[str, Any], key: str) -> str:
        text = repr(request.get(key, "nothing"))
        return text if len(text) <= 60 else text[:57] + "..."

    keys = differences(there, asked)
    return "; ".join(f"{key}: {show_value(there, key)} there, {show_value(asked, key)} asked" for key in keys)
