"""Files of others, which may be anything: read without running what is in them. All raise InputError.

Sizes are known before anything is read: an archive may promise a thousand times what it holds.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from autopsae.activations.formats.npy import read_header
from autopsae.arrays import InputError
from autopsae.interop.checks import names
from autopsae.memory import check_memory
from autopsae.pickles import check_torch_save
from autopsae.reading import as_object, check_regular, input_errors

LARGEST_RATIO = 100
"""Of an archive's content to its size. Weights hardly shrink; a bomb does by a thousand."""


COPIES = 2
"""Of an array while it is read: its bytes, and the tensor that is made of them."""


def _check_fits(path: Path, needed: int) -> None:
    """InputError where the tensors of a file take more memory than is free: a file may have holes of any size."""
    try:
        check_memory(needed, torch.device("cpu"), "for its tensors", "read it on a larger machine")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file. Raises InputError for a missing, truncated or foreign one."""
    with input_errors(path, "safetensors"):
        check_regular(path)
        _check_fits(path, path.stat().st_size)
        return load_file(path)


def read_state_dict(path: Path, *, after: int = 0) -> dict[str, Any]:
    """What `torch.save` wrote, if it is made of tensors, numbers and words: nothing else is unpickled, and no code
    runs. Raises InputError for anything else.

    after: bytes at the beginning that are not part of it.
    """
    again = "pickles that hold code are not run: save its state_dict()"
    with input_errors(path, "a torch.save of tensors alone", again):
        check_regular(path)
        _check_fits(path, (1 + bool(after)) * path.stat().st_size)
        with path.open("rb") as file:
            file.seek(after)
            # An archive's places count from its beginning, so one that follows something must be cut out.
            content: io.BytesIO | io.BufferedReader = io.BytesIO(file.read()) if after else file
            check_torch_save(content, path)
            content.seek(0)
            state = torch.load(content, map_location="cpu", weights_only=True)
    return as_object(state, path, "a state_dict of tensors (`autopsae diagnose` takes activations)")


def read_npz(path: Path) -> dict[str, Tensor]:
    """The floating-point arrays that `numpy.savez` wrote. Raises InputError for anything else, and for an archive
    that would unfold to far more than it is.
    """
    with input_errors(path, "arrays that numpy.savez wrote"):
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            content = sum(member.file_size for member in members)
            if content > 2**20 and content > LARGEST_RATIO * path.stat().st_size:
                raise InputError(
                    f"{path}: expected arrays, got an archive of {path.stat().st_size:,} bytes that unfolds to "
                    f"{content:,}; get it again"
                )
            _check_fits(path, COPIES * content)
            return {member.filename.removesuffix(".npy"): _array(archive, member, path) for member in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Tensor:
    """One array, whose header says what is there. An array of objects, which would be a pickle, is refused."""
    with archive.open(member) as file:
        shape, is_fortran, dtype = read_header(file)
        header = file.tell()
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise InputError(
                f"{path}: {names([member.filename])}: expected floating-point weights, got {dtype}; save them as "
                "float32"
            )
        expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if expected != member.file_size - header:
            raise InputError(
                f"{path}: {names([member.filename])}: expected {expected:,} bytes as its header says, got "
                f"{member.file_size - header:,}; get the file again"
            )
        flat = np.frombuffer(file.read(), dtype=dtype)
    array = flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("=")))
