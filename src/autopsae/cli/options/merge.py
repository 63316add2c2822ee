"""The options of `autopsae merge`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from autopsae.cli.options.asking import Asking
from autopsae.cli.options.kinds import Written, WrittenPairs
from autopsae.cli.options.shared import Paging


def _part(words: list[str]) -> Path:
    if not words[0].endswith(".safetensors"):
        raise ValueError(f"expected a part that `stats` wrote, named .safetensors, got {words[0]}")
    return Path(words[0])


PartPath = Annotated[
    Path,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=_part,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""Tells a part from a value of a list that was given by blanks."""


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Asking):
    """Diagnose the whole whose parts `stats` wrote: what `diagnose` says of all its tokens.

    docs/cluster.md says more. Parts may come in any order; one that is missing or comes twice is named.
    """

    parts: Annotated[tuple[PartPath, ...], Positional, arg(metavar="PARTS")]
    """What `stats` wrote, all parts of one stream."""
    out: Written[Path | None] = None
    """Only write the parts as one part there: for merging by stages."""
    json: Written[Path | None] = None
    """Write all numbers there."""
    figure: Written[Path | None] = None
    """Write death by layer and remedy there (.png, .pdf, .svg)."""
    paging: Annotated[Paging, OmitArgPrefixes] = Paging()
    """Where the result is shown."""
    prescriptions: WrittenPairs[Path | None] = None
    """Write each layer's prescription into this folder."""
