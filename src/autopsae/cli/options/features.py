"""The options of `autopsae features`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from autopsae.cli.options.kinds import Names, Place, Rare
from autopsae.cli.options.shared import Padding


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    """What the latents of SAE know on ACTIVATIONS: the concepts that they cover, and where a latent fires most.

    docs/features.md lists more options, such as padding and how much is shown of a latent.
    """

    sae: Positional[str]
    """A trained SAE, as `train` writes it (OUT/sae), or one of another library or suite (docs/files.md)."""
    source: Positional[Path]
    """Activations, as a file or a folder: what `harvest` writes, or a layout of docs/files.md. All are read."""
    annotations: Path | None = None
    """Table of what is known: document, start, end, concept (.csv, .parquet; docs/features.md)."""
    token_table: Path | None = None
    """Table of tokens: document, start, end, text (.csv, .parquet). With it, the annotations count letters, special
    tokens are left out, and a latent is shown with its context."""
    against: Names = ()
    """Other SAEs of the same layer, which are compared with SAE on the same annotations."""
    controls: bool = False
    """Compare also with the raw neurons, and with random rows of the same sparsity."""
    latent: int | None = None
    """Show where this latent fires: its largest codes, and a spread over their quantiles."""
    top: Rare[int] = 10
    """How many tokens of each."""
    window: Rare[int] = 12
    """Tokens of context on each side."""
    validation: Rare[float] = 0.5
    """Share of the documents on which the latent of each concept is chosen; the others score it."""
    seed: int = 0
    """Of the split of the documents and of all that is drawn."""
    scale: float | None = None
    """What tokens are multiplied with before SAE, where its files do not say it (docs/files.md)."""
    k: int | None = None
    """Active latents per token, where the files of SAE do not say it (Qwen-Scope)."""
    layer: str | None = None
    """Layer that the SAE was trained on, where there are several; N stands for hsN."""
    padding: Rare[Annotated[Padding, OmitArgPrefixes]] = Padding()
    """Which tokens are padding, and left out."""
    json: Place[Path | None] = None
    """Write all scores there."""
    table: Place[Path | None] = None
    """Write a row per concept (and SAE) there (.csv, .parquet)."""
    figure: Place[Path | None] = None
    """Write the curve of covered concepts and F1 by concept there (.png, .pdf, .svg)."""
    device: str | None = None
    """Where to compute, for example cuda."""
