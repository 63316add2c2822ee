"""Local copies of parts of files at URLs, while they are read: sparse files in a temporary folder of limited size.

A copy has the size of the file, and holds the ranges of it that were asked for: of a shard of 48 layers that which
one layer takes. Whoever reads holds the copy; those that nobody holds make room for others, the oldest first.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock, RLock, Thread
from uuid import uuid4

from autopsae.arguments import number_told
from autopsae.arrays import InputError
from autopsae.disk import name_full_disk, new_partial, sweep_once
from autopsae.urls import State, block_ranges, check_state, list_folder, name_of, read_ranges, state_of, url_of

LIMIT = "AUTOPSAE_CACHE_GB"
"""Names the variable of the environment that limits the copies, in GB."""
GIGABYTES = 20.0
"""The limit where it is not set, and half of what is free on the disk at most."""

Range = tuple[int, int]
Check = Callable[[Path], None]
"""Raises InputError where a range of the copy is not what it must be."""


class Mirror:
    """A file at a URL, parts of which are copied when they are needed. Safe in several threads.

    Where another file takes its name meanwhile, nothing of it is read any more: parts of both would be one.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._state: State | None = None
        self.copies = 0
        """How often the copy was begun anew: what was opened of an earlier one is of no more use."""
        self._folder = _folder()
        self.path = self._folder.place / f"{uuid4().hex}-{name_of(url)[-100:]}"
        """The copy."""
        self._there: dict[Range, int] = {}  # the bytes of each range that were copied, from its beginning on
        self._checked: set[Range] = set()
        self._fetching = Lock()
        self.users = 0

    @property
    def size(self) -> int:
        """Bytes of the file. Raises InputError where the store does not tell."""
        if self._state is None:
            self._state = state_of(self.url)
        return self._state.size

    @property
    def whole(self) -> Range:
        """The range of all bytes."""
        return 0, self.size

    @property
    def bytes_there(self) -> int:
        """Bytes that were copied."""
        return sum(self._there.values())

    @contextmanager
    def hold(self, ranges: Mapping[Range, Check | None]) -> Iterator[Path]:
        """The copy, with these ranges in it as long as this context lasts. A check is asked once for each copy.

        Raises InputError where the store gives them not, or others; what was copied before that stays for the next
        try. Raises DiskFull.
        """
        self._folder.take(self)
        try:
            with self._fetching, name_full_disk(self._folder.root):
                for one, check in ranges.items():
                    self._fetch(one, check)
            yield self.path
        finally:
            self._folder.give_back(self)

    def drop(self) -> None:
        """Remove the copy. For the folder, while nobody holds it."""
        self._there = {}
        self.path.unlink(missing_ok=True)

    def _fetch(self, one: Range, check: Check | None) -> None:
        if not self._has(one):
            self._copy(*one)
        if check is not None and one not in self._checked:
            try:
                check(self.path)
            except InputError:
                # What is wrong may also be in a range that this one is a part of, and be mended in the store.
                self._there, self._state = {}, None
                raise
            self._checked.add(one)

    def _has(self, one: Range) -> bool:
        return any(
            begin <= one[0] and one[1] <= end and done == end - begin for (begin, end), done in self._there.items()
        )

    def _copy(self, begin: int, end: int) -> None:
        done = self._there.get((begin, end), 0)
        self._folder.make_room(end - begin - done)
        size = self.size
        if not self._there:
            self.copies += 1
            self._checked = set()
            with self.path.open("wb") as file:
                file.truncate(size)
        with self.path.open("rb+") as file:
            while done < end - begin:
                self._folder.check_open()
                file.seek(begin + done)
                for block in read_ranges(self.url, block_ranges(begin + done, end)):
                    file.write(block)
                    done += len(block)
                file.flush()
                # From here a later try goes on.
                self._there[begin, end] = done
        if end > begin:
            self._check_state((begin, end))
        self._there[begin, end] = done

    def _check_state(self, copied: Range) -> None:
        """The state remains: what was opened of the earlier file must not meet the later one."""
        assert self._state is not None
        try:
            check_state(self.url, self._state)
        except InputError:
            self._there.pop(copied)
            raise


def copy_ahead(needed: int, copy: Callable[[], object]) -> bool:
    """Copy in a thread, where there is room for so many bytes beside what is held, and nothing else is copied
    ahead; False where that is not so. What goes wrong is told when it is needed.
    """
    folder = _folder()
    if not folder.begin_ahead(needed):
        return False

    def act() -> None:
        try:
            with suppress(Exception):
                copy()
        finally:
            folder.end_ahead()

    Thread(target=act, daemon=True).start()
    return True


def copy_folder(url: str) -> Path:
    """A folder with all that lies in one at a URL, until the process ends. Raises InputError for more than half of
    what copies may take, and as `read_ranges`.
    """
    folder, files = _folder(), dict[str, int]()
    _list_tree(url.rstrip("/"), "", files)
    total, most = sum(files.values()), folder.limit / 2
    if total > most:
        raise InputError(
            f"{url}: expected at most {most / 1e9:.3g} GB in a folder of this kind, which is copied whole, got "
            f"{total / 1e9:.3g} GB; copy it to a local disk, or set {LIMIT}"
        )
    place = folder.place / uuid4().hex / name_of(url.rstrip("/"))
    with name_full_disk(folder.root):
        for name in files:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            mirror = Mirror(f"{url.rstrip('/')}/{name}")
            with mirror.hold({mirror.whole: None}) as copy:
                copy.replace(place / name)
            mirror.drop()
    return place


def copy_file(url: str) -> Path:
    """A copy of a file, under its own name, until the process ends. Raises InputError as `read_ranges`."""
    mirror = Mirror(url)
    with mirror.hold({mirror.whole: None}) as copy, name_full_disk(_folder().root):
        place = copy.parent / uuid4().hex / name_of(url)
        place.parent.mkdir()
        copy.replace(place)
    mirror.drop()
    return place


def copy_of(path: Path) -> Path:
    """`copy_file` of a URL; a path of this machine as it is."""
    url = url_of(path)
    return path if url is None else copy_file(url)


def _list_tree(url: str, inside: str, files: dict[str, int]) -> None:
    for name, size in list_folder(f"{url}/{inside}" if inside else url).items():
        if size is None:
            _list_tree(url, f"{inside}{name}/", files)
        else:
            files[f"{inside}{name}"] = size


class _Folder:
    """The copies of this process."""

    def __init__(self) -> None:
        self.root = Path(tempfile.gettempdir())
        sweep_once(self.root)
        self.place, self._held = new_partial(self.root / "autopsae-store", folder=True)
        self.limit = min(1e9 * number_told(LIMIT, GIGABYTES, "GB"), shutil.disk_usage(self.root).free / 2)
        self._mirrors: list[Mirror] = []  # the one used last stands at the end
        self._lock = RLock()
        self._is_ahead = self._is_closed = False

    def take(self, mirror: Mirror) -> None:
        with self._lock:
            mirror.users += 1
            if mirror in self._mirrors:
                self._mirrors.remove(mirror)
            self._mirrors.append(mirror)

    def give_back(self, mirror: Mirror) -> None:
        with self._lock:
            mirror.users -= 1

    def make_room(self, needed: int) -> None:
        """Remove copies that nobody holds, the oldest first, until this much more is within the limit."""
        with self._lock:
            over = sum(mirror.bytes_there for mirror in self._mirrors) + needed - self.limit
            for mirror in [mirror for mirror in self._mirrors if not mirror.users]:
                if over <= 0:
                    return
                over -= mirror.bytes_there
                mirror.drop()
                self._mirrors.remove(mirror)

    def begin_ahead(self, needed: int) -> bool:
        with self._lock:
            held = sum(mirror.bytes_there for mirror in self._mirrors if mirror.users)
            if self._is_ahead or self._is_closed or held + needed > self.limit:
                return False
            self._is_ahead = True
            return True

    def end_ahead(self) -> None:
        self._is_ahead = False

    def check_open(self) -> None:
        if self._is_closed:
            raise InputError("expected to read before the process ends, got its end")

    def close(self) -> None:
        """Remove all copies. What is called again does nothing: the descriptor may be another file's by then."""
        if self._is_closed:
            return
        self._is_closed = True
        shutil.rmtree(self.place, ignore_errors=True)
        os.close(self._held)


def _folder() -> _Folder:
    return _folder_of(os.getpid())


@cache
def _folder_of(process: int) -> _Folder:
    """One for each process: a fork has its own."""
    folder = _Folder()
    atexit.register(folder.close)
    return folder
