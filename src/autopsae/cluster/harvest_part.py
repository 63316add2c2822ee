"""harvest_part(...): the shards of a harvest that one process writes, and the text that it reads."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open

from autopsae.activations.batches import batches_of, without_logits
from autopsae.activations.harvest import weights_digest, write_batches
from autopsae.activations.harvest_text import TextToHarvest, keep_ids
from autopsae.activations.presets import LanguageModel, load_model
from autopsae.activations.shards import ShardWriter
from autopsae.arrays import InputError
from autopsae.disk import LOCK, hold_lock
from autopsae.files import write_tensors
from autopsae.kinds import anything, fields, list_of, mapping_of
from autopsae.saved import input_errors_of_saved, load_object, save_object

_PART, _TEXT = "autopsae-harvest-part", "autopsae-harvest-text"
_KIND = fields({"shards": list_of(mapping_of(anything)), "layers": mapping_of(anything)})


def harvest_part(
    *,
    model: str,
    device: str,
    text: str,
    sequences: list[int],
    batch_size: int,
    points: list[str],
    dtype: str,
    keep: dict[str, Any],
    tokens: int,
    shard_tokens: int,
    first_shard: int,
    folder: str,
    weights: str,
    result: str,
) -> None:
    """The task of some shards: they are written into `folder`, and what the index says of them into `result`.

    sequences: [first, end] of those in the file `text`; tokens: of these shards; weights: the digest that the model
    must have.
    """
    state = Path(result).with_suffix("")
    request = {"first_shard": first_shard, "tokens": tokens, "sequences": sequences, "weights": weights}
    sizes = {"shard_tokens": shard_tokens, "first": first_shard}
    # An engine may give a task to a second process, because it has lost sight of the first one, which still runs.
    with _tidy_when_told(), hold_lock(state / LOCK, what=state, wait=True):
        writer = ShardWriter(folder, request=request, in_parts=True, state=state, **sizes)
        if not writer.complete:
            loaded = _load_once(model, device)
            _check_weights(loaded, weights)
            extra = without_logits(loaded.model, points)
            batches = batches_of(loaded, [*read_text(Path(text), *sequences)], batch_size, extra)
            write_batches(
                loaded.model,
                iter(batches),
                writer,
                points=points,
                keep=lambda batch: keep_ids(batch, **keep),
                dtype=getattr(torch, dtype),
                tokens=tokens,
                end_early=True,
            )
        save_object(result, format=_PART, content=writer.shards_and_layers())


@contextmanager
def _tidy_when_told() -> Iterator[None]:
    """In this context the first SIGTERM raises KeyboardInterrupt where it would end the process at once: locks are
    removed, and what is only begun. The next one ends the process.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt


@lru_cache(maxsize=1)
def _load_once(model: str, device: str) -> LanguageModel:
    """The model, kept for the next job of this process."""
    return load_model(model, device=device)


def _check_weights(loaded: LanguageModel, weights: str) -> None:
    if (got := weights_digest(loaded.model)) != weights:
        raise InputError(
            f"{loaded.name}: expected the weights with which the harvest began ({weights}), got others ({got}) in "
            "a process of the engine; give all machines the same model"
        )


def load_part(path: Path) -> dict[str, Any]:
    """What the index is to say of the shards of a part. Raises InputError as `saved.load_object`."""
    return load_object(path, format=_PART, kind=_KIND)


def save_text(work: Path, text: TextToHarvest) -> Path:
    """The file with all sequences, which the jobs read. Its name tells one text from another."""
    path = work / f"text-{text.request['text']}.safetensors"
    numbers, ids = zip(*text.batches.sequences, strict=True)
    tensors = {
        "document": torch.tensor(numbers, device="cpu"),
        "end": torch.tensor([len(one) for one in ids], device="cpu").cumsum(0),
        "ids": torch.tensor([id for one in ids for id in one], device="cpu"),
    }
    work.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors)
    return path


def read_text(path: Path, first: int, end: int) -> Iterator[tuple[int, list[int]]]:
    """(number of the document, token ids) of the sequences from `first` to `end`."""
    with input_errors_of_saved(path, _TEXT), safe_open(path, framework="pt") as opened:
        ends = [0, *opened.get_tensor("end").tolist()]
        documents = opened.get_slice("document")[first:end].tolist()
        borders = ends[first : end + 1]
        ids = opened.get_slice("ids")[borders[0] : borders[-1]].tolist()
    for document, (begin, stop) in zip(documents, pairwise(borders), strict=True):
        yield document, ids[begin - borders[0] : stop - borders[0]]
