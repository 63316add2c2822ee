"""Batches of a network's inputs: what one is, how it is run, how texts become some.

A batch is a tensor, for `model(batch)`, or a dict with tensors, for `model(**batch)` without the names `token.*`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from autopsae.activations.hooks import hidden_state_names
from autopsae.activations.presets import LanguageModel, embedding_rows
from autopsae.activations.sources import one_line, watch
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError


def parts_of(batch: Any) -> dict[str, Any]:
    """What a batch is made of, by name. Raises InputError for what is no batch."""
    if isinstance(batch, Tensor) and batch.ndim:
        return {"": batch}
    if isinstance(batch, Mapping) and any(isinstance(value, Tensor) for value in batch.values()):
        return dict(batch)
    raise InputError(f"expected batches that are tensors or dicts of tensors, got {type(batch).__name__}")


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has values in rows of one length: it is not sparse, not nested, and not without memory."""
    return tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta


def row_count(batch: Any) -> int:
    """The rows of a batch: the length of its first tensor that has an axis; 0 where it has none."""
    return next((len(value) for value in parts_of(batch).values() if isinstance(value, Tensor) and value.ndim), 0)


def first_batch(batches: Iterable[Any], timeout: float | None = None) -> Any:
    """The first of the batches.

    Raises InputError as `watch`, where there is none, and for an iterator, of which looking would take it away.
    """
    if isinstance(batches, Iterator):
        raise InputError("expected batches that can be iterated more than once, got an iterator; pass a list")
    for batch in watch(batches, "batch", timeout):
        return batch
    raise InputError("expected at least one batch, got none; is the source empty?")


def forward(model: nn.Module, batch: Any, number: int) -> Any:
    """What the model returns for a batch, on the model's device. number: the batch's, for messages.

    Raises InputError for token ids that the model does not know, and for an exception of the model's own.
    """
    inputs = {name: value for name, value in parts_of(batch).items() if not name.startswith("token.")}
    device = next((parameter.device for parameter in model.parameters()), None)
    try:
        _check_known(model, inputs, number)
        placed = {k: value.to(device) if isinstance(value, Tensor) else value for k, value in inputs.items()}
        return model(*placed.values()) if isinstance(batch, Tensor) else model(**placed)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_why_it_failed(error, inputs, number)) from error


def _check_known(model: nn.Module, inputs: Mapping[str, Any], number: int) -> None:
    """InputError for ids without an embedding, before the run: on a GPU it would spoil the process."""
    ids = inputs.get("", inputs.get("input_ids"))
    rows = embedding_rows(model)
    if rows is None or not isinstance(ids, Tensor) or ids.is_floating_point() or not ids.numel():
        return
    if (largest := int(ids.max())) >= rows:
        raise InputError(
            f"batch {number}: expected token ids under {rows:,}, as many as the model has embeddings, got "
            f"{largest:,}; make the ids with the tokenizer that the model was trained with"
        )


def _why_it_failed(error: Exception, inputs: Mapping[str, Any], number: int) -> str:
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    got = ", ".join(
        f"{name or 'a tensor'} {tuple(value.shape)} of {value.dtype}" for name, value in tensors.items()
    )
    # On the CPU it is a RuntimeError of the allocator.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
        return f"batch {number}: expected to fit in memory, got {got} ({one_line(error)}); pass smaller batches"
    return (
        f"batch {number}: the model raised {one_line(error)}, given {got}; run the model on this batch alone, and "
        "give it what its forward pass expects"
    )


@dataclass(frozen=True, kw_only=True)
class TextBatches:
    """Padded batches of (document, ids). Padding on the right leaves the tokens' positions as they are."""

    sequences: list[tuple[int, list[int]]]
    """(number of the document, token ids) of each sequence."""
    batch_size: int
    """Sequences per batch."""
    pad_id: int
    """The id that fills short sequences."""
    decoder_start: int | None
    """The one token that the decoder of an encoder-decoder model is given; None for other models."""
    extra: dict[str, Any]
    """Further arguments for the model."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self.sequences), self.batch_size):
            documents, texts = zip(*self.sequences[start : start + self.batch_size], strict=True)
            longest = max(map(len, texts))
            rows = [ids + [self.pad_id] * (longest - len(ids)) for ids in texts]
            lengths = torch.tensor([len(ids) for ids in texts], device="cpu")
            first = [[self.decoder_start]] * len(rows)
            start_ids = None if self.decoder_start is None else torch.tensor(first, device="cpu")
            yield {
                "input_ids": torch.tensor(rows, device="cpu"),
                "attention_mask": (torch.arange(longest, device="cpu") < lengths[:, None]).long(),
                "token.document": torch.tensor(documents, device="cpu"),
                **({} if start_ids is None else {"decoder_input_ids": start_ids}),
                **self.extra,
            }


@whole_arguments("context", "batch_size")
def text_batches(
    language_model: LanguageModel, documents: Iterable[str], *, context: int = 128, batch_size: int = 8
) -> TextBatches:
    """Documents as `harvest_text` reads them: sequences of at most `context` tokens, none across two documents."""
    read = watch(documents, "document")
    return batches_of(language_model, list(language_model.sequences(read, context)), batch_size, {})


def batches_of(
    language_model: LanguageModel,
    sequences: list[tuple[int, list[int]]],
    batch_size: int,
    extra: dict[str, Any],
) -> TextBatches:
    """Sequences for one model. extra: further arguments of its forward pass."""
    return TextBatches(
        sequences=sequences,
        batch_size=batch_size,
        pad_id=language_model.tokenizer.pad_token_id or 0,
        decoder_start=_decoder_start(language_model.model),
        extra=extra,
    )


def _decoder_start(model: nn.Module) -> int | None:
    """What a decoder begins with. The encoder reads the texts and does not depend on it, so that any id serves."""
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) is not True:
        return None
    return getattr(config, "decoder_start_token_id", None) or 0


def without_logits(model: nn.Module, points: Sequence[str]) -> dict[str, Any]:
    """The argument that spares the output layer where no point needs it: its product with a vocabulary of 262,144
    would cost more than all layers of a small model together.
    """
    inner = (*hidden_state_names(model), f"{getattr(model, 'base_model_prefix', '')}.")
    spared = "logits_to_keep" in signature(model.forward).parameters
    return {"logits_to_keep": 1} if spared and all(point.startswith(inner) for point in points) else {}
