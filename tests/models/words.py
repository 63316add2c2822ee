"""A network of two layers that reads words, a token for each letter, and remembers how often it was run."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autopsae.arrays import InputError
from autopsae.models import Network

D_IN = 16


class Layers(nn.Module):
    """An embedding of the letters and a linear layer on it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.linear = nn.Embedding(128, D_IN), nn.Linear(D_IN, D_IN)
        self.runs = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.runs += 1
        given: Tensor = self.linear(self.embedding(input_ids))
        return given


class Words(Network):
    """A document is a string, a piece at most `context` letters of it."""

    modality = "text"
    default_context = 8

    def __init__(self) -> None:
        super().__init__("words", Layers(), points=("embedding", "linear"))

    def pieces(self, document: Any, where: str, context: int) -> list[Any]:
        if not isinstance(document, str):
            raise InputError(f"{where}: expected a string, got {document!r}")
        return [document[start : start + context] for start in range(0, len(document), context)]

    def size(self, piece: Any, context: int) -> int:
        return len(piece)

    def batch(self, pieces: Sequence[Any], context: int) -> dict[str, Any]:
        longest = max(map(len, pieces))
        ids = torch.tensor([[ord(letter) for letter in piece.ljust(longest)] for piece in pieces])
        lengths = torch.tensor([len(piece) for piece in pieces])
        return {"input_ids": ids, "attention_mask": (torch.arange(longest) < lengths[:, None]).long()}


def tokens_of(network: Words, text: str) -> Tensor:
    """What the linear layer gives for each letter."""
    with torch.no_grad():
        ids = torch.tensor([[ord(letter) for letter in text]])
        given: Tensor = network.model(ids, torch.ones_like(ids))
        return given[0]
