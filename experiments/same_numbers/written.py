"""What a tree wrote, as one flat table: path -> number, word or digest of a tensor."""

import csv
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

Value = float | int | bool | str | None
PASSED_OVER = ("checkpoint*.safetensors", ".autopsae.lock")
"""Names of files that a run leaves only while it is under way."""


def read_folder(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, Value]:
    """All numbers of all files under `folder`, but for the folders `without`.

    Raises ValueError for a file of a kind that is not known here.
    """
    found: dict[str, Value] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if (
            path.is_file()
            and relative.parts[0] not in without
            and not any(path.match(name) for name in PASSED_OVER)
        ):
            found |= {f"{relative}/{key}": value for key, value in flat(_content(path))}
    return found


def flat(value: Any) -> Iterator[tuple[str, Value]]:
    """(path in it, number, word or digest of a tensor). Entries of a list are called by their `name` or `layer`."""
    if isinstance(value, Tensor):
        yield "", digest(value)
    elif isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else _named(value)
        if not entries:
            yield "", "empty"
        for name, entry in entries:
            for path, leaf in flat(entry):
                yield f"{name}/{path}".rstrip("/"), leaf
    else:
        yield "", value


def digest(tensor: Tensor) -> str:
    """Type, shape and a hash of the bytes."""
    content = tensor.detach().cpu().contiguous()
    hashed = sha256(content.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    return f"tensor:{str(content.dtype).removeprefix('torch.')}{list(content.shape)}:{hashed}".replace(" ", "")


def _named(values: list[Any] | tuple[Any, ...]) -> list[tuple[str, Any]]:
    for key in ("name", "layer"):
        names = [str(value.get(key)) if isinstance(value, dict) and key in value else None for value in values]
        if values and None not in names:
            said = [f"{name}~{names[:place].count(name)}" if name in names[:place] else name
                    for place, name in enumerate(names)]  # fmt: skip
            return list(zip(map(str, said), values, strict=True))
    return [(str(place), value) for place, value in enumerate(values)]


def _content(path: Path) -> Any:
    match path.suffix:
        case ".json":
            return json.loads(path.read_text())
        case ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        case ".csv":
            with path.open(newline="") as file:
                return [{name: _number(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
        case ".safetensors":
            with safe_open(path, framework="pt") as file:
                about = {name: _parsed(text) for name, text in (file.metadata() or {}).items()}
                return {**about, **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118
        case ".pt":
            return torch.load(path, weights_only=True)
    raise ValueError(f"{path}: expected .json, .jsonl, .csv, .safetensors or .pt; say in written.py how it is read")


def _number(cell: str | None) -> Value:
    if cell in (None, "", "True", "False"):
        return {"True": True, "False": False}.get(cell or "")
    for kind in (int, float):
        try:
            return kind(str(cell))
        except ValueError:
            continue
    return cell


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
