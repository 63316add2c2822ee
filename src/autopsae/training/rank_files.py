"""The checkpoint of a training on several ranks: a file for each rank, and one that says which files count.

Each rank writes the latents that it owns into a file of its own. When all have written the same step, the first
rank writes the list of the files, with their ranges and checksums: from then on they are the checkpoint, and the
files of the one before it are removed. So a kill at any moment leaves the old checkpoint or the new one. A training
on another number of ranks, or on one process, reads the ranges that it needs.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import write_tensors
from autopsae.kernels.ranks import ErrorOfAllRanks, Ranks
from autopsae.kinds import anything, fields, list_of, mapping_of, text, whole
from autopsae.reading import check_regular
from autopsae.saved import input_errors_of_saved, load_object, save_object
from autopsae.training.ranks import OF_ALL

FORMAT = "autopsae-rank-checkpoint"

_FILE = fields({"name": text, "step": whole(0), "first": whole(0), "end": whole(1), "sha256": text})
_CONTENT = fields({"about": mapping_of(anything), "files": list_of(_FILE)})
_WATCHED = ("state.since_positive", "state.since_fired", "state.ever_fired")
_SUMMED = "state.changes"
"""What each rank counts for its own latents: the first file has the sum."""


@contextmanager
def all_or_none(ranks: Ranks) -> Iterator[None]:
    """Raises an error of the block on all ranks where one of them has it, so that none waits for one that ended.
    All ranks enter it.
    """
    error: Exception | None = None
    try:
        yield
    except (InputError, OSError) as raised:
        error = raised
    errors = ranks.gather_words("" if error is None else str(error))
    if not any(errors):
        return
    first = next(rank for rank, words in enumerate(errors) if words)
    if error is not None and ranks.rank == first:
        raise error
    raise ErrorOfAllRanks(errors[first])


def latent_axis(name: str) -> int | None:
    """The dimension of a tensor of a checkpoint that counts latents; None where it has none."""
    if name in _WATCHED:
        return 1
    part, _, rest = name.partition(".")
    tensor = rest.rpartition(".")[2]
    if tensor in OF_ALL or not (name.startswith("state.moments.") or part == "sae"):
        return None
    return 2 if part == "state" else 0


def is_listing(path: str | Path) -> bool:
    """Whether a checkpoint is one of several ranks: a JSON file that lists the files of the ranks."""
    with suppress(OSError), Path(path).open("rb") as file:
        return file.read(1) == b"{"
    return False


def save_on_ranks(path: str | Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Write the checkpoint of all ranks, each its own part. `path` becomes the list of the files.

    Of several groups, which hold the same, the first one writes. Raises InputError, on all ranks, where one of them
    could not write its file or is at another step.
    """
    with all_or_none(ranks.everyone):
        if ranks.peers.is_first:
            _save_group(Path(path), about, tensors, ranks)


def _save_group(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """`save_on_ranks` for the ranks of one group."""
    ours = {name: tensor for name, tensor in tensors.items() if latent_axis(name) is not None}
    if _SUMMED in tensors:
        summed = ranks.sum(tensors[_SUMMED].clone(), "checkpoint")
    if ranks.is_first:
        ours = {**tensors, _SUMMED: summed} if _SUMMED in tensors else dict(tensors)
    before = [path.parent / name for name in _names(path)]
    # A new name each time: the files of the checkpoint that counts now are not touched.
    token = ranks.gather_words(token_hex(4))[0]
    file = path.with_name(f"{path.stem}.{token}.rank{ranks.rank}of{ranks.size}.safetensors")
    owned = _own_range(ours, ranks)
    try:
        with all_or_none(ranks):
            digest = write_tensors(file, ours)
        mine = {"name": file.name, "step": about["step"], "first": owned.start, "end": owned.stop, "sha256": digest}
        files = [json.loads(words) for words in ranks.gather_words(json.dumps(mine))]
        with all_or_none(ranks):
            if len({one["step"] for one in files}) > 1:
                steps = ", ".join(str(one["step"]) for one in files)
                raise InputError(
                    f"{path}: expected all ranks at one step, got {steps}; start all from one checkpoint"
                )
            if ranks.is_first:
                save_object(path, format=FORMAT, content={"about": dict(about), "files": files})
    except BaseException:
        if file.name not in _names(path):
            file.unlink(missing_ok=True)
        raise
    if ranks.is_first:
        for old in before:
            old.unlink(missing_ok=True)


def read_on_ranks(path: str | Path, owned: range, *, is_first: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what the checkpoint says, the tensors of the latents that are `owned` and of all that every rank has), as
    `checkpoint.save_checkpoint` has them. is_first: whether to go on counting what the ranks counted together.

    Raises InputError for a list or a file that is missing or damaged, and for files that are not of one checkpoint.
    """
    path = Path(path)
    content = load_object(path, format=FORMAT, kind=_CONTENT)
    about, files = content["about"], content["files"]
    _check_files(path, about, files)
    tensors: dict[str, list[Tensor]] = {}
    for number, one in enumerate(files):
        first, end = max(owned.start, one["first"]), min(owned.stop, one["end"])
        if number and first >= end:
            continue
        file = path.parent / Path(one["name"]).name
        with input_errors_of_saved(file, FORMAT):
            _check_digest(file, one["sha256"])
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    axis = latent_axis(name)
                    if axis is None:
                        tensors[name] = [opened.get_tensor(name)]
                    elif first < end:
                        rows = slice(first - one["first"], end - one["first"])
                        tensors.setdefault(name, []).append(opened.get_slice(name)[(slice(None),) * axis + (rows,)])
    joined = {
        name: torch.cat(parts, latent_axis(name) or 0) if len(parts) > 1 else parts[0]
        for name, parts in tensors.items()
    }
    if _SUMMED in joined and not is_first:
        joined[_SUMMED].zero_()
    return about, joined


def remove_on_ranks(path: str | Path) -> None:
    """Remove a checkpoint of several ranks: the list, then the files."""
    files = [Path(path).parent / name for name in _names(Path(path))]
    Path(path).unlink(missing_ok=True)
    for file in files:
        file.unlink(missing_ok=True)


def _names(path: Path) -> list[str]:
    """The files that a list names; none where it cannot be read."""
    if not is_listing(path):
        return []
    with suppress(InputError):
        files = load_object(path, format=FORMAT, kind=_CONTENT)["files"]
        return [Path(one["name"]).name for one in files]
    return []


def _own_range(tensors: Mapping[str, Tensor], ranks: Ranks) -> range:
    """The latents whose rows these tensors hold."""
    sizes = ranks.gather(torch.tensor(len(tensors["sae.0.W_enc"]), device="cpu"), "checkpoint").tolist()
    return range(sum(sizes[: ranks.rank]), sum(sizes[: ranks.rank + 1]))


def _check_files(path: Path, about: Mapping[str, Any], files: list[dict[str, Any]]) -> None:
    """InputError unless the files are of one step and follow each other from latent 0 on."""
    ends = [0, *(one["end"] for one in files)]
    whole_ranges = [one["first"] for one in files] == ends[:-1] and sorted({*ends}) == ends and len(files) > 0
    if not whole_ranges or {one["step"] for one in files} != {about.get("step")}:
        raise InputError(
            f"{path}: expected files of one step that hold each latent once, got "
            f"{[(one['step'], one['first'], one['end']) for one in files]}; start afresh"
        )


def _check_digest(file: Path, digest: str) -> None:
    check_regular(file)
    with file.open("rb") as opened:
        if file_digest(opened, "sha256").hexdigest() != digest:
            raise InputError(
                f"{file}: expected what was saved, got other content than its checksum says: it is damaged; start "
                "afresh"
            )
