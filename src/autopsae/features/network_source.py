"""Straight from a network to tokens, with the letters of its documents that each token covers."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from autopsae.activations.hooks import select_points
from autopsae.activations.presets import LanguageModel, special_ids
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.features.codes import Documents
from autopsae.features.token_table import TokenTable
from autopsae.models.choose import Piece, documents_for, name_document
from autopsae.models.images import ImageNetwork
from autopsae.models.network import Network
from autopsae.models.sequences import SequenceNetwork
from autopsae.models.stream import NetworkBatches, run_network
from autopsae.models.text import TextNetwork

Span = tuple[int, int, str]
"""(first letter, letter after the last, text) of a token; (0, 0, name) for a special one."""


class NetworkSource:
    """The tokens of one point of a network, read anew in every pass: what `encode_source` takes.

    table: which letters each token covers; tokens, documents: how many there are, and the document of each; point:
    the full name of the point.
    """

    @whole_arguments("context", "tokens", "batch_size")
    def __init__(
        self,
        network: Network,
        documents: Iterable[Any],
        *,
        point: str,
        context: int | None = None,
        tokens: int | None = None,
        batch_size: int = 8,
    ) -> None:
        """documents: as the network reads them, in the order of their numbers; point: a hidden state (`7` is `hs7`)
        or a module that gives as many tokens; context: tokens of a piece at most (images: pixels of a side), by
        default the network's own; tokens: how many are read at most, the first ones. No document after them is
        asked for.

        Raises InputError for a point that the network does not have, for tokens or a batch size below 1, and as
        `token_table`.
        """
        for name, number in (("tokens", tokens), ("batch_size", batch_size)):
            if number is not None and number < 1:
                raise InputError(f"{name}: expected at least 1, got {number}")
        [self.point] = select_points(network.model, [point])
        context = network.default_context if context is None else context
        pieces, table = _pieces_and_table(network, documents, context, tokens)
        self.table = table if tokens is None else table.first(tokens)
        self.tokens = len(self.table)
        self._batches = NetworkBatches(
            network=network, pieces=pieces, points=[self.point], context=context, batch_size=batch_size
        )

    @property
    def documents(self) -> Documents:
        """The number of each token's document."""
        return self.table.documents

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_in"]]:
        for layers in run_network(self._batches, tokens=self.tokens):
            yield layers[self.point]


def token_table(network: Network, documents: Iterable[Any], *, context: int | None = None) -> TokenTable:
    """The tokens that a network makes of documents, in the order in which `harvest` and `NetworkSource` keep them.

    context: tokens of a piece at most, as it was for the harvest; by default the network's own.

    Raises InputError for a document that the network cannot read, for a tokenizer that does not tell offsets, and
    for a network of another kind than those of `autopsae.models`.
    """
    return _pieces_and_table(network, documents, network.default_context if context is None else context)[1]


def _pieces_and_table(
    network: Network, documents: Iterable[Any], context: int, tokens: int | None = None
) -> tuple[list[Piece], TokenTable]:
    """Whole documents, until there are at least so many tokens."""
    pieces, numbers, spans = list[Piece](), list[int](), list[Span]()
    for number, document in enumerate(documents_for(network, documents)):
        if tokens is not None and len(spans) >= tokens:
            break
        where, content = name_document(document, number)
        cut = network.pieces(content, where, context)
        laid = _lay_out(network, content, cut, where, context)
        pieces += [
            Piece(document=number, content=piece, tokens=len(of)) for piece, of in zip(cut, laid, strict=True)
        ]
        for of in laid:
            spans += of
            numbers += [number] * len(of)
    if not spans:
        raise InputError("expected at least one document that is not empty, got none; is the source empty?")
    starts, ends, texts = zip(*spans, strict=True)
    table = TokenTable(
        documents=np.array(numbers, np.int64),
        starts=np.array(starts, np.int64),
        ends=np.array(ends, np.int64),
        texts=texts,
    )
    return pieces, table


def _lay_out(network: Network, content: Any, cut: list[Any], where: str, context: int) -> list[list[Span]]:
    """The tokens of each piece of a document."""
    if isinstance(network, TextNetwork):
        return _text(network.language_model, content, cut, where)
    if isinstance(network, SequenceNetwork):
        return _sequence(network, content, cut, context)
    if isinstance(network, ImageNetwork):
        side = context // network.patch
        patches = [(n, n + 1, f"({n // side}, {n % side}) ") for n in range(side * side)]
        return [[*_specials(network.special), *patches] for _ in cut]
    raise InputError(f"{where}: expected a network of texts, sequences or images, got {type(network).__name__}")


def _text(model: LanguageModel, text: str, cut: list[list[int]], where: str) -> list[list[Span]]:
    try:
        coded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    except NotImplementedError as error:
        raise InputError(
            f"{where}: expected a tokenizer that tells the offsets of its tokens, that of {model.name} does not; "
            "load a fast one"
        ) from error
    before, after = special_ids(model.tokenizer)
    # A token that is a part of a character covers the whole character.
    spans = [(a, max(a + 1, b), text[a : max(a + 1, b)]) for a, b in coded["offset_mapping"]]
    laid, at = [], 0
    for ids in cut:
        inside = len(ids) - len(before) - len(after)
        laid.append([*_specials(len(before)), *spans[at : at + inside], *_specials(len(after))])
        at += inside
    if at != len(spans):
        raise InputError(f"{where}: expected {len(spans):,} tokens with offsets, the model reads {at:,}")
    return laid


def _sequence(network: SequenceNetwork, sequence: str, cut: list[str], context: int) -> list[list[Span]]:
    """The pieces are at multiples of the context; those without a letter that the network knows were left out."""
    letters, laid, start = network.letters, list[list[Span]](), 0
    for piece in cut:
        while sequence[start : start + context].upper() != piece:
            start += context
        spans = [(start + n, start + n + 1, letter) for n, letter in enumerate(piece)]
        laid.append([*_specials(len(letters.before)), *spans, *_specials(len(letters.after))])
        start += context
    return laid


def _specials(count: int) -> list[Span]:
    return [(0, 0, "")] * count
