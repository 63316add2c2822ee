"""The options of `autopsae push` and `autopsae pull`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from autopsae.cli.options.kinds import Place, ReadPair, WrittenFolder


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Send a trained SAE to the Hugging Face Hub, with its results and a model card: all in one commit.

    Log in first (hf auth login), or set HF_TOKEN. docs/hub.md says what is sent.
    """

    folder: ReadPair[Annotated[str, Positional, arg(metavar="FOLDER")]]
    """The folder that `train` wrote for one SAE, or another SAE (docs/files.md)."""
    repository: Annotated[str, Positional, arg(metavar="REPOSITORY")]
    """Where to send it, as owner/name."""
    prescription: ReadPair[Path | None] = None
    """The prescription that it was born from, to be sent along (diagnose --prescriptions)."""
    diagnosis: Path | None = None
    """The JSON of the diagnosis of its layer: the card then says gamma (diagnose --json)."""
    trained_on: str | None = None
    """What it was trained on, in words, for the card."""
    model_name: str | None = None
    """The model that its tokens come from, for the card and for SAELens."""
    hook_name: str | None = None
    """The place in that model."""
    license: str | None = None
    """Its licence, as the Hub names it, such as mit."""
    public: bool = False
    """A new repository can be read by everybody; otherwise by you alone."""
    replace: Place[bool] = False
    """Replace the files of an SAE that is there already."""


@dataclass(frozen=True, kw_only=True)
class PullOptions:
    """Fetch an SAE from the Hugging Face Hub into a new folder."""

    repository: Annotated[str, Positional, arg(metavar="REPOSITORY")]
    """What to fetch: owner/name, owner/name/folder/in/it, or saelens:RELEASE/ID."""
    folder: WrittenFolder[Annotated[Path, Positional, arg(metavar="FOLDER")]]
    """A new folder."""
    revision: str | None = None
    """A branch, a tag or a commit; the newest if not given."""
    scale: float | None = None
    """What tokens are multiplied with before the SAE, where its files do not say it (docs/files.md)."""
    k: int | None = None
    """Active latents per token, where its files do not say it (Qwen-Scope)."""
