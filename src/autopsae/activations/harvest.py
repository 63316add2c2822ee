"""Harvesting: run a model over batches, keep the tokens of the hooked points on disk."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from autopsae.activations.batches import first_batch, is_plain, parts_of, row_count
from autopsae.activations.early_end import passes_of
from autopsae.activations.hooks import select_points
from autopsae.activations.masks import keep_first, keep_mask, side_of
from autopsae.activations.room import check_disk, room_for
from autopsae.activations.shards import SHARD_TOKENS, ShardWriter
from autopsae.activations.sources import watch
from autopsae.activations.store import Activations, open_layers
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.disk import LOCK, hold_lock
from autopsae.files import raw_bytes
from autopsae.modules import evaluation_mode
from autopsae.progress import Progress


@whole_arguments("tokens", "shard_tokens")
def harvest(
    model: nn.Module,
    batches: Iterable[Any],
    folder: str | Path,
    *,
    points: Sequence[str],
    keep: Callable[[Any], Bool[Tensor, "*batch"]] | None = None,
    dtype: torch.dtype = torch.float32,
    request: Mapping[str, Any] | None = None,
    tokens: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    timeout: float | None = None,
    end_early: bool = False,
    progress: Progress | None = None,
) -> dict[str, Activations]:
    """Run `model` over `batches`, keep the tokens of `points` in `folder`, and open them: point -> Activations.

    A batch is a tensor, for `model(batch)`, or a dict with tensors, for `model(**batch)`. Its tokens are kept where
    its `attention_mask` and `keep(batch)` are True or 1, at most `tokens` in all (`masks` says what a mask is).
    For points in the decoder of an encoder-decoder model, `decoder_attention_mask` and `decoder_input_ids` take the
    places of the encoder's; its hidden states are the encoder's. Beside each token are stored
    `token.document` (the number of its row), `token.position` (its place in the row) and, where the batch has
    `input_ids`, `token.id`; a batch may bring its own integers, per row or token, under such names, which the
    model does not see. end_early: leave out what the model computes after the last point, where the first batch
    shows that the points then give the same to the bit. progress: told the tokens kept, as "harvest".

    An interrupted harvest goes on where it stopped when it is called again with the same arguments; a
    finished one is only opened. What was asked, with a digest of the weights and of the first batch, is kept
    beside the shards, and a folder with another request is refused; `request` adds what else identifies it.
    timeout: seconds to wait for a batch (see `watch`); by default there is no limit.

    Raises InputError for a point that the model does not have, a folder that holds anything else or that another
    process writes, batches of an unknown kind, a mask that is not bool or 0/1 of the tokens' shape, points of an
    encoder and a decoder together, an exception of the model or of the source of the batches, a disk with too
    little room for `tokens` tokens, and when no token is kept. Shards that were written stay.
    """
    points = select_points(model, points)
    asked = request_of(model, batches, points, dtype=dtype, tokens=tokens, request=request, timeout=timeout)
    with hold_lock(Path(folder) / LOCK, what=folder):
        writer = ShardWriter(folder, request=asked, shard_tokens=shard_tokens)
        if not writer.complete:

            def check_room(first: Mapping[str, Tensor], batch_tokens: int) -> None:
                if tokens is not None:
                    asked_for = {"tokens": tokens, "batch_tokens": batch_tokens, "shard_tokens": shard_tokens}
                    check_disk(folder, room_for(first, **asked_for))

            write_batches(
                model,
                watch(batches, "batch", timeout),
                writer,
                points=points,
                keep=keep,
                dtype=dtype,
                tokens=tokens,
                end_early=end_early,
                check_room=check_room,
                progress=progress,
            )
    layers = open_layers(folder)
    return {point: layers[point] for point in points}


def request_of(
    model: nn.Module,
    batches: Iterable[Any],
    points: Sequence[str],
    *,
    dtype: torch.dtype,
    tokens: int | None,
    request: Mapping[str, Any] | None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """What identifies a harvest, and is kept beside its shards. The arguments are those of `harvest`."""
    return {
        **(request or {}),
        "points": [*points],
        "dtype": str(dtype).removeprefix("torch."),
        "tokens": tokens,
        "weights": weights_digest(model),
        "first_batch": digest_of(parts_of(first_batch(batches, timeout)).items()),
    }


def write_batches(
    model: nn.Module,
    batches: Iterator[Any],
    writer: ShardWriter,
    *,
    points: Sequence[str],
    keep: Callable[[Any], Bool[Tensor, "*batch"]] | None,
    dtype: torch.dtype,
    tokens: int | None,
    end_early: bool,
    check_room: Callable[[Mapping[str, Tensor], int], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Run `model` over the batches that are not done, and finish the writer. The arguments are those of `harvest`.

    check_room: told what is kept of the first of these batches, and how many tokens that has, before it is written.
    """
    first = writer.batches_done
    with (
        torch.inference_mode(),
        evaluation_mode(model),
        passes_of(model, points, dtype=dtype, end_early=end_early) as passes,
    ):
        for number, batch, document, inputs in _undone(batches, writer, tokens):
            capture = passes.run(batch, number)
            side = side_of(model, points, batch)
            mask = keep_mask(batch, keep, capture.shape, side)
            if tokens is not None:
                mask = keep_first(mask, tokens - writer.tokens)
            activations = capture.take(mask)
            if check_room and number == first:
                check_room(activations, mask.numel())
            writer.add(activations, _labels(batch, mask, document, side), inputs=inputs)
            if progress:
                progress("harvest", writer.tokens, tokens)
    if not writer.tokens:
        raise InputError("expected at least one token to keep, got none; check `tokens`, `keep` and the mask")
    writer.finish()


def _undone(batches: Iterator[Any], writer: ShardWriter, tokens: int | None) -> Iterator[tuple[int, Any, int, str]]:
    """The batches still to be run, until tokens suffice: (number, batch, rows before it, digest of all up to it).

    Raises InputError where the batches that were run before are not those of the source now.
    """
    done, before, rows, inputs = writer.batches_done, writer.inputs, 0, hashlib.sha256()
    for number in count():
        # Before the next batch is asked for: a source need not have more than what is wanted.
        if tokens is not None and writer.tokens >= tokens:
            return
        try:
            batch = next(batches)
        except StopIteration:
            _check_inputs(writer, number >= done)
            return
        if number == done:
            _check_inputs(writer, before in (None, inputs.hexdigest()))
        inputs.update(digest_of(parts_of(batch).items()).encode())
        if number >= done:
            yield number, batch, rows, inputs.hexdigest()
        rows += row_count(batch)


def _check_inputs(writer: ShardWriter, same: bool) -> None:
    if not same:
        raise InputError(
            f"{writer.folder}: expected the {writer.batches_done:,} batches that the harvest began with, got "
            "others; pass the same ones to go on, or another folder"
        )


def _labels(batch: Any, mask: Tensor, rows_before: int, side: str) -> dict[str, Tensor]:
    """Per kept token: the number of its row, its place in the row, its id; or what the batch says instead."""
    parts = parts_of(batch)
    place = torch.arange(mask.numel(), device="cpu").view(mask.shape)
    per_row = max(1, mask.numel() // max(1, row_count(batch)))
    labels = {"document": rows_before + place // per_row, "position": place % per_row}
    ids = parts.get(f"{side}input_ids")
    if isinstance(ids, Tensor) and ids.shape == mask.shape:
        labels["id"] = ids
    labels |= {name[6:]: value for name, value in parts.items() if name.startswith("token.")}
    return {name: _spread(name, value.cpu(), mask.shape)[mask] for name, value in labels.items()}


def _spread(name: str, label: Tensor, shape: torch.Size) -> Tensor:
    """One label per token from one per row or per token."""
    aligned = label.reshape(*label.shape, *[1] * (len(shape) - label.ndim))
    if aligned.ndim != len(shape) or any(
        own not in (1, full) for own, full in zip(aligned.shape, shape, strict=True)
    ):
        raise InputError(
            f"token.{name}: expected one for each row or token of {tuple(shape)}, got {tuple(label.shape)}"
        )
    return aligned.expand(shape)


def digest_of(parts: Iterable[tuple[str, Any]]) -> str:
    """Tells values from others: names, and for tensors shapes, types and values."""
    digest = hashlib.sha256()
    for name, value in parts:
        digest.update(name.encode())
        if isinstance(value, Tensor) and is_plain(value):
            digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
            digest.update(raw_bytes(value))
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:16]


def weights_digest(model: nn.Module) -> str:
    """Tells the weights of a model from others, from a few values of each."""
    return digest_of((name, _few_values(value)) for name, value in model.state_dict().items())


def _few_values(value: Any) -> Any:
    """A few values per weight: enough to tell checkpoints apart, without reading all of a large model."""
    return value.reshape(-1)[:: max(1, value.numel() // 64)] if isinstance(value, Tensor) else value
