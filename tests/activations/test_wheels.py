"""Laws of files that wheels hold in parts: joined once, whole, and never from other parts."""

import hashlib
from pathlib import Path

import pytest

from autopsae.activations.wheels import find_wheels, join_parts
from autopsae.arrays import InputError

WHOLE = hashlib.sha256(b"onetwo").hexdigest()


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths = [tmp_path / "part01.bin", tmp_path / "part02.bin"]
    for path, content in zip(paths, (b"one", b"two"), strict=True):
        path.write_bytes(content)
    return paths


def test_parts_are_joined_in_their_order_once(parts: list[Path], tmp_path: Path) -> None:
    joined = join_parts(parts, "net.gguf", WHOLE)
    assert joined == tmp_path / "cache" / "autopsae" / "net.gguf"
    assert joined.read_bytes() == b"onetwo"
    before = joined.stat().st_mtime_ns
    assert join_parts(parts, "net.gguf", WHOLE).stat().st_mtime_ns == before


def test_a_file_of_another_size_is_joined_again(parts: list[Path], tmp_path: Path) -> None:
    join_parts(parts, "net.gguf", WHOLE).write_bytes(b"onetw")
    assert join_parts(parts, "net.gguf", WHOLE).read_bytes() == b"onetwo"


def test_other_parts_are_refused_and_leave_nothing(parts: list[Path], tmp_path: Path) -> None:
    parts[1].write_bytes(b"twx")
    with pytest.raises(
        InputError, match=r"net.gguf: expected parts of SHA-256 \w{12}..., got .*; install the pinned"
    ):
        join_parts(parts, "net.gguf", WHOLE)
    assert list((tmp_path / "cache" / "autopsae").iterdir()) == []


def test_only_the_missing_wheels_are_asked_for() -> None:
    [folder] = find_wheels("a", ["safetensors==1.0"])
    assert folder.name == "safetensors"
    with pytest.raises(InputError) as raised:
        find_wheels("a", ["safetensors==1.0", "no-such-wheel==2.0"])
    assert str(raised.value) == "preset 'a' is not installed; pip install --no-deps no-such-wheel==2.0"
