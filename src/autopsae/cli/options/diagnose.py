"""The options of `autopsae diagnose`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from autopsae.cli.options.asking import Asking
from autopsae.cli.options.kinds import Names, Place, Rare, Read, Written, WrittenFolder, WrittenPairs
from autopsae.cli.options.shared import Padding, Paging, Reading
from autopsae.defaults import STEPS, Prefer, Repeated


@dataclass(frozen=True, kw_only=True)
class KeptReading(Reading):
    """What a model reads; none of it is for activations."""

    keep: WrittenFolder[Path | None] = None
    """Write the activations into this folder too, for training."""


@dataclass(frozen=True, kw_only=True)
class Trialing:
    """A trial of remedies, of activations."""

    trial: bool = False
    """Of activations: train an SAE under each of seven remedies for a while, and prescribe by held-out tokens."""
    prefer: Rare[Prefer | None] = None
    """What the trial prescribes by: life (few dead), error (a low error), or both if not given."""
    batch_tokens: Rare[int] = 4096
    """Tokens per step of that training, as a trial and a plan take it."""
    trial_folder: WrittenFolder[Rare[Path | None]] = None
    """Keep the trial there, so that one that was interrupted goes on."""


@dataclass(frozen=True, kw_only=True)
class Spreading:
    """Layers of activations, and candidates of a trial, in processes of their own, here or on a cluster."""

    on: Place[Rare[str | None]] = None
    """Of activations: where each layer, and each candidate of a trial, has a process of its own: local:N,
    slurm[:OPTIONS] or ray[:ADDRESS]."""
    work: WrittenFolder[Rare[Path | None]] = None
    """With --on: a folder that keeps what is done, so that the same command goes on where it was interrupted."""
    split: Place[Rare[int | None]] = None
    """With --on, of a folder that `harvest` wrote: read all its tokens, each layer in so many parts at once."""


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions(Asking):
    """How many latents of an SAE will be born dead on each layer of SOURCE, why, and what to change.

    docs/diagnosis.md lists more options, such as padding, further remedies and those of a trial.
    """

    source: Read[Annotated[str, Positional, arg(metavar="SOURCE")]]
    """A model: its folder, a .gguf file, a name of docs/models.md or of the Hugging Face Hub. Or activations, as a
    file or a folder: what `harvest` writes, or a layout of docs/files.md."""
    reading: Annotated[KeptReading, OmitArgPrefixes] = KeptReading()
    """What a model reads."""
    layers: Names = ()
    """Layers to diagnose, all by default; N stands for hsN."""
    padding: Rare[Annotated[Padding, OmitArgPrefixes]] = Padding()
    """Which tokens are padding, and left out."""
    tokens: int = 100_000
    """Tokens per layer at most, spread over the source."""
    exact: bool = False
    """Of activations: count death at birth on all these tokens, instead of estimating it from a sample of 4,096."""
    steps: int = STEPS
    """Steps of that training; a trial costs at most a tenth of it, where 1,000 steps of each remedy do."""
    plan: bool = False
    """Measure what that training would take here: hours, memory and disk; and estimate it for several devices."""
    repeated: Rare[Repeated] = "keep"
    """Tokens that are the same vector: keep all, or leave_out all but one of each."""
    spreading: Annotated[Spreading, OmitArgPrefixes] = Spreading()
    """Layers in processes of their own."""
    trialing: Annotated[Trialing, OmitArgPrefixes] = Trialing()
    """A trial of remedies."""
    json: Written[Path | None] = None
    """Write all numbers there."""
    figure: Written[Path | None] = None
    """Write death by layer and remedy there (.png, .pdf, .svg)."""
    paging: Annotated[Paging, OmitArgPrefixes] = Paging()
    """Where the result is shown."""
    prescriptions: WrittenPairs[Path | None] = None
    """Write each layer's prescription into this folder."""
    seed: int = 0
    """Of the drawn SAE and of the token sample."""
    device: str | None = None
    """Where to compute, for example cuda."""
