"""The one writer: whole or not at all, whatever lies at the place, whoever is killed, however full the disk is."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import safetensors.torch
import torch

from autopsae import disk, files, pipes
from autopsae.arrays import InputError
from autopsae.disk import LOCK, DiskFull, check_unlocked, hold_lock, new_partial, sweep
from autopsae.files import changes, tensors_digest, write_folder, write_tensors, write_text, write_whole
from tests import processes

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices and mounts, and gives files away")


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def python(code: str, *words: object) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", code, *map(str, words)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


# What is written


@pytest.mark.quick
def test_tensors_are_written_as_safetensors_writes_them(tmp_path: Path) -> None:
    tensors = {
        f"{name} {shape}": torch.ones(shape).to(dtype)
        for name, dtype in [("b", torch.float32), ("ä", torch.float64), *((str(t), t) for t in files._TYPES)]
        for shape in [(), (0, 3), (5,), (2, 3)]
    }
    tensors["strided"] = torch.arange(12.0).view(3, 4).T
    tensors["single"] = torch.arange(12.0).view(3, 4)[:1, 1:2]
    for metadata in ({}, {"about": 'quoted "é"'}):
        digest = write_tensors(tmp_path / "ours", tensors, metadata)
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        assert (tmp_path / "ours").read_bytes() == safetensors.torch.save(contiguous, metadata or None)
    assert digest != tensors_digest(tensors)
    assert write_tensors(tmp_path / "ours", tensors) == tensors_digest(tensors)


def test_types_that_are_not_stored_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected tensors of .*, got torch\.complex64"):
        write_tensors(tmp_path / "t", {"a": torch.zeros(2, dtype=torch.complex64)})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path, umask: Callable[[int], int], mask: int) -> None:
    umask(mask)
    write_text(tmp_path / "words", "a")
    write_tensors(tmp_path / "tensors", {"a": torch.zeros(2)})
    assert {mode(tmp_path / "words"), mode(tmp_path / "tensors")} == {0o666 & ~mask}


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    for number in (0o640, 0o600, 0o664):
        (tmp_path / "a").write_text("old")
        (tmp_path / "a").chmod(number)
        write_text(tmp_path / "a", "new")
        assert ((tmp_path / "a").read_text(), mode(tmp_path / "a")) == ("new", number)


@ROOT
def test_a_file_that_is_replaced_keeps_its_owner(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    os.chown(tmp_path / "a", 12345, 23456)
    write_text(tmp_path / "a", "new")
    assert ((tmp_path / "a").stat().st_uid, (tmp_path / "a").stat().st_gid) == (12345, 23456)


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "target").write_text("old")
    (tmp_path / "link").symlink_to("there/target")
    (tmp_path / "dangling").symlink_to(tmp_path / "there" / "new")
    write_text(tmp_path / "link", "new")
    write_text(tmp_path / "dangling", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "dangling").is_symlink()
    assert {p.name: p.read_text() for p in (tmp_path / "there").iterdir()} == {"target": "new", "new": "new"}


def test_a_name_as_long_as_names_may_be_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 255), "a")
    write_text(tmp_path / ("ä" * 127), "a")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "I/O error"), ValueError("no")], ids=repr)
def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_text("old")

    def fail(temporary: Path) -> None:
        (temporary / "inner" if temporary.is_dir() else temporary).write_text("half")
        raise error

    for write, place in ((write_whole, "a"), (write_folder, "new")):
        with pytest.raises(type(error)) as raised:
            write(tmp_path / place, fail)
        assert error in (raised.value, raised.value.__cause__)  # an error of the system gets the name of the file
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_what_a_file_says_reaches_a_message_without_control_characters_and_not_at_length() -> None:
    there, asked = {"lr": 0.1, "a\0b": "\x1b[31mred", "n" * 500: 1}, {"lr": 0.2}
    told = changes(there, asked)
    assert told == f"lr 0.1, got 0.2; a\\x00b \\x1b[31mred, got None; {'n' * 197}... 1, got None"


# What is no regular file


def test_a_pipe_is_written_through_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "words " * 50_000)
    reader.join(20)
    assert got == ["words " * 50_000]
    assert (tmp_path / "pipe").is_fifo()


def test_a_pipe_that_nobody_reads_is_an_error_and_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "_PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe: expected a process that reads this pipe, got none in 0\.1 s"):
        write_text(tmp_path / "pipe", "words")
    assert (tmp_path / "pipe").is_fifo()


@ROOT
def test_a_device_is_written_through_and_stays(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o644 | stat.S_IFCHR, os.makedev(1, 3))
    (tmp_path / "link").symlink_to("null")
    for name in ("null", "link"):
        write_text(tmp_path / name, "words")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "LINK"])
def test_standard_output_that_goes_into_a_file_keeps_what_else_is_printed(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = "import sys; from autopsae.files import write_text; print('before'); write_text(sys.argv[1], 'told\\n')"
    code += "; print('after')"
    done = processes.run(processes.code, code, name.replace("LINK", str(tmp_path / "link")))
    assert done.stdout == "before\ntold\nafter\n", done.stderr


def as_nobody(work: Callable[[], None]) -> str:
    """What a user without rights is told, who root becomes for it in a process of its own."""
    ours, theirs = os.pipe()
    if not (process := os.fork()):
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            work()
        except BaseException as error:
            os.write(theirs, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(theirs)
    os.waitpid(process, 0)
    with os.fdopen(ours) as told:
        return told.read()


def test_a_folder_that_may_not_be_written_is_one_line() -> None:
    with TemporaryDirectory() as place:  # pytest's own folders may be seen by their owner alone
        Path(place).chmod(0o555)
        path = Path(place) / "a"
        expected = f"PermissionError: [Errno 13] Permission denied: '{path}'"
        assert as_nobody(lambda: write_text(path, "words")) == expected
        assert as_nobody(lambda: write_folder(path, lambda folder: None)) == expected


# Folders


@pytest.mark.quick
def test_a_folder_of_the_same_files_stays_and_any_other_is_refused(tmp_path: Path) -> None:
    def write(words: str) -> Callable[[Path], None]:
        return lambda folder: write_text(folder / "a", words)

    write_folder(tmp_path / "f", write("one"))
    before = (tmp_path / "f" / "a").stat().st_mtime_ns
    write_folder(tmp_path / "f", write("one"))
    with pytest.raises(InputError, match=r"f: expected a new or empty folder, got one that holds something"):
        write_folder(tmp_path / "f", write("two"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file: expected a new or empty folder"):
        write_folder(tmp_path / "file", write("one"))
    assert ((tmp_path / "f" / "a").read_text(), (tmp_path / "f" / "a").stat().st_mtime_ns) == ("one", before)
    assert {path.name for path in tmp_path.iterdir()} == {"f", "file"}


# A full disk


FULL_DISK = """
import subprocess, sys, torch
from pathlib import Path
from autopsae.arrays import InputError
from autopsae.disk import LOCK, DiskFull, hold_lock
from autopsae.files import write_folder, write_tensors, write_text, write_whole
from autopsae.training.logs import Csv, JsonLines
from tests.training.test_logs import record

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
try:
    (disk / "old").write_text("old")
    big = torch.zeros(10**6)
    def pickled(temporary):
        with temporary.open("wb") as file:
            torch.save({"a": big}, file)
    def log(kind):
        with kind(disk / "log") as logger:
            for step in range(10_000):
                logger(record(step))
    ways = {
        "text": lambda: write_text(disk / "old", "a" * 10**6),
        "tensors": lambda: write_tensors(disk / "old", {"a": big}),
        "pickle": lambda: write_whole(disk / "old", pickled),
        "folder": lambda: write_folder(disk / "f", lambda f: write_tensors(f / "a", {"a": big})),
        "lines": lambda: log(JsonLines),
        "csv": lambda: log(Csv),
    }
    for name, way in ways.items():
        try:
            way()
        except DiskFull as error:
            place = {"folder": "f", "lines": "log", "csv": "log"}.get(name, "old")
            assert str(error).startswith(f"{disk / place}: the disk is full (0."), (name, error)
            assert "MB free); what was written before is whole; free some space" in str(error)
        else:
            raise AssertionError(name)
        (disk / "log").unlink(missing_ok=True)
        assert {p.name: p.read_text() for p in disk.iterdir()} == {"old": "old"}, name
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for place, way in {"old": ways["text"], "f": ways["folder"]}.items():
        try:
            way()
        except OSError as error:
            assert str(error) == f"[Errno 30] Read-only file system: '{disk / place}'", error
        else:
            raise AssertionError(place)
    with hold_lock(disk / LOCK, what=disk):
        pass
finally:
    subprocess.run(["umount", disk], check=True)
"""


@ROOT
def test_a_disk_that_is_really_full_or_read_only_is_one_line_for_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    # In mounts of its own: nothing stays mounted if the test is killed.
    command = ["unshare", "--mount", sys.executable, "-c", FULL_DISK, str(tmp_path / "disk")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_told_where_another_error_hides_it(tmp_path: Path) -> None:
    def save(temporary: Path) -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None

    with pytest.raises(
        DiskFull, match=r"a: the disk is full \([\d,.]+ MB free\); what was written before is whole"
    ):
        write_whole(tmp_path / "a", save)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_device_that_is_full_is_told_as_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/dev/full")
    for write in (lambda p: write_text(p, "words"), lambda p: write_tensors(p, {"a": torch.zeros(2)})):
        with pytest.raises(DiskFull, match=r"a: the disk is full \([\d,.]+ MB free\)"):
            write(tmp_path / "a")


def test_what_the_system_refuses_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    def refuse(number: int) -> Callable[[Path], None]:
        def save(temporary: Path) -> None:
            try:
                raise OSError(number, os.strerror(number))
            except OSError:
                raise RuntimeError("unexpected pos 64 vs 0") from None  # as torch.save does

        return save

    for number, words in ((errno.EFBIG, "File too large"), (errno.EIO, "Input/output error")):
        with pytest.raises(OSError, match=rf"^\[Errno {number}\] {words}: '{tmp_path / 'a'}'$"):
            write_whole(tmp_path / "a", refuse(number))
    assert not [*tmp_path.iterdir()]


# Dead and living writers


def test_the_partial_files_of_dead_writers_are_swept_and_no_others(tmp_path: Path) -> None:
    living = [new_partial(tmp_path / "alive"), new_partial(tmp_path / "alive", folder=True)]
    dead = [new_partial(tmp_path / "dead"), new_partial(tmp_path / "dead", folder=True)]
    (dead[1][0] / "half").write_text("half")
    for _, descriptor in dead:
        os.close(descriptor)
    others = [".a.partial", f"a.{'0' * 32}.partial", f".a.{'x' * 32}.partial"]
    for name in others:
        (tmp_path / name).write_text("mine")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, *(path.name for path, _ in living)}
    for _, descriptor in living:
        os.close(descriptor)


WRITE = """
import sys
from pathlib import Path
from autopsae.files import write_text, write_whole
def slow(temporary):
    temporary.write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
write_whole(Path(sys.argv[1]), slow)
"""


def test_the_next_process_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    process = python(WRITE, tmp_path / "a")
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    [partial] = tmp_path.iterdir()
    sweep(tmp_path)
    assert partial.exists()  # its writer lives
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert partial.exists()
    disk.sweep_once.cache_clear()
    write_text(tmp_path / "b", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


# Two processes in one folder

HOLD = """
import sys, time
from pathlib import Path
from autopsae.disk import LOCK, hold_lock
with hold_lock(Path(sys.argv[1]) / LOCK, what=sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_told_who_holds_the_folder_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = python(HOLD, out)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    message = (
        rf"out: expected a place that no other process writes, but 'process {process.pid} on .+ since 20.+' does"
    )
    with pytest.raises(InputError, match=message), hold_lock(out / LOCK, what=out):
        pass
    with pytest.raises(InputError, match=message):
        check_unlocked(out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (out / LOCK).exists()
    check_unlocked(out)
    with hold_lock(out / LOCK, what=out):
        pass
    assert not [*out.iterdir()]


@pytest.mark.quick
def test_what_is_no_folder_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with hold_lock(tmp_path / "file" / LOCK, what="file"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("where", ["os.open", "_hold", "_names"])
def test_a_signal_while_a_partial_file_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, folder: bool
) -> None:
    """Whoever asked for it does not know of it yet, and so cannot remove it."""
    owner, name = (os, "open") if where == "os.open" else (disk, where)
    done = getattr(owner, name)

    def interrupted(*arguments: object, **options: object) -> None:
        done(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            new_partial(tmp_path / "out", folder=folder)
    assert not [*tmp_path.iterdir()]


def test_one_process_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    held, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal held, most
        for _ in range(30):
            try:
                with hold_lock(tmp_path / LOCK, what="out"):
                    with lock:
                        held += 1
                        most = max(most, held)
                    with lock:
                        held -= 1
            except InputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (held, most) == (0, 1)
