"""Which pieces of which documents a network reads where there is more than is wanted: some of all documents."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autopsae.activations.presets import python_reference_text
from autopsae.activations.sources import watch
from autopsae.arrays import InputError
from autopsae.models.network import Document, Network
from autopsae.seeds import hash_seed, keys

_SHORTEST = 4
"""Tokens of a document on average, at least, for as many documents to be kept as are needed."""
_KEPT = 64
"""Documents that are kept in any case."""

_INPUTS = {
    "image": "images (--images DIR, or documents from models.pictures_in)",
    "protein": "proteins (--sequences FILE, or documents from models.sequences_in)",
    "dna": "DNA (--sequences FILE, or documents from models.sequences_in)",
}
"""What a network that reads no text must be given."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece that was chosen."""

    document: int
    """The number of its document in the source."""
    content: Any
    """As the network's `pieces` gave it."""
    tokens: int
    """Tokens that the network makes of it."""


def choose_pieces(
    network: Network, documents: Iterable[Any], *, tokens: int, context: int, seed: int = 0
) -> list[Piece]:
    """Pieces of documents until they make up `tokens` tokens, or all.

    Each document gives one piece before any gives a second. The order of the documents is drawn, and so is that of
    a document's pieces. So a document has the same chance wherever it stands in the source, and a long one does not
    take the place of others. A source is read to its end, and of its documents as many are held as could be needed.
    The pieces of a document stand side by side.

    documents: a `Document` has a name for messages; others are called "document 7", from 0.

    Raises InputError for a source that fails or has no document with a piece, and as `Network.pieces`.
    """
    held = _pick_some(documents, tokens // _SHORTEST + _KEPT, seed)
    cut: dict[int, list[Any]] = {}
    chosen: list[tuple[int, int, Piece]] = []
    total, turn, more = 0, 0, True
    while more and total < tokens:
        more = False
        for rank, (number, document) in enumerate(held):
            if total >= tokens:
                break
            if rank not in cut:
                name, content = name_document(document, number)
                cut[rank] = network.pieces(content, name, context)
            if turn < len(cut[rank]):
                place = _draw_order(len(cut[rank]), seed, number)[turn]
                size = network.size(cut[rank][place], context)
                piece = Piece(document=number, content=cut[rank][place], tokens=size)
                chosen.append((rank, place, piece))
                total, more = total + piece.tokens, True
        turn += 1
    if not chosen:
        raise InputError("expected at least one document that is not empty, got none; is the source empty?")
    return [piece for _, _, piece in sorted(chosen, key=lambda at: at[:2])]


def documents_for(network: Network, documents: Iterable[Any] | None) -> Iterable[Any]:
    """The documents; the Python reference where there are none and the network reads texts.

    Raises InputError for none for another network, and for a single text in the place of documents.
    """
    if isinstance(documents, str):
        raise InputError("expected a list of documents, got a string; pass [text] for a single text")
    if documents is not None:
        return documents
    if network.modality != "text":
        raise InputError(f"{network.name}: expected {_INPUTS[network.modality]}, got nothing to read")
    return python_reference_text()


def name_document(document: Any, number: int) -> Document:
    """The document with a name for messages: its own, or "document 7"."""
    return document if isinstance(document, Document) else Document(f"document {number}", document)


def _pick_some(documents: Iterable[Any], most: int, seed: int) -> list[tuple[int, Any]]:
    """At most so many of the documents with their numbers, each equally likely, in an order that is drawn."""
    number_of = hash_seed(seed, "documents of a source")
    held: list[tuple[int, int, Any]] = []  # the largest key first
    for number, document in enumerate(watch(documents, "document")):
        key = -int(keys(np.array([number]), number_of)[0])
        if len(held) < most:
            heapq.heappush(held, (key, number, document))
        elif key > held[0][0]:
            heapq.heapreplace(held, (key, number, document))
    return [(number, document) for _, number, document in sorted(held, key=lambda item: -item[0])]


def _draw_order(pieces: int, seed: int, document: int) -> list[int]:
    """The order in which the pieces of a document are taken."""
    drawn = keys(np.arange(pieces), hash_seed(seed, f"pieces of document {document}"))
    return [int(place) for place in np.argsort(drawn)]
