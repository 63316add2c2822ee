"""The options of `autopsae convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from autopsae.cli.options.kinds import ReadPair, WrittenFolder
from autopsae.defaults import Format


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Carry an SAE over from any library or public suite to SAELens, dictionary_learning, sparsify or autopsae."""

    source: ReadPair[Annotated[str, Positional, arg(metavar="SOURCE")]]
    """The folder of an SAE, one of its files, the name of an autopsae SAE, or hf:owner/repository/folder."""
    target: WrittenFolder[Annotated[Path, Positional, arg(metavar="TARGET")]]
    """A new folder; for autopsae, a new name, to which .json and .safetensors are added."""
    to: Format
    """The library that shall load it."""
    model_name: str | None = None
    """The model that its tokens come from, to be stored with it (saelens, dictionary_learning)."""
    hook_name: str | None = None
    """The place in that model."""
    scale: float | None = None
    """What tokens are multiplied with before the SAE, where its files do not say it (docs/files.md)."""
    k: int | None = None
    """Active latents per token, where its files do not say it (Qwen-Scope)."""
