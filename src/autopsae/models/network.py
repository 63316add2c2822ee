"""What a network is to a diagnosis: a module, its points, and how raw documents become batches of its inputs.

A document is what belongs together: a text, an image, a protein, a stretch of DNA. It is cut into pieces that the
network can read at once, and a batch is made of pieces.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from torch import nn

from autopsae.activations.hooks import hidden_state_names

Modality = Literal["text", "image", "protein", "dna"]


class Document(NamedTuple):
    """A document with the name that messages call it by."""

    name: str
    """By which messages call it."""
    content: Any
    """What the network reads: a text, a sequence, a picture."""


class Network(ABC):
    """A network in evaluation mode. A modality has one class, which says how its documents are read."""

    modality: ClassVar[Modality]
    """What its documents are."""
    default_context: int
    """Tokens of a piece at most, unless told otherwise; for images, pixels of a side."""

    def __init__(self, name: str, model: nn.Module, *, points: Sequence[str] = ()) -> None:
        """name: what it was loaded by; points: those to look at, for a model without hidden states."""
        self.name, self.model, self._points = name, model, points

    @property
    def points(self) -> list[str]:
        """The points (`activations.hooks`) that are looked at unless told otherwise, in the model's order."""
        return list(self._points) or hidden_state_names(self.model)

    @abstractmethod
    def pieces(self, document: Any, where: str, context: int) -> list[Any]:
        """The pieces of a document, in order. where: what messages call the document.

        Raises InputError for a document that cannot be read, and for a context that the network cannot have.
        """

    @abstractmethod
    def size(self, piece: Any, context: int) -> int:
        """Tokens that the network makes of a piece."""

    @abstractmethod
    def batch(self, pieces: Sequence[Any], context: int) -> dict[str, Any]:
        """The arguments of the network's forward pass, with `attention_mask` where pieces were padded."""
