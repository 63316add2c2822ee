"""Saved files with something wrong in them, under checksums that are right."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from autopsae.files import pair_files
from autopsae.saved import save_object


def change_object(path: Path, **content: Any) -> None:
    """Write other content into a JSON file of ours; a value of `...` takes its name out."""
    whole = json.loads(path.read_text())
    rest = {name: value for name, value in whole.items() if name not in ("version", "content_sha256")}
    changed = {name: value for name, value in {**rest, **content}.items() if value is not ...}
    save_object(path, format=changed.pop("format"), content=changed)


def change_pair(path: Path, change: Callable[[dict[str, Tensor]], object] = lambda t: None, **content: Any) -> None:
    """Write other tensors and other content into a pair of ours."""
    described, stored = pair_files(path)
    tensors = {name: tensor.clone() for name, tensor in load_file(stored).items()}
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, stored)
    change_object(described, sha256=hashlib.sha256(stored.read_bytes()).hexdigest(), **content)


def flips(data: bytes, every: int = 1) -> list[bytes]:
    """The same with one bit flipped, each time in another byte."""
    return [
        data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        for place in range(0, len(data), every)
    ]
