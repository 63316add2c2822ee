"""What every network has, whatever it reads."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from autopsae.models import Network

pytestmark = pytest.mark.quick


class Letters(Network):
    """Reads words, a token for each letter."""

    modality = "text"
    default_context = 8

    def pieces(self, document: Any, where: str, context: int) -> list[Any]:
        return [document[start : start + context] for start in range(0, len(document), context)]

    def size(self, piece: Any, context: int) -> int:
        return len(piece)

    def batch(self, pieces: Sequence[Any], context: int) -> dict[str, Any]:
        return {"input": torch.tensor([[ord(letter) for letter in piece] for piece in pieces]).float()}


def test_a_network_without_hidden_states_has_no_points_of_its_own() -> None:
    assert Letters("letters", nn.Linear(3, 2)).points == []
