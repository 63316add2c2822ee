"""The options of `autopsae features`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from autopsae.cli.options.kinds import Integers, Names, Rare, Read, ReadPair, Written
from autopsae.cli.options.shared import Padding, Paging, Reading
from autopsae.defaults import PROBE_KS, Pool, ProbeRows


@dataclass(frozen=True, kw_only=True)
class FirstReading(Reading):
    """What a model reads; none of it is for activations."""

    tokens: int | None = None
    """Of a model: read the first tokens up to so many; 100,000 if not given."""


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    """What the latents of SAE know on SOURCE: the concepts that they cover, what probes read from them, whether
    each has one meaning, and where a latent fires most.

    docs/features.md lists more options, such as padding and how much is shown of a latent.
    """

    sae: ReadPair[Annotated[str, Positional, arg(metavar="SAE")]]
    """A trained SAE, as `train` writes it (OUT/sae), or one of another library or suite (docs/files.md)."""
    source: Read[Annotated[str, Positional, arg(metavar="SOURCE")]]
    """Activations, as a file or a folder: what `harvest` writes, or a layout of docs/files.md. All are read. Or a
    model, as `diagnose` takes it: it is run, and no activations are written."""
    reading: Annotated[FirstReading, OmitArgPrefixes] = FirstReading()
    """What a model reads."""
    annotations: Path | None = None
    """Table of what is known: document, start, end, concept (.csv, .parquet; docs/features.md)."""
    token_table: Path | None = None
    """Of activations: table of tokens: document, start, end, text (.csv, .parquet). With it, as with a model, the
    annotations count letters, special tokens are left out, and a latent is shown with its context."""
    probes: ProbeRows | None = None
    """Fit sparse logistic probes of the concepts of --annotations: of documents that have them, or of tokens."""
    tasks: Names = ()
    """Of a model: fit them for these binary tasks of the package sae-probes, whose texts the model reads."""
    embeddings: Path | None = None
    """Score monosemanticity by these: what another model makes of each document or token, a row each (.npy, or a
    layout of docs/files.md)."""
    against: ReadPair[Names] = ()
    """Other SAEs of the same layer, which are compared with SAE on the same tokens."""
    controls: bool = False
    """Compare also with the raw neurons, and with random rows of the same sparsity."""
    latent: int | None = None
    """Show where this latent fires: its largest codes, and a spread over their quantiles."""
    examples: int | None = None
    """Tokens of every latent that JSON and page show with their context: those of its largest codes. 3 if not given
    with --report (none with --tasks), and else none."""
    top: Rare[int] = 10
    """How many tokens of each."""
    window: Rare[int] = 12
    """Tokens of context on each side."""
    validation: Rare[float] = 0.5
    """Share of the documents on which latents are chosen and probes are fitted; the others score them."""
    ks: Rare[Integers] = PROBE_KS
    """Latents or neurons that a probe sees."""
    pool: Rare[Pool | None] = None
    """How the tokens of a document become one row for probes and monosemanticity: max, mean or last. Left out, last
    for tasks, as sae-probes does it, and max otherwise."""
    task_texts: Rare[int] = 1000
    """Texts of a task that are read at most."""
    seed: int = 0
    """Of the split of the documents and of all that is drawn."""
    scale: float | None = None
    """What tokens are multiplied with before SAE, where its files do not say it (docs/files.md). Not with
    --against: `convert` writes an SAE with its scale."""
    k: int | None = None
    """Active latents per token, where the files of SAE do not say it (Qwen-Scope). Not with --against."""
    layer: str | None = None
    """Layer that the SAE was trained on, where there are several; N stands for hsN."""
    padding: Rare[Annotated[Padding, OmitArgPrefixes]] = Padding()
    """Which tokens are padding, and left out."""
    json: Written[Path | None] = None
    """Write all scores there."""
    table: Written[Path | None] = None
    """Write a row per SAE and concept there (.csv, .parquet). Further measures have a table of their own beside it,
    whose name ends in -probes or -monosemanticity."""
    figure: Written[Path | None] = None
    """Write the curve of covered concepts and F1 by concept there, with --annotations (.png, .pdf, .svg)."""
    paging: Annotated[Paging, OmitArgPrefixes] = Paging()
    """Where the result is shown."""
    device: str | None = None
    """Where to compute, for example cuda."""
