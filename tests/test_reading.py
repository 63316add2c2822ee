"""Files that may be anything: JSON within bounds, regular files only, pickles that end, one kind of error."""

import io
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.activations.formats import pt
from autopsae.arrays import InputError
from autopsae.pickles import LARGEST, check_torch_save
from autopsae.reading import as_object, input_errors, parse, parse_foreign, read_json, read_object, whole_of

pytestmark = pytest.mark.quick


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_object(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[" * 10**5, "over 32 levels within each other"),
        (b'{"a": 1, "a": 2}', "a name stands twice in one object"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b"\xff", "can't decode byte 0xff"),
        (b"[3]", "expected a JSON object, got [3]; get it again"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert message in refused(tmp_path / "x.json")


def test_numbers_that_are_not_finite_are_absent_in_our_files_and_kept_in_those_of_others() -> None:
    assert parse(b"[NaN, 1e999]") == [None, None]
    assert str(parse_foreign(b"[NaN, 1e999]")) == "[nan, inf]"


def test_a_byte_order_mark_is_left_out_of_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "x.json") == [1]
    with pytest.raises(ValueError, match="BOM"):
        parse(b"\xef\xbb\xbf[1]")


def test_pipes_devices_folders_and_files_without_end_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(50 * 2**30)  # that take no place
    assert "could not read it (a pipe or a device, not a file); get it again" in refused(tmp_path / "pipe")
    assert "could not read it (a pipe or a device, not a file)" in refused(Path("/dev/zero"))
    assert "could not read it (a folder, not a file)" in refused(tmp_path)
    assert "could not read it (over 33,554,432 bytes)" in refused(tmp_path / "large")
    assert "(there is no such file); check the name" in refused(tmp_path / "nowhere")
    assert "embedded null" in refused(tmp_path / "a\0b")


@pytest.mark.parametrize(("value", "least"), [(16, 0), (16.0, 0), (0, 0), (1, 1)])
def test_a_whole_number_of_others_may_be_written_with_a_point(value: float, least: int) -> None:
    found = whole_of({"k": value}, "k", "here", least=least)
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("value", [True, 1.5, "3", None, -1, 2**53 + 1, float("nan"), float("inf"), [3]])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    expected = "here: k: expected a whole number from 0 to 9,007,199,254,740,992, got "
    with pytest.raises(InputError, match=re.escape(expected)):
        whole_of({"k": value}, "k", "here")


def test_any_error_of_a_reader_is_one_line_that_says_what_to_try() -> None:
    with pytest.raises(InputError) as caught, input_errors("x", "a matrix", "write it again"):
        raise struct.error("bad\nworse")
    assert str(caught.value) == "x: expected a matrix, could not read it (error: bad); write it again"
    with (
        pytest.raises(InputError, match=r"^y: expected a JSON object, got 3; get it again$"),
        input_errors("x", "a"),
    ):
        as_object(3, "y")


# Pickles.


def saved(held: Any, *, old: bool = False) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(held, file, _use_new_zipfile_serialization=not old)
    return file


def unsafe(content: io.BytesIO, most_summed: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        check_torch_save(content, "x.pt", most_summed=most_summed)
    return str(caught.value)


@pytest.mark.parametrize("old", [True, False])
def test_what_torch_saves_is_not_refused(*, old: bool) -> None:
    for held in (torch.eye(3), {"x": [torch.eye(3)] * 1000, "y": (1, "a")}, [torch.zeros(2) for _ in range(5000)]):
        check_torch_save(saved(held, old=old), "x.pt")


@pytest.mark.parametrize("old", [True, False])
def test_a_pickle_that_never_ends_or_fills_the_memory_is_refused(*, old: bool) -> None:
    deep: Any = ()
    for _ in range(20):
        deep = (deep, deep)
    assert "it has tuples in tuples, more than 8 deep" in unsafe(saved({"x": deep}, old=old))
    assert "it makes a bytearray" in unsafe(saved(bytearray(10), old=old))
    assert "it is of more than 4 MiB" in unsafe(saved(["x" * 100 + str(i) for i in range(LARGEST // 90)], old=old))


def test_a_pickle_alone_is_looked_through_too() -> None:
    assert "it makes a bytearray" in unsafe(io.BytesIO(pickle.dumps(bytearray(10), protocol=2)))


def test_damage_is_found_by_the_checksums_of_small_files_and_always_in_the_pickle() -> None:
    content = saved(torch.arange(1000.0)).getvalue()
    values = content.replace(torch.arange(1000.0).numpy().tobytes(), torch.ones(1000).numpy().tobytes())
    assert "got another in 'archive/data/0': the file is damaged" in unsafe(io.BytesIO(values), len(content))
    check_torch_save(io.BytesIO(values), "x.pt", most_summed=len(content) - 1)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        check_torch_save(io.BytesIO(content.replace(b"cpu", b"gpu")), "x.pt", most_summed=0)


@pytest.mark.parametrize("is_large", [True, False])
def test_a_bit_flipped_anywhere_in_an_archive_is_refused_or_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    """In large files no checksum of the values is compared, so what tells where they lie is all that is flipped."""
    monkeypatch.setattr(pt, "MOST_SUMMED", 0 if is_large else 2**20)
    path, held = tmp_path / "x.pt", torch.arange(9.0).reshape(3, 3)
    torch.save(held, path)
    content = path.read_bytes()
    start = content.index(held.numpy().tobytes())
    values = range(start, start + held.nbytes)
    messages = []
    for place in sorted({*range(len(content))} - {*values}) if is_large else values:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            parts = pt.pt_layers(path)
            assert isinstance(parts, list), place
            assert torch.equal(parts[0].read(0, 3), held), place
        except InputError as error:
            messages.append(str(error))
    expected = "an archive whose headers and directory agree" if is_large else "the checksums that torch.save wrote"
    assert any(f"{path}: expected {expected}, got" in message for message in messages)


def test_a_gap_between_the_members_of_an_archive_is_refused_and_zip_s_own_archives_are_read() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(saved(torch.eye(3))) as whole, zipfile.ZipFile(file, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
    check_torch_save(file, "x.pt")
    with zipfile.ZipFile(file, "a") as archive:
        archive.fp.seek(archive.start_dir)  # type: ignore[union-attr]
        archive.fp.write(bytes(8))  # type: ignore[union-attr]
        archive.start_dir += 8
        archive.writestr("archive/more", b"")
    assert "headers and directory agree" in unsafe(file)


def test_an_archive_with_a_name_twice_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/data.pkl", b"")
    assert "got a name that stands twice" in unsafe(file)
