"""Options that several verbs have."""

from dataclasses import dataclass
from pathlib import Path

from autopsae.cli.options.kinds import Rare, ReadImages, Written


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Which tokens of the source are padding, and left out."""

    lengths: Path | None = None
    """Of activations [sequences, tokens, d_in]: how many tokens of each are real (.npy, .npz, .pt, .txt)."""
    mask: Path | None = None
    """Instead of --lengths: True or 1 for each token that is real (.npy, .npz, .pt, .txt)."""


@dataclass(frozen=True, kw_only=True)
class Paging:
    """Where the result is shown."""

    report: Written[Path | None] = None
    """Show the result on one page there (.html), which opens without a network (docs/page.md)."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a model reads; none of it is for activations."""

    text: Path | None = None
    """For a model of texts: a .txt or .jsonl file; by default the Python reference that every Python has."""
    dataset: str | None = None
    """For a model of texts: hf:NAME, a dataset of the Hugging Face Hub whose rows have a "text"."""
    images: ReadImages[Path | None] = None
    """For a model of images: a folder of images, or of CIFAR-10's binary files."""
    sequences: Path | None = None
    """For a model of proteins or DNA: a FASTA, Swiss-Prot or EMBL file."""
    context: Rare[int | None] = None
    """Tokens that the model reads at once (pixels of an image's side)."""
    batch_size: Rare[int] = 8
    """Pieces that it reads at once."""
