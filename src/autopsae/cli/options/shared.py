"""Options that several verbs have."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Which tokens of the source are padding, and left out."""

    lengths: Path | None = None
    """Of activations [sequences, tokens, d_in]: how many tokens of each are real (.npy, .npz, .pt, .txt)."""
    mask: Path | None = None
    """Instead of --lengths: True or 1 for each token that is real (.npy, .npz, .pt, .txt)."""
