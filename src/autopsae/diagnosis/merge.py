"""merge_parts(parts, ...): the diagnosis of a whole whose parts were read one by one, anywhere, in any order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from autopsae.activations.coverage import Coverage, join_coverages
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.defaults import ACCEPTABLE, AT_TOKENS, LR, STEPS
from autopsae.diagnosis.births import estimate_births
from autopsae.diagnosis.judge import judge
from autopsae.diagnosis.parameters import Asked
from autopsae.diagnosis.part_file import LayerPart, PartFile, open_part, save_part
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.room import bytes_asked
from autopsae.diagnosis.survey import Survey
from autopsae.memory import check_memory
from autopsae.progress import Progress
from autopsae.sae.sparsity import Sparsity, topk_unless
from autopsae.statistics.sample import shifts
from autopsae.words import list_names, show


@whole_arguments("d_sae", "k", "at_tokens", "steps")
def merge_parts(
    parts: Sequence[str | Path],
    *,
    d_sae: int = 8192,
    k: int | None = None,
    sparsity: Sparsity | None = None,
    at_tokens: int = AT_TOKENS,
    alphas: Sequence[float] = (),
    ranks: Sequence[int] = (),
    acceptable: float = ACCEPTABLE,
    lr: float = LR,
    steps: int = STEPS,
    layers: Sequence[str] = (),
    judged: Callable[[Diagnosis], None] | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Diagnose the layers of parts that `collect_part` wrote, given in any order: what `survey` says of all their
    tokens with exact=False. Death at birth is estimated from the sample, and the seed is that of the parts.

    layers: which of the parts' layers (default: all); judged: told each diagnosis once it is made; progress: told
    the tokens merged, layer by layer; all other arguments are those of `diagnose`.

    Raises InputError, naming the part, for one that is damaged, for tokens that two parts cover, for parts of
    different streams, layers, seeds or samples, and where tokens are missing: a shard of the store, or places
    before others. Where a stream without an index ends, or how many files it has, no part knows.
    """
    opened = [open_part(path) for path in parts]
    coverage, starts = _join(opened)
    coverage.check_whole()
    asked = Asked(
        d_sae=d_sae,
        sparsity=topk_unless(sparsity, k),
        at_tokens=at_tokens,
        alphas=alphas,
        ranks=ranks,
        acceptable=acceptable,
        lr=lr,
        steps=steps,
        seed=opened[0].seed,
        sample_tokens=opened[0].sample_tokens,
    )
    names = _layers_of(opened, layers)
    diagnoses = []
    for number, name in enumerate(names, 1):
        try:
            stage = f"layer {number} of {len(names)}: {name}, merging"
            diagnosis = _diagnose(opened, starts, name, asked, stage, progress)
        except InputError as error:
            raise InputError(f"layer {name!r}: {error}") from error
        diagnoses.append(diagnosis)
        if judged:
            judged(diagnosis)
    return Survey(tuple(diagnoses))


def join_parts(parts: Sequence[str | Path], out: str | Path) -> Coverage:
    """Write several parts as one, and return what it covers: for merging by stages. Some tokens may be missing yet.

    Raises InputError as `merge_parts`, but for missing tokens.
    """
    opened = [open_part(path) for path in parts]
    coverage, starts = _join(opened)
    held = {name: _merge(opened, starts, name) for name in opened[0].layers}
    first = opened[0]
    save_part(out, held, coverage, seed=first.seed, sample_tokens=first.sample_tokens)
    return coverage


def _diagnose(
    parts: Sequence[PartFile],
    starts: dict[str, dict[int, int]],
    name: str,
    asked: Asked,
    stage: str,
    progress: Progress | None,
) -> Diagnosis:
    d_in = int(parts[0].layers[name]["d_in"])
    assert asked.sample_tokens is not None
    needed, what = bytes_asked(asked, d_in, asked.sample_tokens), f"for tokens of d_in = {d_in:,}"
    check_memory(needed, torch.device("cpu"), what, "use a machine with more, or a narrower layer")
    merged = _merge(parts, starts, name, stage, progress)
    statistics = merged.statistics.statistics()
    documents = None
    if merged.documents is not None:
        places = merged.statistics.reservoir.places
        documents = torch.from_numpy(merged.documents[np.searchsorted(places, statistics.reservoir.places)])
    return judge(statistics, asked, estimate_births, layer=name, sample_documents=documents)


def _join(parts: Sequence[PartFile]) -> tuple[Coverage, dict[str, dict[int, int]]]:
    """What the parts cover together, and where their runs begin now. Raises InputError for parts made otherwise."""
    if not parts:
        raise InputError("merge: expected at least one part, got none; give what `autopsae stats` wrote")
    first = parts[0]
    for part in parts[1:]:
        for what, held, expected in (
            ("the layers", list_names([*part.layers]), list_names([*first.layers])),
            ("a sample of", f"{part.sample_tokens:,} tokens", f"{first.sample_tokens:,} tokens"),
            ("the seed", part.seed, first.seed),
        ):
            if held != expected:
                raise InputError(
                    f"{part.path}: expected {what} {expected} as {first.path.name} has, got {held}; merge parts "
                    "that were made alike"
                )
    names = [str(part.path) for part in parts]
    if len({*names}) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise InputError(f"{twice}: expected each part once, got this one twice; leave it out once")
    return join_coverages(dict(zip(names, (part.coverage for part in parts), strict=True)))


def _layers_of(parts: Sequence[PartFile], wanted: Iterable[str]) -> list[str]:
    names = [*wanted] or [*parts[0].layers]
    for name in names:
        if name not in parts[0].layers:
            there = list_names([*parts[0].layers])
            raise InputError(f"merge: unknown layer {show(name, 80)}; the parts have {there}")
    return names


def _merge(
    parts: Sequence[PartFile],
    starts: dict[str, dict[int, int]],
    name: str,
    stage: str = "",
    progress: Progress | None = None,
) -> LayerPart:
    """One layer of all parts, in the order of the stream: so the last bits depend on no order of arguments."""
    merged: LayerPart | None = None
    done, total = 0, sum(part.coverage.tokens for part in parts)
    for part in sorted(parts, key=lambda part: min(starts[str(part.path)].values())):
        one = _move(part.read(name), starts[str(part.path)])
        merged = one if merged is None else _merge_two(merged, one)
        done += part.coverage.tokens
        if progress:
            progress(stage, done, total)
    assert merged
    return merged


def _move(part: LayerPart, starts: dict[int, int]) -> LayerPart:
    """The part where its runs begin at other places; documents move with their tokens."""
    if all(before == now for before, now in starts.items()):
        return part
    statistics, documents = part.statistics, part.documents
    if documents is not None:
        places = statistics.reservoir.places
        shift = shifts(places, starts)
        documents = (documents + shift)[np.argsort(places + shift)]
    moved = replace(statistics, reservoir=statistics.reservoir.move(starts))
    return LayerPart(statistics=moved, documents=documents)


def _merge_two(one: LayerPart, other: LayerPart) -> LayerPart:
    statistics = one.statistics.merge(other.statistics)
    documents = None
    if one.documents is not None and other.documents is not None:
        places = np.concatenate([one.statistics.reservoir.places, other.statistics.reservoir.places])
        numbers, order = np.concatenate([one.documents, other.documents]), np.argsort(places)
        documents = numbers[order][np.searchsorted(places[order], statistics.reservoir.places)]
    return LayerPart(statistics=statistics, documents=documents)
