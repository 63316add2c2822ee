"""Harvesting texts: what a language model reads, and which of its tokens are kept."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopsae.activations.batches import TextBatches, batches_of, first_batch, forward, parts_of, without_logits
from autopsae.activations.harvest import digest_of, harvest
from autopsae.activations.hooks import hidden_state_names, hooked, select_points
from autopsae.activations.masks import side_of
from autopsae.activations.presets import LanguageModel
from autopsae.activations.room import Room, check_disk, room_for
from autopsae.activations.shards import SHARD_TOKENS
from autopsae.activations.sources import watch
from autopsae.activations.store import Activations
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.modules import evaluation_mode
from autopsae.progress import Progress


@whole_arguments("context", "batch_size", "tokens", "shard_tokens")
def harvest_text(
    language_model: LanguageModel,
    documents: Iterable[str],
    folder: str | Path,
    *,
    layers: Sequence[str] | None = None,
    context: int = 128,
    batch_size: int = 8,
    tokens: int | None = None,
    skip_first: bool = False,
    skip_ids: Collection[int] = (),
    dtype: torch.dtype = torch.float32,
    shard_tokens: int = SHARD_TOKENS,
    timeout: float | None = None,
    announce: Callable[[Room], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Activations]:
    """Harvest `layers` (default: every hidden state) of a Hugging Face model reading `documents`.

    Documents are cut into sequences of at most `context` tokens, special tokens included, and no sequence
    spans two documents. Padding is never kept; the first token of each sequence is not with `skip_first`, and
    those in `skip_ids` are not. `token.document` is the document's number, `token.position` the place in the
    sequence that the model saw. Stops at `tokens` kept tokens. timeout: seconds to wait for a document; announce:
    told what the harvest takes on disk and in memory before the first batch, at the cost of a pass over one token;
    progress: told the tokens kept so far, as "harvest", and how many there will be.

    An encoder-decoder model reads with its encoder; for points in its decoder give `harvest` batches.
    Raises InputError as `harvest` and `LanguageModel.sequences`, and for a batch size that cannot be.
    """
    text = text_to_harvest(
        language_model,
        documents,
        layers=layers,
        context=context,
        batch_size=batch_size,
        tokens=tokens,
        skip_first=skip_first,
        skip_ids=skip_ids,
        timeout=timeout,
    )
    if announce is not None:
        room = text.room(language_model, dtype, shard_tokens=shard_tokens)
        announce(room)
        check_disk(folder, room)
    return harvest(
        language_model.model,
        text.batches,
        folder,
        points=text.points,
        keep=text.keep,
        dtype=dtype,
        end_early=True,
        request=text.request,
        tokens=text.tokens,
        shard_tokens=shard_tokens,
        progress=progress,
    )


@dataclass(frozen=True, kw_only=True)
class TextToHarvest:
    """What a model is to read, and which tokens of it are kept."""

    points: list[str]
    """Names of the points whose activations are kept."""
    batches: TextBatches
    """What the model reads."""
    tokens: int
    """Number of tokens that will be kept."""
    request: dict[str, Any]
    """What identifies the text and how it is read."""

    def keep(self, batch: Any) -> Tensor:
        """Which tokens of a batch are kept, of those that are no padding: bool [rows, length]."""
        return keep_ids(batch, self.request["skip_first"], self.request["skip_ids"])

    def room(self, language_model: LanguageModel, dtype: torch.dtype, *, shard_tokens: int) -> Room:
        """What the harvest will take, at the cost of a pass over one token."""
        one = _one_token(language_model, self.points, self.batches, dtype)
        batch_tokens = self.request["batch_size"] * self.request["context"]
        return room_for(one, tokens=self.tokens, batch_tokens=batch_tokens, shard_tokens=shard_tokens)


def text_to_harvest(
    language_model: LanguageModel,
    documents: Iterable[str],
    *,
    layers: Sequence[str] | None,
    context: int,
    batch_size: int,
    tokens: int | None,
    skip_first: bool,
    skip_ids: Collection[int],
    timeout: float | None = None,
) -> TextToHarvest:
    """Documents cut and batched for a model, up to the last token that is wanted. The arguments and the errors are
    those of `harvest_text`.
    """
    if isinstance(documents, str) or batch_size < 1:
        raise InputError("expected a list of documents and batch_size >= 1; pass [text] for a single text")
    model = language_model.model
    points = select_points(model, layers if layers is not None else hidden_state_names(model))
    sequences, total = [], 0
    for document, ids in language_model.sequences(watch(documents, "document", timeout), context):
        sequences.append((document, ids))
        total += int(keep_ids({"input_ids": torch.tensor([ids], device="cpu")}, skip_first, skip_ids).sum())
        if tokens is not None and total >= tokens:
            total = max(0, tokens)
            break
    batches = batches_of(language_model, sequences, batch_size, without_logits(model, points))
    if side_of(model, points, first_batch(batches)):
        raise InputError(
            f"{points[0]}: expected points in the encoder, which reads the texts, got one outside it; pass "
            "batches with decoder_input_ids to harvest"
        )
    request = {
        "model": language_model.name,
        "text": digest_of((str(document), ids) for document, ids in sequences),
        "context": context,
        "batch_size": batch_size,
        "skip_first": skip_first,
        "skip_ids": sorted(skip_ids),
    }
    return TextToHarvest(points=points, batches=batches, tokens=total, request=request)


def keep_ids(batch: Any, skip_first: bool, skip_ids: Collection[int]) -> Tensor:
    """Which tokens of a batch of texts are kept, where they are no padding: bool [rows, length]."""
    ids = parts_of(batch)["input_ids"]
    mask = ~torch.isin(ids, torch.tensor(sorted(skip_ids), dtype=ids.dtype, device="cpu"))
    if skip_first:
        mask[:, 0] = False
    return mask


def _one_token(
    language_model: LanguageModel, points: Sequence[str], batches: TextBatches, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Each point's activations for the first token of the first sequence."""
    model, (document, ids) = language_model.model, batches.sequences[0]
    [batch] = batches_of(language_model, [(document, ids[:1])], 1, batches.extra)
    with torch.inference_mode(), evaluation_mode(model), hooked(model, points, dtype=dtype) as capture:
        forward(model, batch, 0)
        return capture.take()
