"""Statistics of all layers of a network in one run over its inputs: nothing is written, and memory is bounded."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autopsae.activations.batches import without_logits
from autopsae.activations.early_end import passes_of
from autopsae.activations.masks import keep_first, keep_mask, side_of
from autopsae.arrays import InputError, chunks
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.kernels.workspace import Workspace
from autopsae.memory import check_memory
from autopsae.models.choose import Piece
from autopsae.models.network import Network
from autopsae.modules import evaluation_mode
from autopsae.progress import Progress
from autopsae.statistics.collect import Collector, Statistics
from autopsae.statistics.room import bytes_of_collector

BLOCK = 2048
"""Tokens of a layer that are held before they are added to its statistics: few large blocks cost less."""


@dataclass(frozen=True, kw_only=True)
class NetworkBatches:
    """Pieces as batches of a network's inputs; iterated as often as wanted, and what `harvest` takes."""

    network: Network
    """What reads them."""
    pieces: Sequence[Piece]
    """As `choose_pieces` chose them."""
    points: Sequence[str]
    """What will be looked at: logits are not computed where no point needs them."""
    context: int
    """Tokens of a piece at most; for images, pixels of a side."""
    batch_size: int
    """Pieces of a batch."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        extra = without_logits(self.network.model, self.points)
        for start in range(0, len(self.pieces), self.batch_size):
            some = self.pieces[start : start + self.batch_size]
            documents = torch.tensor([piece.document for piece in some], device="cpu")
            batch = self.network.batch([piece.content for piece in some], self.context)
            yield {**batch, "token.document": documents, **extra}


def run_network(
    batches: NetworkBatches, *, tokens: int, dtype: torch.dtype = torch.float32
) -> Iterator[dict[str, Tensor]]:
    """Run the network over the batches, and yield what each point gave: {point: [tokens, d_in]}.

    Padding is left out. Stops at `tokens` tokens. Raises InputError as `harvest`.
    """
    model, points, left = batches.network.model, batches.points, tokens
    with evaluation_mode(model), passes_of(model, points, dtype=dtype) as passes:
        for number, batch in enumerate(batches):
            # Around the pass alone: a mode that is on at a yield is on in what the caller does with the tokens, and
            # tensors made in inference mode cannot be changed in place after it.
            with torch.no_grad():
                capture = passes.run(batch, number)
            mask = keep_first(keep_mask(batch, None, capture.shape, side_of(model, points, batch)), left)
            left -= int(mask.sum())
            yield capture.take(mask)
            if left <= 0:
                return


def collect_layers(
    batches: Iterable[dict[str, Tensor]],
    *,
    seed: int = 0,
    sample_tokens: int = SAMPLE_TOKENS,
    wide: int | None = None,
    total: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Statistics]]:
    """(layer, its statistics), as `collect` has them of one layer, from batches {layer: [tokens, d_in]}.

    All batches are read before the first layer is given. A layer is let go once it is given, and the covariances of
    a wide layer are made only then: those of all layers are never held at once.

    sample_tokens, wide: as for `collect`; total: how many tokens there will be; progress: told the tokens read, as
    "reading".

    Raises InputError as `collect` with the name of the layer, and where the statistics of all layers would not fit
    in memory: that is known after the first batch.
    """
    layers: dict[str, _Layer] = {}
    memory, read = Workspace(), 0
    for batch in batches:
        if not layers:
            widths = {name: x.shape[1] for name, x in batch.items()}
            needed = bytes_of_layers(widths.values(), sample_tokens=sample_tokens, wide=wide)
            what = f"for the statistics of {len(batch)} layers at once"
            check_memory(needed, torch.device("cpu"), what, "name fewer layers")
            collector = partial(Collector, sample_tokens=sample_tokens, seed=seed, wide=wide, memory=memory)
            layers = {name: _Layer(name, collector()) for name in batch}
        for name, x in batch.items():
            layers[name].add(x)
        read += len(next(iter(batch.values())))
        if progress:
            progress("reading", read, total)
    if not read:
        raise InputError("expected at least one token, got none; check the source and the mask")
    for name in [*layers]:
        yield name, layers.pop(name).statistics()


def bytes_of_layers(widths: Iterable[int], *, sample_tokens: int, wide: int | None) -> int:
    """What `collect_layers` holds at once of layers of these widths."""
    return sum(bytes_of_collector(d_in, BLOCK, sample_tokens=sample_tokens, wide=wide) for d_in in widths)


def layer_widths(batches: NetworkBatches) -> dict[str, int]:
    """{layer: d_in}, from one run of the network over the shortest piece."""
    shortest = min(batches.pieces, key=lambda piece: piece.tokens)
    output = next(run_network(replace(batches, pieces=[shortest]), tokens=shortest.tokens))
    return {name: x.shape[1] for name, x in output.items()}


class _Layer:
    """The statistics of one layer, and the tokens that wait to be added to them."""

    def __init__(self, name: str, collector: Collector) -> None:
        self._name, self._waiting, self._tokens = name, [], 0  # type: ignore[var-annotated]
        self._collector = collector

    def add(self, x: Tensor) -> None:
        self._waiting.append(x)
        self._tokens += len(x)
        if self._tokens >= BLOCK:
            self._flush()

    def statistics(self) -> Statistics:
        self._flush()
        return self._collector.statistics()

    def _flush(self) -> None:
        waiting, self._waiting, self._tokens = self._waiting, [], 0
        if not waiting:
            return
        try:
            for x in chunks(waiting, dtype=None):
                self._collector.add(x)
        except InputError as error:
            raise InputError(f"layer {self._name!r}: {error}") from error
