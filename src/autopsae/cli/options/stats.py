"""The options of `autopsae stats`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from autopsae.cli.options.kinds import Rare, Written
from autopsae.defaults import SAMPLE_TOKENS


@dataclass(frozen=True, kw_only=True)
class StatsOptions:
    """Statistics of some shards of activations, as a part that `merge` takes.

    docs/cluster.md says how parts are made by make, Snakemake or a Slurm array.
    """

    shards: Annotated[tuple[Path, ...], Positional, arg(metavar="SHARDS")]
    """Shards of a folder that `harvest` wrote, or that folder. Or other files or folders of docs/files.md, a shard
    each."""
    out: Written[Path]
    """The part, named .safetensors."""
    layer: str | None = None
    """Layer to read, all by default; N stands for hsN."""
    start: int | None = None
    """Place of the first token in the whole stream, for files without an index; the next ones follow as given."""
    sample_tokens: Rare[int] = SAMPLE_TOKENS
    """Tokens of the sample; the same for all parts."""
    seed: int = 0
    """Of the token sample, and of the SAE that `merge` draws; the same for all parts."""
    device: str | None = None
    """Where to compute, for example cuda."""
