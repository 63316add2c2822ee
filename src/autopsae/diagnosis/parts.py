"""collect_part(shards, out): the statistics of some shards by themselves, for any engine that runs commands.

`merge_parts` takes the parts in any order, and says what `survey(..., exact=False)` says of all their tokens. A
token is in the sample because of its place, not because of who read it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autopsae.activations.coverage import Coverage, Order
from autopsae.activations.parts import document_numbers
from autopsae.activations.places import Shard, open_shards
from autopsae.arguments import whole_arguments
from autopsae.arrays import CHUNK_TOKENS, InputError, check_device, chunks
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.diagnosis.parameters import check_sample
from autopsae.diagnosis.part_file import LayerPart, save_part
from autopsae.memory import check_memory
from autopsae.progress import Progress
from autopsae.statistics.collect import Collector, PartialStatistics
from autopsae.statistics.room import bytes_of_collector, bytes_of_moments
from autopsae.statistics.sample import Rows
from autopsae.statistics.wide import WIDE, is_wide


@whole_arguments("start", "sample_tokens", "seed")
def collect_part(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    layers: Sequence[str] = (),
    start: int | None = None,
    sample_tokens: int = SAMPLE_TOKENS,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Coverage:
    """Write the statistics of all tokens of some shards to the file `out`, and return what it covers.

    shards: files of a folder that `harvest` wrote, whose index tells the place of their tokens; that folder itself,
    for all of them; or other files or folders of activations (docs/files.md), a shard each. start: the place in the
    whole stream of the first token of such other files, which follow each other as they are given; None where it is
    unknown: the sample is then drawn by the files' digests and rows, and is another uniform one. layers: which
    layers (default: all); sample_tokens, seed: of the uniform sample, the same for all parts that are merged;
    device: where to compute; progress: told the tokens read of each layer.

    Raises InputError as `activations.places.open_shards`, for layers that would not fit in memory together, and for
    tokens as `statistics.collect`, with the name of the layer.
    """
    check_device(device, torch.float64)
    check_sample(sample_tokens, seed)
    coverage, opened = open_shards(shards, layers, start=start)
    widths = {name: layer.d_in for name, layer in opened[0].layers.items()}
    _check_room([*widths.values()], sample_tokens, device)
    held = dict[str, LayerPart]()
    for number, name in enumerate(widths, 1):
        collector = Collector(sample_tokens=sample_tokens, seed=seed, wide=WIDE)
        tell = _tell(progress, f"layer {number} of {len(widths)}: {name}, statistics", coverage.tokens)
        statistics = _collect(collector, opened, name, coverage.order, device, tell)
        documents = _documents(opened, name, coverage.order, statistics.reservoir.places)
        held[name] = LayerPart(statistics=statistics, documents=documents)
    save_part(out, held, coverage, seed=seed, sample_tokens=sample_tokens)
    return coverage


def _collect(
    collector: Collector,
    shards: Sequence[Shard],
    name: str,
    order: Order,
    device: torch.device | str | None,
    tell: Callable[[int], None],
) -> PartialStatistics:
    """The statistics of a layer, each shard read at its place."""
    read = 0
    for shard in shards:
        collector.move_to(shard.run.start, rows=Rows(shard.run.digest, 0) if order == "files" else None)
        try:
            for x in chunks(shard.layers[name], dtype=None, device=device):
                collector.add(x)
                read += len(x)
                tell(read)
        except InputError as error:
            raise InputError(f"{shard.run.name}: layer {name!r}: {error}") from error
    return collector.partial()


def _tell(progress: Progress | None, stage: str, total: int) -> Callable[[int], None]:
    def tell(done: int) -> None:
        if progress:
            progress(stage, done, total)

    return tell


def _documents(
    shards: Sequence[Shard], name: str, order: Order, places: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """The document of the token at each of these places; None where the files do not tell.

    A store numbers its documents through all shards. Sequences, and the documents of files without a place, are
    numbered in their file: from the file's place on, no two files have the same number.
    """
    of_shards = []
    for shard in shards:
        parts, first = shard.layers[name].parts, shard.run.start
        numbers = document_numbers(parts)
        if numbers is None:
            return None
        if order == "files":
            numbers = first + np.unique(numbers, return_inverse=True)[1]
        elif parts[0].numbers is None:
            numbers = first + numbers
        within = places[(places >= first) & (places < shard.run.stop)]
        of_shards.append(numbers[within - first])
    return np.concatenate(of_shards)


def _check_room(widths: Sequence[int], sample_tokens: int, device: torch.device | str | None) -> None:
    """InputError where the layers would not fit in memory together: they are written in one file."""
    held = sum(bytes_of_collector(d_in, CHUNK_TOKENS, sample_tokens=sample_tokens, wide=WIDE) for d_in in widths)
    work = max((bytes_of_moments(d_in, streams=0) for d_in in widths if not is_wide(d_in, WIDE)), default=0)
    what = f"for the statistics of {len(widths)} layers at once"
    check_memory(held + work, torch.device(device or "cpu"), what, "take a layer by itself (--layer)")
