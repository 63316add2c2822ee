"""The options of `autopsae merge`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from autopsae.cli.options.asking import Asking
from autopsae.cli.options.kinds import Names, Place


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Asking):
    """Diagnose the whole whose parts `stats` wrote: what `diagnose` says of all its tokens.

    docs/cluster.md says more. Parts may come in any order; one that is missing or comes twice is named.
    """

    parts: Positional[tuple[Path, ...]]
    """What `stats` wrote, all parts of one stream."""
    layers: Names = ()
    """Layers to diagnose, all by default."""
    out: Place[Path | None] = None
    """Only write the parts as one part there: for merging by stages."""
    json: Place[Path | None] = None
    """Write all numbers there."""
    figure: Place[Path | None] = None
    """Write death by layer and remedy there (.png, .pdf, .svg)."""
    prescriptions: Place[Path | None] = None
    """Write each layer's prescription into this folder."""
