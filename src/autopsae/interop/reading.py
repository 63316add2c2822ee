"""Files of others, which may be anything: read without running what is in them. All raise InputError.

Sizes are known before anything is read: an archive may promise a thousand times what it holds.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from autopsae.activations.formats.pickles import why_not
from autopsae.arrays import InputError
from autopsae.interop.checks import as_object, names, shown_text

LARGEST_JSON = 16 * 2**20
"""Bytes of a configuration; those of the public suites have a few thousand."""
LARGEST_PICKLE = 2**20
"""Bytes of a state_dict's own pickle, whose tensors lie elsewhere; those of SAEs have a few thousand."""
LARGEST_RATIO = 100
"""Of an archive's content to its size. Weights hardly shrink; a bomb does by a thousand."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError for anything else."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_JSON + 1)
    except OSError as error:
        raise InputError(f"{path}: expected a JSON object, could not read it ({first_line(error)})") from error
    return parse_object(text, path)


def parse_object(text: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in these bytes of a file. Raises InputError for anything else."""
    if len(text) > LARGEST_JSON:
        raise InputError(
            f"{path}: expected a configuration of at most {LARGEST_JSON >> 20} MiB, got a longer one; get the file "
            "again"
        )
    try:
        found = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected a JSON object, could not read it ({first_line(error)}); get the file again"
        ) from error
    return as_object(found, path, "a JSON object")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file. Raises InputError for a missing, truncated or foreign one."""
    try:
        return load_file(path)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        raise InputError(
            f"{path}: expected safetensors, could not read them ({first_line(error)}); get the file again"
        ) from error


def read_state_dict(path: Path, *, after: int = 0) -> dict[str, Any]:
    """What `torch.save` wrote, if it is made of tensors, numbers and words: nothing else is unpickled, and no code
    runs. Raises InputError for anything else.

    after: bytes at the beginning that are not part of it.
    """
    try:
        with path.open("rb") as file:
            file.seek(after)
            # An archive's places count from its beginning, so one that follows something must be cut out.
            content: io.BytesIO | io.BufferedReader = io.BytesIO(file.read()) if after else file
            if zipfile.is_zipfile(content):
                _check_archive(content, path)
            else:
                content.seek(0)
                _check_pickle(content.read(LARGEST_PICKLE + 1), path)
            content.seek(0)
            found = torch.load(content, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can end in any of Python's errors
        raise InputError(
            f"{path}: expected a torch.save of tensors alone, could not read it ({first_line(error)}); pickles "
            "that hold code are not run: save its state_dict()"
        ) from error
    return as_object(found, path, "a state_dict of tensors (`autopsae diagnose` takes activations)")


def _check_archive(content: io.BytesIO | io.BufferedReader, path: Path) -> None:
    """`torch.save` does not compress: what is compressed in such an archive is there to fill the memory. It writes
    checksums, at which `torch.load` does not look.
    """
    size = content.seek(0, io.SEEK_END)
    with zipfile.ZipFile(content) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
            raise InputError(
                f"{path}: expected a torch.save, whose parts are not compressed, got other ones; save it again"
            )
        damaged = archive.testzip()
        for member in members:
            if member.filename.endswith("/data.pkl"):
                with archive.open(member) as pickled:
                    _check_pickle(pickled.read(LARGEST_PICKLE + 1), path)
    if damaged is not None:
        raise InputError(
            f"{path}: expected the checksums that torch.save wrote, got another in {names([damaged])}: the file is "
            "damaged; get it again"
        )


def _check_pickle(beginning: bytes, path: Path) -> None:
    reason = why_not(beginning, LARGEST_PICKLE)
    if reason:
        raise InputError(
            f"{path}: expected a state_dict of a few tensors, got a pickle that is not loaded: {reason}; "
            "save its state_dict()"
        )


def read_npz(path: Path) -> dict[str, Tensor]:
    """The floating-point arrays that `numpy.savez` wrote. Raises InputError for anything else, and for an archive
    that would unfold to far more than it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            content = sum(member.file_size for member in members)
            if content > 2**20 and content > LARGEST_RATIO * path.stat().st_size:
                raise InputError(
                    f"{path}: expected arrays, got an archive of {path.stat().st_size:,} bytes that unfolds to "
                    f"{content:,}; get the file again"
                )
            return {member.filename.removesuffix(".npy"): _array(archive, member, path) for member in members}
    except InputError:
        raise
    except Exception as error:  # a damaged header can end in any of Python's errors
        raise InputError(
            f"{path}: expected arrays that numpy.savez wrote, could not read them ({first_line(error)}); get the "
            "file again"
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Tensor:
    """One array, whose header says what is there. An array of objects, which would be a pickle, is refused."""
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
        header = file.tell()
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise InputError(
                f"{path}: {names([member.filename])}: expected floating-point weights, got {dtype}; save them as "
                "float32"
            )
        expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if expected != member.file_size - header or min(shape, default=0) < 0:
            raise InputError(
                f"{path}: {names([member.filename])}: expected {expected:,} bytes as its header says, got "
                f"{member.file_size - header:,}; get the file again"
            )
        flat = np.frombuffer(file.read(), dtype=dtype)
    array = flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("=")))


def first_line(error: BaseException) -> str:
    """What an error says, for a message."""
    lines = str(error).splitlines()
    return shown_text(f"{type(error).__name__}: {lines[0] if lines else ''}", 200)
