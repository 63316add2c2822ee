"""What other systems do otherwise, with stand-ins: Windows' open files, macOS' memory, missing drives."""

import ntpath
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autopsae import disk, files, memory
from autopsae.arrays import InputError
from autopsae.cli import interrupts
from autopsae.cli.terminal import check_places
from autopsae.interop.convert import load_sae, save_sae
from tests.interop.formats import an_sae

pytestmark = pytest.mark.quick

CPU = torch.device("cpu")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, str]]:
    """The rules of Windows for what is open: it is neither renamed nor removed, and no folder is opened. There are
    no locks and no owners, and a folder is not renamed to the name of another.
    """
    opened: dict[int, str] = {}
    system = SimpleNamespace(open=os.open, close=os.close, replace=Path.replace, unlink=Path.unlink)

    def open_file(path: Any, flags: int, *mode: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        number: int = system.open(path, flags, *mode)
        opened[number] = os.path.abspath(path)
        return number

    def close(number: int) -> None:
        opened.pop(number, None)
        system.close(number)

    def check_closed(path: Path) -> None:
        if str(path.absolute()) in opened.values():
            raise PermissionError(13, "it is used by another process", str(path))

    def replace(path: Path, target: Path) -> Path:
        check_closed(path)
        if path.is_dir() and Path(target).exists():
            raise PermissionError(13, "Access is denied", str(target))
        result: Path = system.replace(path, target)
        return result

    def unlink(path: Path, missing_ok: bool = False) -> None:
        check_closed(path)
        system.unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.delattr(os, "chown")
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    monkeypatch.setattr(disk, "HAS_LOCKS", False)
    monkeypatch.setattr(files, "ON_WINDOWS", True)
    yield opened
    assert not opened, "something is still open"


def test_the_stand_in_refuses_what_windows_refuses(windows: dict[int, str], tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "a").write_text("a")
    number = os.open(tmp_path / "a", os.O_RDONLY)
    with pytest.raises(PermissionError):
        (tmp_path / "a").replace(tmp_path / "b")
    with pytest.raises(PermissionError):
        (tmp_path / "a").unlink()
    os.close(number)
    (tmp_path / "a").replace(tmp_path / "b")


@pytest.mark.usefixtures("windows")
def test_files_and_folders_are_written_whole_where_nothing_open_can_be_renamed(tmp_path: Path) -> None:
    for text in ("first\n", "second\n"):
        files.write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_bytes() == text.encode()
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        save_sae(an_sae(), tmp_path / name, to="saelens")
        assert torch.equal(load_sae(tmp_path / name).b_dec, load_sae(tmp_path / "new").b_dec)
    save_sae(an_sae(), tmp_path / "new", to="saelens")  # the same files are there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "empty", "new"]


@pytest.mark.usefixtures("windows")
def test_a_folder_that_holds_something_stays_where_folders_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(InputError, match="full: expected a new or empty folder, got one that holds something"):
        save_sae(an_sae(), tmp_path / "full", to="saelens")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine"]


@pytest.mark.usefixtures("windows")
def test_a_failed_write_leaves_nothing_where_there_are_no_locks(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        files.write_whole(tmp_path / "a", fail)
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("windows")
def test_a_folder_without_locks_is_written_by_whoever_comes(tmp_path: Path) -> None:
    with disk.hold_lock(tmp_path / disk.LOCK, what=tmp_path), disk.hold_lock(tmp_path / disk.LOCK, what=tmp_path):
        disk.check_unlocked(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_text_has_the_same_bytes_on_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "linesep", "\r\n")
    files.write_text(tmp_path / "a", "one\ntwo\n")
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"


def test_no_text_is_read_or_written_in_the_encoding_of_the_system() -> None:
    pytest.importorskip("ruff")  # which `make lowest` and `make newest` do without
    source = Path(disk.__file__).parent
    words = ["check", "--select", "PLW1514", "--preview", "--isolated", "--no-cache", str(source)]
    ran = subprocess.run([sys.executable, "-m", "ruff", *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_free_memory_is_asked_of_psutil_where_there_is_no_file_that_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "nowhere")
    monkeypatch.setattr(memory, "_of_container", lambda: None)
    told = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=3 * 2**30))
    monkeypatch.setitem(sys.modules, "psutil", told)
    assert memory.available_bytes(CPU) == 3 * 2**30
    with pytest.raises(InputError, match=r"expected 4\.0 GiB of free memory for x, got 3\.0; try y"):
        memory.check_memory(4 * 2**30, CPU, "for x", "try y")
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(InputError, match="expected a system that tells how much is free, got none"):
        memory.available_bytes(CPU)


def test_a_drive_that_is_not_there_ends_the_search_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows the root of a drive may be missing, and is its own parent."""
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(InputError, match="there is no such place; name a folder on a disk that is there"):
        disk.nearest_folder(Path("/z/folder/file"))
    with pytest.raises(InputError, match="cannot be written there"):
        check_places(Path("/z/folder/a.json"), None, None)


def test_a_path_of_windows_is_no_descriptor_of_ours() -> None:
    for path in ("C:\\dev\\fd\\1", "\\\\server\\share\\a.json"):
        assert files.is_regular(Path(path))
        assert ntpath.splitdrive(path)[0]


def test_every_signal_that_ends_a_process_here_is_handled() -> None:
    names = {number.name for number in interrupts.SIGNALS}
    assert {"SIGINT", "SIGTERM"} <= names <= {"SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"}
