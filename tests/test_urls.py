"""Files at URLs: which paths are URLs, time limits, what is tried again, and results that are written there."""

import errno
import sys
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

import autopsae.urls as urls
from autopsae.arrays import InputError
from autopsae.disk import DiskFull
from autopsae.files import write_folder, write_text
from autopsae.kinds import fields, number
from autopsae.run.finished import check_folder
from autopsae.saved import load_object, load_pair, save_object, save_pair
from autopsae.urls import absolute, check_target, is_there, list_folder, read_url, remove_file, state_of, url_of
from tests.stores import Fault, Server

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "PAUSE", 0.0)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("s3://bucket/a/b.npy", "s3://bucket/a/b.npy"),
        (Path("s3://bucket/a/b.npy"), "s3://bucket/a/b.npy"),
        (Path("S3://bucket") / "a", "s3://bucket/a"),
        ("file:///tmp/a", "file:///tmp/a"),
        (Path("file:///tmp/a"), "file:///tmp/a"),
        ("https://host:80/a?b=c", "https://host:80/a?b=c"),
        ("C:/Users/a", None),
        ("/tmp/s3:/a", None),
        ("hf:name/set", None),
        ("a.npy", None),
        (None, None),
    ],
)
def test_a_url_is_told_from_a_path(given: Any, url: str | None) -> None:
    assert url_of(given) == url


def test_another_process_finds_a_url_and_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a.npy") == tmp_path.resolve() / "a.npy"
    assert url_of(str(absolute("s3://bucket/a"))) == "s3://bucket/a"


def test_results_at_a_url_are_read_back_and_replaced_whole() -> None:
    kind = fields({"value": number()})
    for value in (1, 2):
        save_object("memory://results/one.json", format="some", content={"value": value})
    assert load_object("memory://results/one.json", format="some", kind=kind) == {"value": 2}
    save_pair(Path("memory://results/pair"), format="some", content={"value": 3}, tensors={"t": torch.arange(4)})
    content, tensors = load_pair("memory://results/pair", format="some", kind=kind)
    assert content == {"value": 3}
    assert tensors["t"].tolist() == [0, 1, 2, 3]
    assert {*list_folder("memory://results")} == {"one.json", "pair.json", "pair.safetensors"}
    remove_file(Path("memory://results/one.json"))
    assert not is_there("memory://results/one.json")


def test_a_file_url_is_written_under_another_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(f"file://{tmp_path}/new/a.txt", "one")
    assert (tmp_path / "new/a.txt").read_text() == "one"

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    system = fsspec.filesystem("file", use_listings_cache=False)
    monkeypatch.setattr(type(system), "mv", fail)
    with pytest.raises(
        DiskFull, match=r"^file:///.*a\.txt: the store is full \(No space left on device\); what was"
    ):
        write_text(f"file://{tmp_path}/new/a.txt", "two")
    assert [(file.name, file.read_text()) for file in (tmp_path / "new").iterdir()] == [("a.txt", "one")]


def test_a_full_disk_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(
        DiskFull, match=r"^memory://results/never\.txt: is written on this machine first; .*the disk is full"
    ):
        write_text("memory://results/never.txt", "one")
    assert not is_there("memory://results/never.txt")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://127.0.0.1/a.json", "expected a store that is written to, got an address of the web"),
        ("nowhere://a/b", r"expected a URL as s3://BUCKET/NAME that fsspec knows \(Protocol not known: nowhere\)"),
    ],
)
def test_what_cannot_be_written_is_known_before(url: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{url}: {message}"):
        check_target(url)


def test_folders_that_are_locked_are_refused_at_a_url() -> None:
    with pytest.raises(InputError, match=r"^s3://b/run: expected a local folder, which can be locked, got a URL; "):
        check_folder(Path("s3://b/run"))
    with pytest.raises(InputError, match=r"^s3://b/sae: expected a folder of this machine, got a URL; name one"):
        write_folder("s3://b/sae", lambda folder: None)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"^s3://b/a: expected the package fsspec .*'autopsae\[stores\]'"):
        state_of("s3://b/a")


@pytest.mark.parametrize("told", ["soon", "0", "-1", "inf"])
def test_the_limit_is_a_number_of_seconds(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPSAE_TIMEOUT", told)
    with pytest.raises(InputError, match=f"^AUTOPSAE_TIMEOUT: expected a number of seconds over 0, got {told}"):
        state_of("memory://a")


def test_more_bytes_than_are_wanted_are_not_read() -> None:
    write_text("memory://results/long.txt", "x" * 101)
    assert len(read_url("memory://results/long.txt", 101)) == 101
    with pytest.raises(ValueError, match="over 100 bytes"):
        read_url("memory://results/long.txt", 100)


@pytest.mark.parametrize("how", ["500", "cut"])
def test_a_request_that_fails_is_made_again(how: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"0123456789" * 1000)
    failures = iter([how, how])

    def ask(*_: str) -> None:
        if fault := next(failures, None):
            raise Fault(fault)

    with Server(tmp_path, ask) as server:
        assert read_url(f"{server.url}/a.txt", 10**6) == (tmp_path / "a.txt").read_bytes()
        assert len(server.asked) == 3


def test_a_store_that_always_fails_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"0123456789")

    def ask(*_: str) -> None:
        raise Fault("500")

    message = (
        r"a\.txt: expected the store to answer, tried 3 times and got ClientResponseError: 500, .*; see that it"
    )
    with Server(tmp_path, ask) as server, pytest.raises(InputError, match=message) as caught:
        read_url(f"{server.url}/a.txt", 10**6)
    assert "\n" not in str(caught.value)


def test_a_store_that_stalls_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_bytes(b"0123456789")
    monkeypatch.setenv("AUTOPSAE_TIMEOUT", "0.2")
    stalls = threading.Event()
    stalls.set()

    def ask(*_: str) -> None:
        if stalls.is_set():
            raise Fault("stall")

    message = (
        r"tried 3 times and got nothing in 0\.2 s \(AUTOPSAE_TIMEOUT allows more\); see that it can be reached"
    )
    with Server(tmp_path, ask) as server:
        with pytest.raises(InputError, match=message):
            read_url(f"{server.url}/a.txt", 10**6)
        stalls.clear()
        monkeypatch.setenv("AUTOPSAE_TIMEOUT", "30")
        assert read_url(f"{server.url}/a.txt", 10**6) == b"0123456789"
