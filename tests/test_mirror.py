"""Local copies of files at URLs: only what is asked for, within a limit, from where an earlier try was cut."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopsae import mirror, urls
from autopsae.arrays import InputError
from autopsae.mirror import Mirror, copy_ahead, copy_file, copy_folder, copy_of
from tests.stores import Fault, Server

pytestmark = pytest.mark.quick

BYTES = bytes(range(256)) * 40  # 10,240


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of 1,000 bytes one at a time, no pause, and copies of this test alone."""
    monkeypatch.setattr(urls, "BLOCK", 1000)
    monkeypatch.setattr(urls, "AT_ONCE", 1)
    monkeypatch.setattr(urls, "PAUSE", 0.0)
    mirror._folder_of.cache_clear()
    yield
    mirror._folder().close()
    mirror._folder_of.cache_clear()


def served(folder: Path, *faults: str) -> Server:
    """A server of a.bin whose first requests go wrong so."""
    (folder / "a.bin").write_bytes(BYTES)
    coming = iter(faults)

    def ask(*_: str) -> None:
        if fault := next(coming, ""):
            raise Fault(fault)

    return Server(folder, ask)


def test_only_the_ranges_that_are_asked_for_are_copied_and_once(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        one = Mirror(f"{server.url}/a.bin")
        for _ in range(2):
            with one.hold({(100, 1600): None, (9000, 9010): None}) as path:
                data = path.read_bytes()
        assert len(data) == len(BYTES)
        assert (data[100:1600], data[9000:9010]) == (BYTES[100:1600], BYTES[9000:9010])
        assert one.bytes_there == 1510
        assert [asked for _, asked in server.asked] == ["bytes=100-1099", "bytes=1100-1599", "bytes=9000-9009"]


def test_a_file_that_another_takes_the_place_of_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the same size, between two ranges or while one is copied."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe_file("/replaced.bin", BYTES)
    one = Mirror("memory://replaced.bin")
    with one.hold({(0, 100): None}):
        pass
    memory.pipe_file("/replaced.bin", BYTES[::-1])
    for _ in range(2):
        with pytest.raises(InputError, match=r"replaced\.bin: .*got another of"), one.hold({(200, 300): None}):
            pass
    read = urls.read_ranges

    def replace_meanwhile(url: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        memory.pipe_file("/replaced.bin", BYTES)
        return read(url, ranges)

    for module, act in ((mirror, copy_file), (urls, lambda url: urls.read_url(url, 10**6))):
        monkeypatch.setattr(module, "read_ranges", replace_meanwhile)
        with pytest.raises(InputError, match="got another of"):
            act("memory://replaced.bin")


@pytest.mark.parametrize("how", ["500", "cut"])
def test_a_copy_that_was_cut_goes_on_where_it_was(how: str, tmp_path: Path) -> None:
    with served(tmp_path, "", "", "", how, how, how) as server:
        one = Mirror(f"{server.url}/a.bin")
        with (
            pytest.raises(InputError, match=r"a\.bin: expected the store to answer, tried 3 times"),
            one.hold({one.whole: None}),
        ):
            pass
        assert one.bytes_there == 3000
        server.asked.clear()
        with one.hold({one.whole: None}) as path:
            assert path.read_bytes() == BYTES
        assert server.asked[0][1] == "bytes=3000-3999"
        assert len(server.asked) == 8


def test_copies_that_nobody_holds_make_room_the_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPSAE_CACHE_GB", str(2.5 * len(BYTES) / 1e9))
    with served(tmp_path) as server:
        one, two, three = (Mirror(f"{server.url}/a.bin") for _ in range(3))
        for each in (one, two, one, three):
            with each.hold({each.whole: None}) as path:
                assert path.read_bytes() == BYTES
        assert [each.bytes_there for each in (one, two, three)] == [len(BYTES), 0, len(BYTES)]
        with one.hold({one.whole: None}), three.hold({three.whole: None}), two.hold({two.whole: None}) as path:
            assert path.read_bytes() == BYTES  # over the limit, as all three are in use
        assert two.copies == 2


def test_bytes_that_a_check_refuses_are_copied_again(tmp_path: Path) -> None:
    asked = list[bool]()

    def check(path: Path) -> None:
        asked.append(path.read_bytes() == BYTES)
        if len(asked) == 1:
            raise InputError("not what was written")

    with served(tmp_path) as server:
        one = Mirror(f"{server.url}/a.bin")
        with pytest.raises(InputError, match="not what was written"), one.hold({one.whole: check}):
            pass
        assert one.bytes_there == 0
        for _ in range(2):
            with one.hold({one.whole: check}):
                pass
    assert asked == [True, True]


def test_what_is_copied_ahead_is_there_and_its_faults_are_told_later(tmp_path: Path) -> None:
    with served(tmp_path, *["500"] * 3) as server:
        one = Mirror(f"{server.url}/a.bin")

        def copy() -> None:
            try:
                with one.hold({one.whole: None}):
                    pass
            finally:
                ended.set()

        for expected in (0, len(BYTES)):
            ended = threading.Event()
            deadline = time.monotonic() + 30
            while not ended.is_set() and time.monotonic() < deadline:  # the one before may not have ended yet
                copy_ahead(100, copy)
                ended.wait(0.1)
            assert one.bytes_there == expected
        assert not copy_ahead(10**15, copy)


def test_the_copies_are_removed_with_the_process(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        one = Mirror(f"{server.url}/a.bin")
        with one.hold({one.whole: None}) as path:
            assert path.is_file()
        mirror._folder().close()
        assert not path.parent.exists()


def test_a_file_and_a_folder_are_copied_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from autopsae.files import write_text

    for name in ("one.txt", "inner/two.txt"):
        write_text(f"memory://mirrored/{name}", name)
    assert copy_file("memory://mirrored/one.txt").read_text() == "one.txt"
    folder = copy_folder("memory://mirrored")
    assert folder.name == "mirrored"
    assert (folder / "inner/two.txt").read_text() == "inner/two.txt"
    assert copy_of(folder) == folder
    monkeypatch.setattr(mirror._folder(), "limit", 30)
    with pytest.raises(
        InputError, match=r"^memory://mirrored: expected at most 1\.5e-08 GB .* copied whole, got 2e-08"
    ):
        copy_folder("memory://mirrored")


@pytest.mark.parametrize("told", ["much", "0", "-1", "nan"])
def test_the_limit_is_a_number_of_gigabytes(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror._folder_of.cache_clear()
    monkeypatch.setenv("AUTOPSAE_CACHE_GB", told)
    with pytest.raises(InputError, match=f"^AUTOPSAE_CACHE_GB: expected a number of GB over 0, got {told}"):
        Mirror("memory://a")
    monkeypatch.delenv("AUTOPSAE_CACHE_GB")
