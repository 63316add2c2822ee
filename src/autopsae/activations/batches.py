"""Batches of a network's inputs: what one is, how it is run, which of its tokens are kept, how texts become some.

A batch is a tensor, for `model(batch)`, or a dict with tensors, for `model(**batch)` without the names `token.*`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autopsae.activations.presets import LanguageModel
from autopsae.arrays import InputError


def parts_of(batch: Any) -> dict[str, Any]:
    """What a batch is made of, by name. Raises InputError for what is no batch."""
    if isinstance(batch, Tensor):
        return {"": batch}
    if isinstance(batch, Mapping) and any(isinstance(value, Tensor) for value in batch.values()):
        return dict(batch)
    raise InputError(f"expected batches that are tensors or dicts of tensors, got {type(batch).__name__}")


def row_count(batch: Any) -> int:
    return len(next(value for value in parts_of(batch).values() if isinstance(value, Tensor)))


def first_batch(batches: Iterable[Any]) -> Any:
    """The first of the batches. Raises InputError where there is none, or where it would be lost by looking."""
    if iter(batches) is batches:
        raise InputError("expected batches that can be iterated more than once, got an iterator; pass a list")
    for batch in batches:
        return batch
    raise InputError("expected at least one batch, got none; is the source empty?")


def forward(model: nn.Module, batch: Any) -> Any:
    """What the model returns for a batch, on the model's device."""
    device = next((parameter.device for parameter in model.parameters()), None)
    inputs = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in parts_of(batch).items()
        if not name.startswith("token.")
    }
    return model(*inputs.values()) if isinstance(batch, Tensor) else model(**inputs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the context every module is in evaluation mode, after it in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def kept_mask(batch: Any, keep: Callable[[Any], Tensor] | None, shape: torch.Size) -> Tensor:
    """Where both the batch's `attention_mask` and `keep(batch)` are True; all of `shape` without either."""
    masks = [parts_of(batch).get("attention_mask"), None if keep is None else keep(batch)]
    given = [mask.bool().cpu() for mask in masks if mask is not None] or [torch.ones(shape, dtype=torch.bool)]
    if given[0].shape != given[-1].shape:
        raise InputError(
            f"keep: expected the attention mask's shape {tuple(given[0].shape)}, got {tuple(given[-1].shape)}"
        )
    return given[0] & given[-1]


@dataclass(frozen=True, kw_only=True)
class TextBatches:
    """Padded batches of (document, ids). Padding on the right leaves the tokens' positions as they are."""

    sequences: list[tuple[int, list[int]]]
    batch_size: int
    pad_id: int
    extra: dict[str, Any]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self.sequences), self.batch_size):
            documents, texts = zip(*self.sequences[start : start + self.batch_size], strict=True)
            longest = max(map(len, texts))
            rows = [ids + [self.pad_id] * (longest - len(ids)) for ids in texts]
            lengths = torch.tensor([len(ids) for ids in texts])
            yield {
                "input_ids": torch.tensor(rows),
                "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
                "token.document": torch.tensor(documents),
                **self.extra,
            }


def text_batches(
    language_model: LanguageModel, documents: Iterable[str], *, context: int = 128, batch_size: int = 8
) -> TextBatches:
    """Documents as `harvest_text` reads them: sequences of at most `context` tokens, none across two documents."""
    return TextBatches(
        sequences=list(language_model.sequences(documents, context)),
        batch_size=batch_size,
        pad_id=language_model.tokenizer.pad_token_id or 0,
        extra={},
    )
