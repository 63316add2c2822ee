"""What may happen to a disk: it is full, two processes want one folder, and a process dies while it writes.

Locks are advisory locks of the system (flock), so a dead process holds none. Where the system or the file system
has no flock, nothing is locked, and partial files of dead processes stay. Windows is such a system; it also neither
opens a folder, nor renames or removes what is open, so nothing is kept open there.
"""

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

from autopsae.arrays import InputError
from autopsae.urls import url_of

try:
    from fcntl import LOCK_EX, LOCK_NB, flock

    HAS_LOCKS = True
except ImportError:  # Windows
    HAS_LOCKS = False

LOCK = ".autopsae.lock"
"""The name of the lock file in a folder that one process at a time may write."""

PARTIAL = re.compile(r"\..*\.[0-9a-f]{32}\.partial", re.DOTALL)
"""The names of files and folders that are being written: `.NAME.*.partial`, beside the place of NAME."""


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(OSError):
    """The disk, or the user's share of it, is full. The message says what is safe and how to go on."""


@contextmanager
def name_full_disk(path: Path) -> Iterator[None]:
    """Raise DiskFull, which names `path`, where what is done here fails for want of space on its disk. Where the
    system refuses to write on an open file for another reason, raise its OSError with that name.
    """
    try:
        yield
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        if refusal.errno in _NO_SPACE:
            raise DiskFull(
                f"{path}: the disk is full ({free_space(path)} free); what was written before is whole; free some "
                "space and run the same again"
            ) from error
        raise OSError(refusal.errno, refusal.strerror, str(path)) from error


def _refusal(error: BaseException | None) -> OSError | None:
    """The system's error in writing. torch.save raises a RuntimeError and keeps it only as its context."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (*_NO_SPACE, errno.EFBIG, errno.EIO):
            return error
        error = error.__cause__ or error.__context__
    return None


def free_space(path: Path) -> str:
    """On the disk of `path`, for a message."""
    return f"{shutil.disk_usage(nearest_folder(path)).free / 1e6:,.1f} MB"


def nearest_folder(path: Path) -> Path:
    """The folder that is there, among `path` and those that it lies in. Raises InputError where none is, as on a
    drive that is not there.
    """
    for folder in (path.absolute(), *path.absolute().parents):
        if folder.is_dir():
            return folder
    raise InputError(f"{path}: there is no such place; name a folder on a disk that is there")


@contextmanager
def hold_lock(path: str | Path, *, what: str | Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while in this context; its folder is created. what: what it stands for.

    Where another process holds it, wait until it ends, if asked; otherwise raises InputError, naming the holder. A
    file left by a dead process is no lock, and a folder in which nothing can be written needs none: a finished
    result in it may still be opened. At a URL nothing is locked: stores have no locks.
    """
    path = Path(path)
    if url_of(path):
        yield
        return
    if path.parent.exists() and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not HAS_LOCKS:
        yield
        return
    with name_full_disk(path):
        descriptor = _take(path, what, wait=wait)
    try:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        with suppress(OSError):  # the words are a courtesy to the second process; the lock is held without them
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode())
        yield
    finally:
        # Removed before it is released: who opened it meanwhile finds that it is no longer the file of this name.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def check_unlocked(folder: Path) -> None:
    """InputError where another process holds the lock of `folder`: to be known before the work."""
    if HAS_LOCKS and (folder / LOCK).exists():
        os.close(_take(folder / LOCK, folder))


def _take(path: Path, what: str | Path, *, wait: bool = False) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if _hold(descriptor, wait=wait) is False:
            holder = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
            os.close(descriptor)
            raise InputError(
                f"{what}: expected a place that no other process writes, but {holder!r} does; wait until it ends, "
                "or pass another name"
            )
        if _names(path, descriptor):
            return descriptor
        os.close(descriptor)


def new_partial(target: Path, *, folder: bool = False) -> tuple[Path, int]:
    """(a new empty file or folder beside `target`, a descriptor that locks it): nobody sweeps it until that is
    closed. Where there are no locks, the descriptor is of nothing, so that the file can be renamed.
    """
    while True:
        # Part of the name only: with all of it, the whole could be longer than a name may be.
        partial = target.with_name(f".{target.name[:40]}.{uuid4().hex}.partial")
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            if folder:
                partial.mkdir()
            elif not HAS_LOCKS:
                partial.touch(exist_ok=False)
            if not HAS_LOCKS:
                return partial, os.open(os.devnull, os.O_RDWR)
            descriptor = os.open(partial, flags, 0o666)
            _hold(descriptor, wait=True)
            if _names(partial, descriptor):
                return partial, descriptor
        except FileNotFoundError:  # a folder swept before it was locked
            continue
        except OSError as error:
            # In the name by which the user knows it, not that of the partial file.
            raise OSError(error.errno, error.strerror, str(target)) from error
        except BaseException:  # a signal, after the file is there and before the caller knows of it
            with suppress(OSError):
                partial.rmdir() if folder else partial.unlink()
            raise
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the partial files and folders in `folder` whose writers are dead: nobody locks them any more. Where
    there are no locks it is not known whose writers are dead, and all stay.
    """
    if not HAS_LOCKS:
        return
    for partial in [path for path in folder.iterdir() if PARTIAL.fullmatch(path.name)]:
        is_folder = partial.is_dir()
        with suppress(OSError):  # not ours to remove, or removed meanwhile
            descriptor = os.open(partial, os.O_RDONLY if is_folder else os.O_RDWR)
            try:
                if _hold(descriptor):
                    shutil.rmtree(partial) if is_folder else partial.unlink()
            finally:
                os.close(descriptor)


@cache
def sweep_once(folder: Path) -> None:
    """`sweep`, once for each folder in the life of this process: a folder may hold many files."""
    sweep(folder)


def _hold(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file until it is closed: True if that is done, False where another process has the lock, None
    where there are no locks.
    """
    if not HAS_LOCKS:
        return None
    try:
        flock(descriptor, LOCK_EX if wait else LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _names(path: Path, descriptor: int) -> bool:
    """Is the open file the one of this name? Another process may have removed it before it was locked."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
