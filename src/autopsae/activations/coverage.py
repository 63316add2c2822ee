"""Which tokens of a stream a part covers, so that merged parts count no token twice and leave none out unseen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from autopsae.activations.names import natural
from autopsae.arrays import InputError
from autopsae.words import list_names, printable, show

Order = Literal["store", "places", "files"]
"""What says where tokens lie in their stream: the index of a store, the caller, or nothing: then files are put in
the order of their names."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The tokens of one shard."""

    name: str
    """Of its file."""
    start: int
    """Place of its first token in the stream."""
    tokens: int
    """How many there are."""
    digest: str
    """Tells its content from that of another file."""

    @property
    def stop(self) -> int:
        """The place after its last token."""
        return self.start + self.tokens


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The runs of a stream that are covered, in their order."""

    order: Order
    """What says where they lie."""
    runs: tuple[Run, ...]
    """Disjoint, at least one."""
    store: str = ""
    """A digest of the store's index; "" where there is none."""
    shards: Mapping[str, int] | None = None
    """Tokens of every shard of the store by its name, in their order; None where there is no store."""

    @property
    def tokens(self) -> int:
        """How many are covered."""
        return sum(run.tokens for run in self.runs)

    def check_whole(self) -> None:
        """InputError, naming what is missing, unless all tokens are covered from the first on. Of a stream without
        an index nobody knows where it ends, nor how many files it has.
        """
        if self.shards is not None:
            missing = [name for name in self.shards if name not in {run.name for run in self.runs}]
            if missing:
                raise InputError(
                    f"merge: expected all {len(self.shards):,} shards of the store, but no part covers "
                    f"{list_names(missing)}; make a part of what is missing, and merge it too"
                )
        ends = [0, *(run.stop for run in self.runs)]
        for end, run in zip(ends, self.runs, strict=False):
            if run.start > end:
                raise InputError(
                    f"merge: expected parts that cover all places, but none covers {end:,} to {run.start - 1:,}, "
                    f"which lie before those of {printable(run.name)}; make a part of what is missing, and merge "
                    "it too"
                )

    def __str__(self) -> str:
        shards = f"{len(self.runs):,} shard{'s' * (len(self.runs) > 1)}"
        return f"{self.tokens:,} tokens in {shards}"


def join_coverages(parts: Mapping[str, Coverage]) -> tuple[Coverage, dict[str, dict[int, int]]]:
    """(what all parts cover together, for each part the new start of each of its runs by the old one). parts: by
    name, in any order.

    Raises InputError, naming the parts, for those of different streams, and for tokens that two of them cover.
    """
    (first, one), *others = parts.items()
    for name, other in others:
        _check_same_stream(first, one, name, other)
    where = [(run, name) for name, coverage in parts.items() for run in coverage.runs]
    if one.order == "files":
        _check_files(where)
        where.sort(key=lambda pair: (natural(pair[0].name), pair[0].digest))
    else:
        where.sort(key=lambda pair: (pair[0].start, pair[0].stop))
        _check_disjoint(where)
    runs, starts, place = [], {name: dict[int, int]() for name in parts}, 0
    for run, name in where:
        start = place if one.order == "files" else run.start
        starts[name][run.start] = start
        runs.append(Run(name=run.name, start=start, tokens=run.tokens, digest=run.digest))
        place += run.tokens
    return Coverage(order=one.order, runs=tuple(runs), store=one.store, shards=one.shards), starts


def cover(
    order: Order, runs: Sequence[Run], *, store: str = "", shards: Mapping[str, int] | None = None
) -> Coverage:
    """What these runs cover. Raises InputError for tokens that stand in two of them."""
    where = [(run, "") for run in runs]
    if order == "files":
        _check_files(where)
    else:
        where.sort(key=lambda pair: pair[0].start)
        _check_disjoint(where)
    return Coverage(order=order, runs=tuple(run for run, _ in where), store=store, shards=shards)


def _check_same_stream(first: str, one: Coverage, name: str, other: Coverage) -> None:
    if (one.order, one.store) == (other.order, other.store):
        return
    kinds = {"store": "a store", "places": "places that --start gave", "files": "files without a place"}
    got = kinds[other.order] if one.order != other.order else "another store"
    raise InputError(
        f"{name}: expected a part of {kinds[one.order]} as {printable(first)} is, got one of {got}; merge parts of "
        "one stream"
    )


def _check_disjoint(where: Sequence[tuple[Run, str]]) -> None:
    for (before, one), (run, other) in pairwise(where):
        if run.start < before.stop:
            raise _twice(run, other, before, one)


def _check_files(where: Sequence[tuple[Run, str]]) -> None:
    seen: dict[str, tuple[Run, str]] = {}
    for run, name in where:
        if run.digest in seen:
            raise _twice(run, name, *seen[run.digest])
        seen[run.digest] = run, name


def _twice(run: Run, name: str, before: Run, one: str) -> InputError:
    shared = printable(run.name, 60) if run.name == before.name else f"{show(run.name, 60)}"
    if not name:
        return InputError(
            f"{shared}: expected tokens that are given once, got some of {printable(before.name, 60)} again; give "
            "each shard once"
        )
    return InputError(
        f"{name}: expected tokens that no other part covers, got those of {shared}, which {printable(one)} covers "
        "too; leave one of the two out"
    )
