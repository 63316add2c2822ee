"""The options of `autopsae autopsy`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from autopsae.cli.options.kinds import ReadPair, Written, WrittenPair
from autopsae.cli.options.shared import Padding, Paging
from autopsae.defaults import AT_TOKENS, LR, RARE, STEPS


@dataclass(frozen=True, kw_only=True)
class AutopsyOptions:
    """What became of the latents of SAE on SOURCE: who is dead, of what, and what would bring them back."""

    sae: ReadPair[Annotated[str, Positional, arg(metavar="SAE")]]
    """A trained SAE, as `train` writes it (OUT/sae), or one of another library or suite (docs/files.md)."""
    source: Annotated[Path, Positional, arg(metavar="SOURCE")]
    """Activations, as a file or a folder: what `harvest` writes, or a layout of docs/files.md."""
    scale: float | None = None
    """What tokens are multiplied with before SAE, where its files do not say it (docs/files.md)."""
    k: int | None = None
    """Active latents per token, where the files of SAE do not say it (Qwen-Scope)."""
    layer: str | None = None
    """Layer that the SAE was trained on, where there are several; N stands for hsN."""
    padding: Annotated[Padding, OmitArgPrefixes] = Padding()
    """Which tokens are padding, and left out."""
    tokens: int = 100_000
    """Tokens at most, spread over the source."""
    rare: float = RARE
    """Share of the tokens; latents that fire on fewer are rare."""
    at_tokens: int = AT_TOKENS
    """Tokens for which it is forecast how many latents stay dead."""
    lr: float = LR
    """Learning rate by which it is judged whether training can bring the dead-by-ReLU back."""
    steps: int = STEPS
    """Steps of that training."""
    json: Written[Path | None] = None
    """Write the counts and findings there."""
    table: Written[Path | None] = None
    """Write a row per latent there (.csv, .parquet)."""
    figure: Written[Path | None] = None
    """Write shift against signal there (.png, .pdf, .svg)."""
    recentre: WrittenPair[Path | None] = None
    """Write the SAE under this new name with its dead latents re-centred, untrained; says what it costs."""
    prescription: WrittenPair[Path | None] = None
    """Write what the next SAE should start from there: b_dec at the centre of these tokens. The advice says how the
    library that wrote SAE takes it."""
    paging: Annotated[Paging, OmitArgPrefixes] = Paging()
    """Where the result is shown."""
    device: str | None = None
    """Where to compute, for example cuda."""
