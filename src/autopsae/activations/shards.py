"""Writing a harvest: safetensors shards and an index, whole or not at all, continued where they stopped.

A shard belongs to the harvest only once `index.json` names it, and shards end between batches, so whatever
interrupts a run, `batches_done` in the index says exactly where the next run goes on.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from autopsae.activations.index import FORMAT, INDEX, VERSION, digest, header_digest, shard_name, with_checksum
from autopsae.activations.resumed import check_request, index_of, remove_unnamed
from autopsae.arrays import InputError
from autopsae.disk import DiskFull, free_space, sweep
from autopsae.files import raw_bytes, write_whole
from autopsae.mirror import copy_of
from autopsae.urls import url_of

SHARD_TOKENS = 4096
"""Tokens, of all layers, held in memory before a shard is written: also the most that an interruption can cost."""

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


class HarvestInterrupted(DiskFull):
    """The disk is full. The message says how many tokens are safe; running the same harvest again resumes."""


class ShardWriter:
    """Shards of one harvest in `folder`; `add` a batch at a time, `finish` at the end, or `join` its parts.

    A folder that holds the beginning of a harvest with the same `request` is continued: feed it from batch
    number `batches_done` on. `request` is any JSON object that says what is harvested. What is added is held,
    not copied, until its shard is written (a shard has at least `shard_tokens` tokens, except the last).

    Raises InputError where `folder` holds anything else, or a harvest with another request.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        request: Mapping[str, Any],
        shard_tokens: int = SHARD_TOKENS,
        in_parts: bool = False,
        first: int = 0,
        state: Path | None = None,
    ) -> None:
        """in_parts: whether other processes write shards of the same harvest. first, state: of such a part, the
        number of its first shard, and a folder of its own for the index of the part.
        """
        if shard_tokens < 1:
            raise InputError(f"shard_tokens: expected a positive number of tokens, got {shard_tokens}")
        self.folder = Path(folder)
        self._shard_tokens, self._first, self._state = shard_tokens, first, state or self.folder
        self._held, self._held_tokens = list[dict[str, Tensor]](), 0
        self._inputs: str | None = None
        self._index = _empty_index(_as_json(request))
        index = index_of(self._state, self.folder)
        begins = index is None or not (index["shards"] or index.get("in_parts"))
        if index and not begins:
            check_request(self.folder, index["request"], self._index["request"])
            self._index = (
                index if index["complete"] or index.get("version") == VERSION else self._with_digests(index)
            )
        divides = in_parts and state is None and not self.complete
        if divides:
            self._index["in_parts"] = True  # shards will lie there that the index does not name
        if begins or divides:
            self._write_index(self._index)
        if not (self.complete or in_parts) and url_of(self.folder) is None:
            # Left by a run that died: the index never named it, so this run writes it again.
            (self.folder / shard_name(len(self._index["shards"]))).unlink(missing_ok=True)
            sweep(self.folder)

    @property
    def batches_done(self) -> int:
        """Batches whose tokens are safe on disk: the number of the first batch still to be fed."""
        return int(self._index["batches_done"])

    @property
    def complete(self) -> bool:
        """Whether `finish` was reached, by this run or an earlier one."""
        return bool(self._index["complete"])

    @property
    def tokens(self) -> int:
        """Tokens added so far, those still in memory included."""
        return int(self._index["tokens"]) + self._held_tokens

    @property
    def inputs(self) -> str | None:
        """What `add` was told of the inputs up to `batches_done`; None where that is not known."""
        known = self._index.get("inputs")
        return known if isinstance(known, str) else None

    def add(
        self,
        layers: Mapping[str, Tensor],
        labels: Mapping[str, Int[Tensor, "..."]],
        *,
        inputs: str | None = None,
    ) -> None:
        """One batch: each layer's [tokens, d_in], and integers [tokens] that are stored as `token.NAME`.

        inputs: a digest of the inputs up to this batch, which is kept for a run that goes on after it.

        Raises InputError when layers, widths, dtypes or labels are not those of the batches before it, and
        HarvestInterrupted when the disk is full.
        """
        batch = {f"token.{name}": label.long() for name, label in labels.items()} | dict(layers)
        rows = {name: len(tensor) for name, tensor in batch.items()}
        if len(set(rows.values())) != 1:
            raise InputError(f"expected as many tokens in every layer and label of a batch, got {rows}")
        described = _describe(layers)
        if (expected := self._index["layers"] or described) != described:
            raise InputError(f"expected layers as in the batches before ({expected}), got {described}")
        if self._held and self._held[0].keys() != batch.keys():
            raise InputError(f"expected {list(self._held[0])} as in the batch before, got {list(batch)}")
        for name, tensor in layers.items():
            if not tensor.isfinite().all():
                raise InputError(
                    f"layer {name!r}: expected finite activations, got NaN or infinite values in {tensor.dtype}; "
                    "store in float32, or look for an overflow in the model"
                )
        self._index["layers"] = described
        self._held.append({name: tensor.detach().cpu() for name, tensor in batch.items()})
        self._held_tokens += len(next(iter(batch.values())))
        self._inputs = inputs
        if self._held_tokens >= self._shard_tokens:
            self._commit(complete=False)

    def finish(self) -> None:
        """Write what is still held and mark the harvest as complete."""
        self._commit(complete=True)

    def shards_and_layers(self) -> dict[str, Any]:
        """What the index says of what is written: `shards`, and `layers`."""
        return {name: self._index[name] for name in ("shards", "layers")}

    def join(self, parts: Sequence[Mapping[str, Any]], *, batches_done: int, inputs: str) -> None:
        """Mark the harvest as complete, with the shards of all parts, in order, after those that it has.

        parts: `shards_and_layers` of each; batches_done, inputs: after the last batch. Raises InputError for parts
        that differ in their layers.
        """
        described = self._index["layers"] or parts[0]["layers"]
        for number, part in enumerate(parts):
            if part["layers"] != described:
                raise InputError(
                    f"part {number}: expected layers as in the others ({described}), got {part['layers']}; was the "
                    "model changed meanwhile?"
                )
        shards = [*self._index["shards"], *(shard for part in parts for shard in part["shards"])]
        state = {"layers": described, "shards": shards, "tokens": sum(shard["tokens"] for shard in shards)}
        state |= {"batches_done": batches_done, "complete": True, "inputs": inputs}
        self._go_on(state)

    def _commit(self, *, complete: bool) -> None:
        shards = list(self._index["shards"])
        if self._held_tokens:
            name, told = shard_name(self._first + len(shards)), dict[str, str]()
            self._write(self.folder / name, _safetensors(self._held), told)
            shards.append({"file": name, "tokens": self._held_tokens, **told})
        done = self.batches_done + len(self._held)
        state = {"shards": shards, "tokens": self.tokens, "batches_done": done, "complete": complete}
        state |= {"inputs": self._inputs or self.inputs}
        self._go_on(state)
        self._held, self._held_tokens = [], 0

    def _go_on(self, state: dict[str, Any]) -> None:
        """Say in the index, on disk first, what is written. Of a complete harvest nothing lies there in parts."""
        began_in_parts = state["complete"] and self._index.pop("in_parts", False)
        self._write_index(self._index | state)
        self._index |= state
        if began_in_parts:
            remove_unnamed(self.folder, self._index)

    def _with_digests(self, index: dict[str, Any]) -> dict[str, Any]:
        """An index of the first version, which had none, as one of this version."""
        shards = []
        for shard in index["shards"]:
            path = copy_of(self.folder / shard["file"])
            shards.append({**shard, "digest": digest(path), "header": header_digest(path)})
        return {**index, "version": VERSION, "shards": shards}

    def _write_index(self, index: dict[str, Any]) -> None:
        self._write(self._state / INDEX, [json.dumps(with_checksum(index), indent=1).encode()])

    def _write(self, path: Path, blocks: Iterable[bytes | memoryview], told: dict[str, str] | None = None) -> None:
        """told: gets the checksums of a shard, taken before it is at its place, which may be a URL."""

        def write(temporary: Path) -> None:
            _write_blocks(temporary, blocks)
            if told is not None:
                told.update(digest=digest(temporary), header=header_digest(temporary))

        try:
            write_whole(path, write)
        except DiskFull as error:
            is_local = url_of(path) is None
            full = f"{path.parent}: the disk is full ({free_space(path.parent)} free)" if is_local else str(error)
            of_part = "" if self._state == self.folder else "of this part "
            raise HarvestInterrupted(
                f"{full} while writing {path.name}; {self._index['tokens']:,} tokens {of_part}are safe; "
                "free some space and run the same harvest again: it goes on from there"
            ) from error


def _write_blocks(path: Path, blocks: Iterable[bytes | memoryview]) -> None:
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)


def _safetensors(batches: list[dict[str, Tensor]]) -> Iterator[bytes | memoryview]:
    """The blocks of a safetensors file with the batches joined, without ever joining them in memory.

    `safetensors.save_file` would need all of it twice, and hides a full disk behind its own error class.
    """
    # Widest elements first: every tensor then starts at a multiple of its element size, as the format asks.
    names = sorted(batches[0], key=lambda name: -batches[0][name].element_size())
    sums = {name: _sha256(batch[name] for batch in batches) for name in names}
    header, end = dict[str, Any](__metadata__={"sha256": json.dumps(sums)}), 0
    for name in names:
        first = batches[0][name]
        shape = [sum(len(batch[name]) for batch in batches), *first.shape[1:]]
        begin, end = end, end + sum(batch[name].numel() for batch in batches) * first.element_size()
        header[name] = {"dtype": _DTYPES[first.dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        for batch in batches:
            yield raw_bytes(batch[name])


def _sha256(tensors: Iterable[Tensor]) -> str:
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(raw_bytes(tensor))
    return hashed.hexdigest()


def _describe(layers: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    for name, tensor in layers.items():
        if tensor.ndim != 2 or not tensor.is_floating_point() or tensor.dtype not in _DTYPES:
            raise InputError(
                f"layer {name!r}: expected a float16, bfloat16, float32 or float64 matrix [tokens, d_in], "
                f"got shape {tuple(tensor.shape)} of {tensor.dtype}"
            )
    return {
        name: {"d_in": tensor.shape[1], "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in layers.items()
    }


def _as_json(request: Mapping[str, Any]) -> Any:
    try:
        return json.loads(json.dumps(dict(request)))
    except (TypeError, ValueError) as error:
        raise InputError(f"request: expected what JSON can hold, got {error}; pass names and numbers") from error


def _empty_index(request: Any) -> dict[str, Any]:
    state = {"layers": {}, "shards": [], "tokens": 0, "batches_done": 0, "complete": False}
    return {"format": FORMAT, "version": VERSION, **state, "request": request}
