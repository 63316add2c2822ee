"""Where `features` gets its tokens from: activations, or a model that reads documents."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from autopsae.activations.hooks import select_points
from autopsae.activations.store import open_activations
from autopsae.arrays import InputError, Tokens
from autopsae.cli.documents import check_unread, documents_of, load_source
from autopsae.cli.options.features import FeaturesOptions
from autopsae.cli.options.shared import Padding
from autopsae.features.codes import Documents
from autopsae.features.network_source import NetworkSource
from autopsae.features.token_table import TokenTable, read_token_table
from autopsae.memory import check_memory
from autopsae.models.choose import documents_for
from autopsae.passes import source_documents
from autopsae.progress import Progress, tell_progress
from autopsae.words import list_names

TOKENS = 100_000
"""Tokens that a model makes at most, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Tokens that can be read as often as wanted."""

    tokens: Tokens
    """The activations."""
    documents: Documents | None
    """The number of each token's document; None where the files do not tell."""
    table: TokenTable | None
    """Which letters each token covers; None where that is not known."""
    is_cut: bool = False
    """Whether documents after the last one may not have been read."""

    @property
    def is_counted(self) -> Bool[np.ndarray, "tokens"] | None:
        """The tokens that cover letters, which count; None where all do."""
        return None if self.table is None else self.table.is_letter


class FromFiles:
    """Activations of one layer."""

    def __init__(self, options: FeaturesOptions) -> None:
        check_unread(options.reading)
        if options.tasks:
            raise InputError("--tasks: expected a model, which reads their texts, got activations")
        padding, path = options.padding, Path(options.source)
        self._opened = open_activations(path, options.layer, lengths=padding.lengths, mask=padding.mask)
        self._table = options.token_table
        self.layer = self._opened.layer

    def read(self) -> Source:
        """The whole source. The table tells the documents where the files do not."""
        table = None if self._table is None else read_token_table(self._table)
        documents = source_documents(self._opened)
        if table is not None:
            documents = table.documents if documents is None else documents
            table.check_source(documents)
        return Source(tokens=self._opened, documents=documents, table=table)


class FromModel:
    """One layer of a model. It runs once over what it reads; the activations of the layer are held."""

    def __init__(self, options: FeaturesOptions, device: str | None, progress: Progress) -> None:
        if options.token_table is not None or options.padding != Padding():
            raise InputError(
                "--token-table, --lengths and --mask: expected with activations; a model tells its tokens itself"
            )
        self._reading, self._progress = options.reading, progress
        self._documents = documents_of(options.reading)
        self._network = load_source(options.source, device)
        self.layer = self._point(options.layer)

    def read(self) -> Source:
        """What the options say that it reads."""
        most = TOKENS if self._reading.tokens is None else self._reading.tokens
        return self._run(documents_for(self._network, self._documents), most)

    def read_texts(self, texts: Iterable[str]) -> Source:
        """All of some texts."""
        return self._run(texts, None)

    def _run(self, documents: Iterable[Any], most: int | None) -> Source:
        source = NetworkSource(
            self._network,
            documents,
            point=self.layer,
            context=self._reading.context,
            tokens=most,
            batch_size=self._reading.batch_size,
        )
        parts = list[torch.Tensor]()
        for batch in tell_progress(source, self._progress, "reading", source.tokens):
            if not parts:
                needed = 4 * source.tokens * batch.shape[1]
                check_memory(needed, torch.device("cpu"), "for the activations", "read fewer --tokens")
            parts.append(batch.cpu())
        held = torch.cat(parts)
        if len(held) != source.tokens:
            raise InputError(
                f"{self.layer}: expected a point that gives a row for each of {source.tokens:,} tokens, got "
                f"{len(held):,}; name a hidden state"
            )
        return Source(tokens=held, documents=source.documents, table=source.table, is_cut=source.tokens == most)

    def _point(self, layer: str | None) -> str:
        points = self._network.points
        if layer is None and len(points) != 1:
            raise InputError(
                f"{self._network.name}: has {len(points)} layers ({list_names(points)}); say which, --layer"
            )
        return select_points(self._network.model, [layer or points[0]])[0]
