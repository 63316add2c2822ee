"""Files that exist whole or not at all: written beside their place, flushed to disk, then renamed into it."""

import errno
import filecmp
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.disk import DiskFull, name_full_disk, new_partial, sweep_once
from autopsae.pipes import descriptor_of, write_through
from autopsae.urls import put, refuse_url, url_of
from autopsae.words import printable

# In safetensors' order: the tensors of a file follow each other by type, then by name.
_TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ON_WINDOWS = os.name == "nt"


def write_whole(path: str | Path, write: Callable[[Path], None]) -> None:
    """Create or replace `path` with what `write(temporary path)` leaves, or leave it untouched on any failure.

    The temporary file is in the same folder, is removed if `write` fails, and is swept by a later run if the
    process dies. A symbolic link stays, and the file that it leads to is replaced. A file that is replaced keeps
    its mode and, where the system allows it, its owner; a new one has the mode of the umask. What is no regular
    file (a pipe, /dev/stdout, a device) stays, and is written through.

    `path` may be a URL (`urls`): what is there in its place is then replaced once all of it has arrived.

    Raises DiskFull, OSError where the system refuses, and InputError for a pipe that nobody reads and for a store
    that does not take the file.
    """
    path = Path(path)
    if url := url_of(path):
        _write_at(url, write)
        return
    with name_full_disk(path):
        descriptor, there = descriptor_of(path), _status(path)
        if descriptor is not None or (there is not None and not stat.S_ISREG(there.st_mode)):
            write_through(path, descriptor, write)
        else:
            _replace(Path(os.path.realpath(path)), there, write)


def write_text(path: str | Path, text: str) -> None:
    """`write_whole` for text in UTF-8."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every system

    write_whole(path, write)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """`write_whole` for a safetensors file, the bytes of which are those of `safetensors.torch.save_file`; returns
    their SHA-256.

    That function would hide a full disk behind an error of its own, and give the file to its owner alone.
    """
    digest = sha256()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for block in _blocks(tensors, metadata or {}):
                file.write(block)
                digest.update(block)

    write_whole(path, write)
    return digest.hexdigest()


def write_folder(path: str | Path, write: Callable[[Path], None]) -> None:
    """Create the folder `path` with what `write(temporary folder)` leaves, or nothing on any failure. A folder that
    holds the same files already stays as it is.

    Raises InputError where there is anything else, for a URL, and as `write_whole`.
    """
    refuse_url(path, "a folder of this machine", "name one, and copy it to the store when it is there")
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_once(path.parent)
    with name_full_disk(path):
        temporary, held = new_partial(path, folder=True)
        try:
            write(temporary)
            if not _has_the_files_of(path, temporary):
                _take_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(held)


def _take_place(temporary: Path, path: Path) -> None:
    try:
        if ON_WINDOWS and path.is_dir():
            path.rmdir()  # Windows renames a folder to no name that is taken, not even to that of an empty one
        temporary.replace(path)
    except OSError as error:
        is_taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
        if not is_taken and not (ON_WINDOWS and path.exists()):
            raise
        raise InputError(
            f"{path}: expected a new or empty folder, got one that holds something; pass another name"
        ) from error


def _has_the_files_of(path: Path, other: Path) -> bool:
    names = [file.name for file in other.iterdir()]
    if not path.is_dir() or {file.name for file in path.iterdir()} != {*names}:
        return False
    return filecmp.cmpfiles(path, other, names, shallow=False)[0] == names


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the file that `write_tensors` would write."""
    digest = sha256()
    for block in _blocks(tensors, {}):
        digest.update(block)
    return digest.hexdigest()


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The names under which what lies in a file is not what is asked for: it cannot be resumed as that."""
    return [key for key in {**there, **asked} if there.get(key, ...) != asked.get(key, ...)]


def changes(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What `differences` finds, with both values, as the end of an error message."""
    told = (
        (printable(one, 200) for one in (key, there.get(key), asked.get(key))) for key in differences(there, asked)
    )
    return "; ".join(f"{key} {before}, got {now}" for key, before, now in told)


def pair_files(path: str | Path) -> tuple[Path, Path]:
    """The two files of a pair, JSON first; `path` with or without a suffix. InputError for "/", "." and ""."""
    stem = Path(path)
    if not stem.name:
        raise InputError(f"{path}: expected the name of a pair of files, got a folder; give a name in it")
    if stem.suffix in (".json", ".safetensors"):
        stem = stem.with_suffix("")
    # Not with_suffix: a layer's name may hold dots ("layers.3.mlp").
    return stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".safetensors")


def is_regular(path: str | Path) -> bool:
    """Can `path` be replaced as a file? True also where there is nothing yet."""
    there = _status(Path(path))
    return descriptor_of(Path(path)) is None and (there is None or stat.S_ISREG(there.st_mode))


def raw_bytes(tensor: Tensor) -> memoryview:
    """The tensor's elements in order, as they are in memory; not copied where they are so on the CPU already."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.stride() != (1,):  # which a single element may have, and `view` refuses
        flat = flat.clone(memory_format=torch.contiguous_format)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def _write_at(url: str, write: Callable[[Path], None]) -> None:
    with TemporaryDirectory(prefix="autopsae-") as folder:
        temporary = Path(folder) / "partial"
        try:
            with name_full_disk(Path(folder).parent):
                write(temporary)
        except DiskFull as error:
            raise DiskFull(f"{url}: is written on this machine first; {error}") from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, url) from error
        try:
            put(temporary, url)
        except OSError as error:
            raise DiskFull(
                f"{url}: the store is full ({error.strerror}); what was written before is whole; free some space "
                "and run the same again"
            ) from error


def _status(path: Path) -> os.stat_result | None:
    """Of what the path leads to, through links; None of nothing."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _replace(target: Path, there: os.stat_result | None, write: Callable[[Path], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_once(target.parent)
    temporary, held = new_partial(target)
    try:
        mode = stat.S_IMODE((there or temporary.stat()).st_mode)
        write(temporary)
        if there is not None:
            _give(temporary, there)
        temporary.chmod(mode)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(held)


def _give(path: Path, like: os.stat_result) -> None:
    """The owner and the group of another file, where this user may give it away."""
    own = path.stat()
    if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        try:
            os.chown(path, like.st_uid, like.st_gid)
        except PermissionError:
            return


def _blocks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[Any]:
    """A safetensors file, a block of bytes at a time: the length of its header, the header, the tensors."""
    order = [*_TYPES]
    if foreign := {str(tensor.dtype) for tensor in tensors.values()} - {str(dtype) for dtype in order}:
        raise InputError(f"expected tensors of {', '.join(map(str, order))}, got {', '.join(sorted(foreign))}")
    present = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    names = sorted(present, key=lambda name: (order.index(present[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        tensor = present[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        described = {"dtype": _TYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [begin, end]}
        header[name] = described
    text = dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # The data begins at a multiple of 8.
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield raw_bytes(present[name])
