"""Whether a GGUF file is whole, seen before it is read: the reader of the package `gguf` counts a damaged length to
its end, which may take days and all memory.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from autopsae.arrays import InputError

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each type of number."""
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
"""Of a tensor, as the format has it."""
_LENGTHS = (b"embedding_length", b"feed_forward_length")
"""Fields that tell a length of weights, or 0; a mixture of experts may tell one that none of its weights has."""
_PARTS = (b"vocab_size", b"head_count", b"head_count_kv", b"key_length", b"value_length")
"""Fields that tell no more than the longest length of weights."""


def check_gguf(path: Path) -> None:
    """InputError for a file that is no GGUF, or whose header leads out of it."""
    if not path.is_file():
        # Opening a pipe that nobody writes to would wait for ever.
        raise InputError(f"{path}: expected a GGUF file, got a pipe, a device or nothing; pass a file")
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(
                    f"{path}: expected a GGUF file, got one that does not begin with GGUF; pass another"
                )
            _Header(file, path.stat().st_size).walk()
    except (struct.error, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: expected a whole GGUF file, got a damaged or cut one; download it again"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from error


class _Header:
    """The header of a GGUF file, walked over and not kept. Raises ValueError for what leads out of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._order = "<"

    def walk(self) -> None:
        if self._number("I") & 0xFFFF == 0:  # a version that is written in the other byte order
            self._order = ">"
        tensors, fields = self._number("Q"), self._number("Q")
        told = self._whole_numbers(fields)
        # The loader makes as many blocks as are told, and where none are told as many as it likes.
        if told.get(b"block_count", tensors + 1) > tensors:
            raise ValueError("more blocks than tensors")
        lengths = {length for _ in range(tensors) for length in self._tensor()}
        # It makes weights of the lengths that are told before it looks at those in the file.
        for name in _LENGTHS:
            if told.get(name, 0) not in {0, *lengths} and b"expert_count" not in told:
                raise ValueError("a length that no tensor has")
        if any(told.get(name, 0) > max(lengths, default=0) for name in _PARTS):
            raise ValueError("more heads or words than the longest tensor has rows")

    def _whole_numbers(self, fields: int) -> dict[bytes, int]:
        """The whole numbers among the fields, by the last part of their names."""
        numbers = {}
        for _ in range(fields):
            name = self._string()
            kind = self._number("I")
            at = self._file.tell()
            self._skip(kind)
            if kind in (4, 10):
                self._file.seek(at)
                numbers[name.rpartition(b".")[2]] = self._number("I" if kind == 4 else "Q")
        return numbers

    def _tensor(self) -> list[int]:
        """The lengths of a tensor; its type and its place are passed over."""
        self._string()
        dimensions = self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError("more dimensions than a tensor has")
        lengths = [self._number("Q") for _ in range(dimensions)]
        self._over(4 + 8)
        return lengths

    def _number(self, kind: str) -> int:
        [number] = struct.unpack(self._order + kind, self._file.read(struct.calcsize("<" + kind)))
        return int(number)

    def _string(self) -> bytes:
        length = self._number("Q")
        if length > self._size - self._file.tell():
            raise ValueError("a string is longer than the file")
        return self._file.read(length)

    def _over(self, count: int) -> None:
        if count > self._size - self._file.tell():
            raise ValueError("a field is longer than the file")
        self._file.seek(count, 1)

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner in _SIZES:
                self._over(_SIZES[inner] * count)
            elif count > self._size:
                raise ValueError("more items than bytes")
            else:
                for _ in range(count):
                    self._skip(inner)
        elif kind in _SIZES:
            self._over(_SIZES[kind])
        else:
            raise ValueError("an unknown type")
