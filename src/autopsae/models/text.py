"""Language models and encoders of texts as networks."""

from collections.abc import Sequence
from typing import Any

from autopsae.activations.batches import batches_of
from autopsae.activations.presets import LanguageModel
from autopsae.models.network import Network


class TextNetwork(Network):
    """A Hugging Face model with its tokenizer. A document is a text, a piece a sequence of token ids."""

    modality = "text"
    default_context = 128

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__(language_model.name, language_model.model)
        self.language_model = language_model

    def pieces(self, document: Any, where: str, context: int) -> list[list[int]]:
        """Sequences of token ids, in the tokenizer's own special tokens (`LanguageModel.sequences`)."""
        return self.language_model.pieces(document, where, context)

    def size(self, piece: Any, context: int) -> int:
        """Its ids, special ones included."""
        return len(piece)

    def batch(self, pieces: Sequence[Any], context: int) -> dict[str, Any]:
        """Ids, padded on the right, with their mask."""
        [batch] = batches_of(self.language_model, [(0, ids) for ids in pieces], len(pieces), {})
        del batch["token.document"]  # the stream knows the documents
        return batch
