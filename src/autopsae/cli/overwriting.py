"""Before the work of a verb: no file that it writes is one that it reads, and no two of its outputs are one file.

What is read and written is told by the marks of the options (`options.kinds`), so every verb is checked alike.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, get_args, get_type_hints

from safetensors import safe_open

from autopsae.activations.index import INDEX
from autopsae.activations.names import file_names
from autopsae.arrays import InputError
from autopsae.cli.options.kinds import Reads, Writes
from autopsae.diagnosis import part_file, prescription
from autopsae.files import is_regular, pair_files
from autopsae.saved import check_free, provenance_of
from autopsae.urls import is_file_there, url_of

_MARKS = (INDEX, "birth.json", "summary.json", "sweep.json", "portions.json")
"""A folder with one of them is what `harvest`, `train` or a sweep wrote: it is read with any of its files."""
_WRITTEN = (INDEX, "birth.json", "sae.json", "sae.safetensors", "checkpoint.safetensors")
"""What these verbs write into their folders, and what may be a file that is read or another output."""
_SHOWN = (".html", ".png", ".pdf", ".svg", ".csv", ".parquet")
"""Pages, figures and tables: in a folder of tokens or of a run, they are no part of it, but for `_RECORDS`."""
_RECORDS = "records.csv"


def check_overwriting(verb: str, options: object, more: Iterable[Path] = ()) -> None:
    """InputError for a file that the verb would both read and write, or write twice; of a folder that is read, each
    file counts that the same verb did not write.

    more: files that are written besides those that the options name.
    """
    read = [(Path(value), kind) for value, kind in _values_of(options, Reads)]
    written = [(Path(value), kind) for value, kind in _values_of(options, Writes)]
    outputs = [path for path, kind in written if kind == "file"]
    outputs += [file for path, kind in written if kind == "pair" for file in pair_files(path)]
    outputs += more
    folders = [path for path, kind in written if kind == "folder"]
    for one, other in combinations(outputs, 2):
        if _identity(one) == _identity(other):
            raise InputError(f"expected a file of its own for each output, got {one}, {other}; rename one of them")
    for path, kind in read:
        files, places = _files_of(path, kind), _folders_of(path, kind)
        for output in outputs:
            if _is_replaced(output):
                _check_output(output, files, places, kind, verb)
        _check_folders(folders, path, files)
    for folder in folders:
        for output in outputs:
            if output.name in _WRITTEN and _is_within(output, folder):
                raise InputError(f"{output}: expected a name that {folder} is not given; pass another")


def check_prescriptions(verb: str, options: object, folder: Path | None, layers: Sequence[str]) -> None:
    """`check_overwriting` with the prescriptions of these layers, which no pair of another kind may give way to."""
    if folder is None:
        return
    pairs = [folder / file for file in file_names(layers).values()]
    check_overwriting(verb, options, [file for pair in pairs for file in pair_files(pair)])
    for pair in pairs:
        check_free(pair, format=prescription.FORMAT)


def _values_of(options: object, mark: type[Reads] | type[Writes]) -> Iterator[tuple[str | Path, str]]:
    """(value, kind) of each option with this mark that is given, those in groups too."""
    hints = get_type_hints(type(options), include_extras=True)
    for name, value in vars(options).items():
        if is_dataclass(value):
            yield from _values_of(value, mark)
            continue
        marks: Any = [one for one in get_args(hints[name]) if isinstance(one, Reads | Writes)]
        for one in value if isinstance(value, tuple) else (value,):
            # What is a path and not marked is read.
            [own] = marks or [Reads("files") if isinstance(one, Path) else None]
            if isinstance(own, mark) and one is not None:
                yield one, own.kind


def _files_of(path: Path, kind: str) -> list[Path]:
    """A file that is read, or both of a pair."""
    is_pair = (
        kind == "pair" and path.name and (path.suffix in (".json", ".safetensors") or not os.path.exists(path))
    )
    return [path, *pair_files(path)] if is_pair else [path]


def _folders_of(path: Path, kind: str) -> list[Path]:
    """The folder that is read, or that of the run, sweep or harvest which wrote a file that is read."""
    if url_of(path) or os.path.isdir(path):
        return [path]
    if not any(os.path.exists(file) for file in _files_of(path, kind)):
        return []  # a name on the Hub
    folder = path.absolute().parent
    own = [folder] if any(os.path.exists(folder / mark) for mark in _MARKS) else []
    return [*own, *(out for out in [folder.parent] if any(os.path.exists(out / mark) for mark in _MARKS[-2:]))]


def _check_output(output: Path, files: Sequence[Path], folders: Sequence[Path], kind: str, verb: str) -> None:
    if _identity(output) in map(_identity, files):
        raise InputError(f"{output}: expected a new name, got that of a file that is read; pass another")
    for folder in folders:
        if _is_within(output, folder) and is_file_there(output) and _is_part(output, kind, verb):
            raise InputError(f"{output}: expected a new name, got that of a file of {folder}; pass another")


def _check_folders(folders: Iterable[Path], read: Path, files: Sequence[Path]) -> None:
    """InputError where a folder that is written is read, or a file that is read has a name that it gives."""
    for folder in folders:
        if os.path.isdir(read) and _identity(folder) == _identity(read):
            raise InputError(f"{folder}: expected a new folder, got one that is read; pass another name")
        if file := next((file for file in files if file.name in _WRITTEN and _is_within(file, folder)), None):
            raise InputError(
                f"{folder}: expected a new folder, got that of {file}, which is read; pass another name"
            )


def _is_replaced(path: Path) -> bool:
    """Whether an output is a file, and no pipe or device, which stays. What cannot be seen is refused later."""
    try:
        return is_regular(path)
    except OSError:
        return False


def _identity(path: Path) -> object:
    """The same for all names of a file, links too."""
    url = url_of(path)
    if url and not url.startswith("file:///"):
        return url
    place = Path(url.removeprefix("file://")) if url else path
    try:
        status = place.stat()
    except OSError:
        return os.path.realpath(place)
    return (status.st_dev, status.st_ino)


def _is_within(path: Path, folder: Path) -> bool:
    """Whether the file is in the folder or below it, by its own name or by what it links to."""
    if url_of(path) or url_of(folder):
        return Path(folder) in Path(path).parents
    places = {*path.absolute().parents, *path.resolve().parents}
    return _identity(folder) in {_identity(place) for place in places}


def _is_part(path: Path, kind: str, verb: str) -> bool:
    """Whether a file of a folder that is read is part of what is there, and no earlier output of the verb."""
    if path.suffix in _SHOWN:
        return kind == "images" or path.name == _RECORDS
    try:
        if path.suffix == ".safetensors":
            described = pair_files(path)[0]
            return not _is_of_stats(path) if not is_file_there(described) else _is_part(described, kind, verb)
        return provenance_of(path).get("command") != verb
    except (InputError, OSError):
        return True


def _is_of_stats(path: Path) -> bool:
    """Whether a file is a part that `stats` or `merge` wrote."""
    try:
        with safe_open(path, framework="numpy") as opened:
            return part_file.FORMAT in (opened.metadata() or {}).get("about", "")
    except Exception:  # damaged, or of others
        return False
