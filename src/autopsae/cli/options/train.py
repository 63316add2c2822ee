"""The options of `autopsae train`: the dozen that people use, and rare ones, which `--help` does not show.

Where an option is a list, several values are a sweep over all combinations.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from autopsae.cli.options.kinds import (
    Biases,
    Integers,
    Numbers,
    Place,
    Rare,
    ReadPair,
    Starts,
    Written,
    WrittenFolder,
    if_given,
)
from autopsae.cli.options.shared import Padding, Paging
from autopsae.cli.options.sparsity import ShortFiring
from autopsae.defaults import D_SAE, Strays


@dataclass(frozen=True, kw_only=True)
class Birth(ShortFiring):
    """The SAE as it is born. k is that of the penalty for jumprelu; relu takes --l1 instead. A k that is not given
    is that of the prescription, if it has the same sparsity.
    """

    d_sae: Annotated[int | None, if_given(f"Latents; if not given, those of the prescription, or {D_SAE}.")] = None
    prescription: ReadPair[Path | None] = None
    """Start from what `diagnose --prescriptions` wrote; instead of --init."""
    init: Starts = ()
    """Where b_dec starts, or what else is done to the layer: zero, mean, median (the default), whiten, asi."""
    alpha: Rare[Numbers] = ()
    """Whitening exponent of --init whiten; 0.3 if not given."""
    rank: Rare[int | None] = None
    """Rank of --init asi; 64 if not given."""
    firing_rate: Rare[float | None] = None
    """Set biases or thresholds so that each latent fires on this share of the tokens (jumprelu: k / d_sae)."""
    scale: Rare[bool] = True
    """Scale the layer to a median token norm of sqrt(d_in); false for the paper's setting."""
    fit_encoder: Rare[bool] = False
    """Multiply the encoder at birth by the number at which its reconstructions are best (docs/cures.md)."""
    recipe: Rare[Literal["paper"] | None] = None
    """paper: jumprelu or relu at the settings of the paper, with the penalty that goes with them."""
    layer_norm: Rare[bool] = False
    """Normalise every token before the SAE and undo it after; the SAE can then not be folded."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How it is trained."""

    steps: int = 10_000
    """Training steps."""
    lr: Numbers = (3e-4,)
    """Learning rate of Adam."""
    batch_tokens: int = 4096
    """Tokens per step."""
    l1: Rare[Numbers] = ()
    """L1 coefficient of --sparsity relu."""
    strays: Rare[Strays] = "keep"
    """What is done with tokens of over ten times the median norm (attention sinks), often most of the error."""
    revive: Rare[Literal["auxk", "ghost", "resample"] | None] = None
    """Silent latents explain the residual (auxk, ghost), or are drawn afresh (docs/training.md)."""
    bias: Rare[Biases] = ()
    """How b_dec learns: learned (the default), slow (a tenth of --lr), frozen, or decoder (not in the encoder)."""
    warmup_steps: Rare[int] = 0
    """Steps over which the learning rate rises."""
    decay_steps: Rare[int] = 0
    """Last steps, over which it falls to 0."""
    nested: Rare[Integers] = ()
    """Sizes of prefixes for Matryoshka training, such as 256,1024; none for all latents alone."""
    products: Rare[Literal["auto", "float32", "bfloat16", "int8"]] = "auto"
    """Type of the products that find candidates for each token; it changes the speed, and not the result."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What is measured and kept on the way."""

    resume: Place[bool] = False
    """Go on from the checkpoint in OUT, with the same settings."""
    held_out: Rare[int | None] = None
    """Tokens, spread over all, that are kept for the summary; a tenth, at most 100,000, if not given."""
    checkpoint_every: Rare[int | None] = 1000
    """Steps between checkpoints; None for none."""
    evaluate_every: Rare[int | None] = None
    """Steps between measurements on held-out tokens (held_out.jsonl), on 4,096 of them at most."""
    target_fvu: Rare[float | None] = None
    """Stop once the raw FVU on held-out tokens is no greater."""
    record_every: Rare[int] = 1
    """Steps between records."""
    memory: Rare[float | None] = None
    """GB that a sweep may take at once; half of what is free if not given."""
    csv: Rare[bool] = False
    """Write records.csv beside records.jsonl."""
    tensorboard: Rare[bool] = False
    """Write the records for TensorBoard into OUT."""
    wandb: Rare[str | None] = None
    """Project of Weights & Biases that receives the records (needs wandb; WANDB_MODE=offline sends nothing)."""


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """SAEs of a sweep in processes of their own, here or on a cluster (docs/cluster.md)."""

    on: Place[Rare[str | None]] = None
    """Of a sweep: where its SAEs are trained: local:N, slurm[:OPTIONS] or ray[:ADDRESS]."""
    jobs: Place[Rare[int | None]] = None
    """With --on: train them in about so many jobs, those of a job together; each by itself if not given."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train an SAE on one layer of SOURCE, from a prescription or a chosen start. OUT receives the SAE
    (sae.safetensors + sae.json), its records (records.jsonl) and what held-out tokens say (summary.json).

    Where an option has several values (--lr 1e-4,3e-4), all combinations are trained at once, each into a folder of
    its own in OUT, and sweep.json says which is best on held-out tokens.

    docs/training.md lists more options, such as penalties, revival and warm-up. They are given by name too, or in
    the file of --config.
    """

    source: Annotated[Path, Positional, arg(metavar="SOURCE")]
    """Activations, as a file or a folder: what `harvest` writes, or a layout of docs/files.md."""
    out: WrittenFolder[Path]
    """Folder for the results."""
    config: Place[Path | None] = None
    """Options as a JSON object (docs/training.md), or the summary.json of a run; the command line wins."""
    layer: str | None = None
    """Layer to train on, where the source holds several; N stands for hsN."""
    padding: Rare[Annotated[Padding, OmitArgPrefixes]] = Padding()
    """Which tokens are padding, and left out."""
    birth: Annotated[Birth, OmitArgPrefixes] = Birth()
    """The SAE as it is born. docs/training.md lists more settings: relu needs its L1 coefficient."""
    fit: Annotated[Fit, OmitArgPrefixes] = Fit()
    """How it is trained."""
    keep: Annotated[Keep, OmitArgPrefixes] = Keep()
    """What is kept on the way."""
    jobs: Annotated[Jobs, OmitArgPrefixes] = Jobs()
    """Where it is trained."""
    figure: Written[Path | None] = None
    """Write the curves of the training there, of a sweep those of all its SAEs (.png, .pdf, .svg)."""
    paging: Annotated[Paging, OmitArgPrefixes] = Paging()
    """Where the result is shown."""
    seed: Integers = (0,)
    """Of the drawn rows and of the order of the tokens."""
    device: str | None = None
    """Where to train, for example cuda."""
    data_parallel: Place[Rare[int]] = 1
    """Under torchrun: groups of processes that see a share of every batch each; the latents are spread over the
    processes of a group (docs/ranks.md)."""
