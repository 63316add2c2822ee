"""Ways in which a file may be damaged: a bit, a byte, a length, a value in JSON, a file in another's place.

Plain seeded changes rather than Hypothesis: what is changed is bytes of real files, a case is replayed from its
number alone, and there is nothing to shrink, as a case is one or two changes already.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Way = Callable[[Random, Path, list[Path]], str]
"""Damages a file in place; given all files of the case, and returns what was done."""

EDGE = 300
"""Bytes at the beginning and at the end of a file, in which headers and directories lie."""

VALUES: list[Callable[[], Any]] = [
    lambda: None,
    lambda: True,
    lambda: False,
    lambda: 0,
    lambda: 1,
    lambda: -1,
    lambda: 3,
    lambda: 2**31,
    lambda: 2**53 + 1,
    lambda: 2**63,
    lambda: 2**64,
    lambda: 10**400,
    lambda: 0.5,
    lambda: -0.0,
    lambda: 1e-320,
    lambda: 1e308,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: "",
    lambda: "x",
    lambda: "3",
    lambda: "float32",
    lambda: "../x",
    lambda: "/dev/zero",
    lambda: "a\0b",
    lambda: "\x1b[31mred\x07",
    lambda: "\ud800",
    lambda: "\u202e" * 3,
    lambda: "n" * 10**6,
    list,
    dict,
    lambda: [[]],
    lambda: [1, 2, 3],
    lambda: {"a": 1},
    lambda: deep(20),
    lambda: deep(800),
    lambda: list(range(50_000)),
]
"""What stands in the place of a value."""

EXTREMES = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]


def deep(levels: int) -> Any:
    """Lists in lists."""
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


def place(random: Random, data: bytes) -> int:
    """A place in a file: as often in its edges as anywhere."""
    where = random.random()
    if where < 0.35:
        return random.randrange(min(len(data), EDGE) + 1)
    if where < 0.5:
        return random.randrange(max(0, len(data) - EDGE), len(data) + 1)
    return random.randrange(len(data) + 1)


def on_bytes(change: Callable[[Random, bytes], tuple[bytes, str]]) -> Way:
    """A way that changes the bytes of a file."""

    def way(random: Random, path: Path, files: list[Path]) -> str:
        data, told = change(random, path.read_bytes())
        path.write_bytes(data)
        return told

    return way


def flip(random: Random, data: bytes) -> tuple[bytes, str]:
    """A bit or a few."""
    changed, places = bytearray(data), []
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        at = min(place(random, data), len(data) - 1)
        if at >= 0:
            changed[at] ^= 1 << random.randrange(8)
            places.append(at)
    return bytes(changed), f"bits flipped at {places}"


def cut(random: Random, data: bytes) -> tuple[bytes, str]:
    at = place(random, data)
    return data[:at], f"cut at {at} of {len(data)}"


def insert(random: Random, data: bytes) -> tuple[bytes, str]:
    at, count = place(random, data), random.choice([1, 2, 8, 64, 1000])
    some = random.choice([random.randbytes(count), b"\0" * count, b"\xff" * count, b"[" * count, b" " * count])
    return data[:at] + some + data[at:], f"{count} bytes inserted at {at}: {some[:8]!r}..."


def remove(random: Random, data: bytes) -> tuple[bytes, str]:
    at, count = place(random, data), random.choice([1, 4, 8, 100])
    return data[:at] + data[at + count :], f"{count} bytes removed at {at}"


def repeat(random: Random, data: bytes) -> tuple[bytes, str]:
    at, count = place(random, data), random.choice([1, 8, 100, 4096])
    return data[: at + count] + data[at:], f"{count} bytes repeated at {at}"


def blank(random: Random, data: bytes) -> tuple[bytes, str]:
    at, count = place(random, data), random.choice([1, 8, 100, 1000])
    filled = bytes([random.choice([0, 255])]) * len(data[at : at + count])
    return data[:at] + filled + data[at + count :], f"{count} bytes blanked at {at}"


def extreme(random: Random, data: bytes) -> tuple[bytes, str]:
    """A length or an offset, in either byte order."""
    at, number, size = place(random, data), random.choice(EXTREMES), random.choice([1, 2, 4, 8])
    if random.random() < 0.5:
        at -= at % size
    written = (number % 2 ** (8 * size)).to_bytes(size, random.choice(["little", "big"]))
    return (data[:at] + written + data[at + size :])[: max(len(data), at)], f"{number} in {size} bytes at {at}"


def splice(random: Random, path: Path, files: list[Path]) -> str:
    """The beginning of one file and the end of another."""
    other = random.choice(files)
    first, second = path.read_bytes(), other.read_bytes()
    at, after = place(random, first), place(random, second)
    path.write_bytes(first[:at] + second[after:])
    return f"cut at {at}, then {other.name} from {after}"


def in_place_of(random: Random, path: Path, files: list[Path]) -> str:
    """Another file, nothing, a folder, a pipe or a dead link under the name."""
    other = random.choice(files)
    kind = random.choice(["another", "another", "empty", "missing", "folder", "pipe", "link", "loop"])
    data = other.read_bytes()
    path.unlink()
    match kind:
        case "another":
            path.write_bytes(data)
            return f"{other.name} in its place"
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)
    return f"{kind} in its place"


def swap(random: Random, path: Path, files: list[Path]) -> str:
    """Two files by each other's name."""
    other, aside = random.choice(files), path.with_name("aside")
    shutil.move(path, aside)
    if other != path:
        shutil.move(other, path)
    shutil.move(aside, other)
    return f"swapped with {other.name}"


def json_edit(random: Random, content: Any) -> tuple[Any, str]:
    """A value in parsed JSON replaced, removed, renamed, added or swapped with another; (it, what was done)."""
    places: list[tuple[Any, Any]] = []
    todo = [content]
    while todo:
        one = todo.pop()
        keys = [*one] if isinstance(one, dict) else [*range(len(one))] if isinstance(one, list) else []
        places += [(one, key) for key in keys]
        todo += [one[key] for key in keys]
    value = random.choice(VALUES)()
    if not places or random.random() < 0.03:
        return value, f"the whole is {repr(value)[:60]}"
    holder, key = random.choice(places)
    told = f"{key!r}"[:60]
    match random.choice(["set", "set", "set", "set", "remove", "rename", "add", "swap", "near"]):
        case "set":
            holder[key] = value
            return content, f"{told} = {repr(value)[:60]}"
        case "remove":
            del holder[key]
            return content, f"without {told}"
        case "rename" if isinstance(holder, dict):
            name = random.choice([f"{key}x", "", "../x", "a\0b", "\x1b[31m", "\ud800", "n" * 5000])
            holder[name] = holder.pop(key)
            return content, f"{told} named {name[:20]!r}"
        case "add" if isinstance(holder, dict):
            holder["more"] = value
            return content, f"beside {told}: {repr(value)[:60]}"
        case "near" if type(holder[key]) in (int, float):
            holder[key] = random.choice([holder[key] + 1, holder[key] - 1, holder[key] * 2, -holder[key]])
            return content, f"{told} = {holder[key]!r}"
    other, at = random.choice(places)
    holder[key], other[at] = other[at], holder[key]
    return content, f"{told} swapped with {at!r}"


def _dumped(content: Any) -> bytes:
    return json.dumps(content, check_circular=False).encode()


def edit_json(random: Random, path: Path, files: list[Path]) -> str:
    """JSON, a line of JSON, or the JSON header of safetensors; other files are cut."""
    data = path.read_bytes()
    try:
        if path.suffix == ".jsonl":
            lines = data.splitlines()
            number = random.randrange(len(lines))
            content, told = json_edit(random, json.loads(lines[number]))
            lines[number] = _dumped(content)
            path.write_bytes(b"\n".join(lines) + b"\n")
            return f"line {number}: {told}"
        if path.suffix == ".safetensors":
            [length] = struct.unpack("<Q", data[:8])
            content, told = json_edit(random, json.loads(data[8 : 8 + length]))
            header = _dumped(content)
            header += b" " * (-len(header) % 8)
            path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
            return f"header: {told}"
        content, told = json_edit(random, json.loads(data))
        written = _dumped(content)
        if random.random() < 0.05 and isinstance(content, dict) and content:
            name = random.choice([*content])
            written = b"{" + _dumped(name) + b": 1, " + written[1:]
            told += f"; {name[:40]!r} twice"
        path.write_bytes(written)
        return told
    except (ValueError, RecursionError, TypeError, struct.error, IndexError):
        return on_bytes(cut)(random, path, files)


NPY_TYPES = (
    *("'<f4'", "'>f4'", "'<f8'", "'|O'", "'<c8'", "[('a', '<f4')]", "'<f4,<f4'", "'|V4'", "3", "'<U9'"),
    *("'<M8[s]'", "None", f"'{'x' * 999}'", "('<f4', (4,))"),
)
NPY_ORDERS = ("True", "False", "None", "1")
NPY_SHAPES = (
    *("(600,)", "(600, 16)", "(16, 600)", "(-1, 16)", "(10**9, 10**9)", "()", "(9600, 1)", f"({2**62}, 4)"),
    *("(0, 16)", "(600, 16.0)", "(True, 9600)", "((600, 16),)", "[600, 16]"),
)
"""What the header of a .npy file may say, as it is written there."""


def edit_npy(random: Random, path: Path, files: list[Path]) -> str:
    """The header of a .npy file: its type, order and shape; other files get a bit flipped."""
    data = path.read_bytes()
    if data[:6] != b"\x93NUMPY":
        return on_bytes(flip)(random, path, files)
    kind, order, shape = (random.choice(some) for some in (NPY_TYPES, NPY_ORDERS, NPY_SHAPES))
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    version, size = random.choice([(b"\x01\0", "<H"), (b"\x02\0", "<I"), (b"\x03\0", "<I"), (b"\x09\0", "<H")])
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    begin = 10 + int.from_bytes(data[8:10], "little")
    path.write_bytes(data[:6] + version + struct.pack(size, len(text)) + text + data[begin:])
    return f"header {kind} {order} {shape}"


WAYS: dict[str, tuple[int, Way]] = {
    "flip": (5, on_bytes(flip)),
    "cut": (2, on_bytes(cut)),
    "insert": (2, on_bytes(insert)),
    "remove": (2, on_bytes(remove)),
    "repeat": (1, on_bytes(repeat)),
    "blank": (1, on_bytes(blank)),
    "extreme": (3, on_bytes(extreme)),
    "splice": (2, splice),
    "in place": (1, in_place_of),
    "swap": (1, swap),
    "json": (8, edit_json),
    "npy": (1, edit_npy),
}
"""Each with how often it is taken."""


def damage(random: Random, files: list[Path]) -> tuple[Path, str]:
    """(the file that was damaged, how). Files with JSON in them are taken more often than others."""
    has_json = [path for path in files if path.suffix in (".json", ".jsonl", ".safetensors")]
    path = random.choice(has_json if has_json and random.random() < 0.4 else files)
    ways = {
        name: often
        for name, (often, _) in WAYS.items()
        if (name != "json" or path in has_json) and (name != "npy" or path.suffix == ".npy")
    }
    if path.suffix == ".npy":
        ways["npy"] = 8
    [name] = random.choices([*ways], weights=[*ways.values()])
    return path, f"{name}: {WAYS[name][1](random, path, files)}"
