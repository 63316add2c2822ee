r"""Nine real networks of four modalities, what they read, and the layers of each that are measured.

The networks install as wheels and the inputs as Debian packages: the lists are at the top of `experiments.zoo` and
`experiments.survival.layers`. Of each network all hidden states are measured, and those outputs of attention and
MLP blocks that are severe on a first look (`choose_blocks`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.zoo import bible, crops

from autopsae import harvest
from autopsae.activations.store import Activations
from autopsae.diagnosis.severity import gamma
from autopsae.models import load_network, sequences_in
from autopsae.models.choose import choose_pieces
from autopsae.models.network import Network
from autopsae.models.stream import NetworkBatches
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum, effective_rank

BATCH = 8
LOOK = 4096
"""Tokens of the first look at the outputs of attention and MLP blocks."""
SEVERE_GAMMA, LOW_RANK = 1.0, 0.02
"""A block's output is severe with a larger gamma, or with a smaller effective rank as a fraction of d_in."""

_DECODER = ("model.layers.{}.self_attn", "model.layers.{}.mlp")
_ENCODER = ("encoder.layer.{}.attention.output.dense", "encoder.layer.{}.output.dense")
_VISION = ("encoder.layer.{}.attention", "encoder.layer.{}.mlp")


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """A network, and which of its layers are measured besides its hidden states."""

    name: str
    """In the pictures."""
    modality: str
    """As in the authors' table: language, vision, protein or genomic."""
    preset: str
    """What `load_network` knows it by."""
    blocks: tuple[str, str] | tuple[()] = ()
    """The points of the outputs of attention and of the MLP in block {}."""
    depth: int = 0
    """Number of blocks."""
    most: int = 0
    """Severe outputs of blocks that are measured at most."""
    more: tuple[str, ...] = ()
    """Further points."""
    context: int = 0
    """Tokens of a piece at most; 0 for the network's default."""


ZOO = {
    "unirep64": Zoo(name="UniRep-64", modality="protein", preset="unirep64"),
    "spliceai": Zoo(name="SpliceAI", modality="genomic", preset="spliceai", context=1250),
    "unirep256": Zoo(name="UniRep-256", modality="protein", preset="unirep256"),
    "minilm": Zoo(name="MiniLM", modality="language", preset="minilm", blocks=_ENCODER, depth=6, most=3),
    "dinov2": Zoo(
        name="DINOv2-S",
        modality="vision",
        preset="dinov2-small",
        blocks=_VISION,
        depth=12,
        most=4,
        more=("encoder.layer.11.mlp.activation_fn",),
    ),
    "antiberty": Zoo(name="AntiBERTy", modality="protein", preset="antiberty", blocks=_ENCODER, depth=8, most=2),
    "smollm2": Zoo(name="SmolLM2", modality="language", preset="smollm2", blocks=_DECODER, depth=30, most=2),
    "gemma3": Zoo(name="Gemma 3", modality="language", preset="gemma3", blocks=_DECODER, depth=18, most=3),
    "qwen": Zoo(name="Qwen2.5", modality="language", preset="qwen"),
}
"""By the name of their folders, in the order in which they are measured."""


def documents_for(zoo: Zoo, data: Path) -> Iterable[Any]:
    """Chapters, proteins or genes. data: the unpacked Debian packages."""
    if zoo.modality == "language":
        return bible(data)
    if zoo.modality == "protein":
        return sequences_in(data / "usr/share/doc/mmseqs2/example-data/DB.fasta.gz")
    return sequences_in(data / "usr/share/EMBOSS/test/embl/hum1.dat")


def inputs_for(zoo: Zoo, network: Network, data: Path, points: list[str], tokens: int) -> Iterable[dict[str, Any]]:
    """Batches of the network's inputs, of all documents some; for vision, random crops of photographs."""
    if zoo.modality == "vision":
        return crops(data, batch=BATCH)
    context = zoo.context or network.default_context
    pieces = choose_pieces(network, documents_for(zoo, data), tokens=tokens, context=context)
    return NetworkBatches(network=network, pieces=pieces, points=points, context=context, batch_size=BATCH)


def run_over_inputs(
    zoo: Zoo, network: Network, data: Path, points: list[str], folder: Path, tokens: int
) -> dict[str, Activations]:
    """The tokens of the points, written to `folder`; an interrupted run goes on where it stopped."""
    batches = inputs_for(zoo, network, data, points, tokens)
    return harvest(network.model, batches, folder, points=points, tokens=tokens, request={"model": zoo.preset})


def choose_blocks(zoo: Zoo, network: Network, data: Path, folder: Path) -> list[dict[str, Any]]:
    """Gamma and effective rank of the outputs of all attention and MLP blocks on 4,096 tokens, in the network's
    order; "chosen" is true for those that are measured: the `zoo.most` that are furthest past a bound.
    """
    points = [point.format(block) for block in range(zoo.depth) for point in zoo.blocks]
    looked, past = [], []
    for point, tokens in (run_over_inputs(zoo, network, data, points, folder, LOOK) if points else {}).items():
        normed = collect(tokens).normed
        severe, rank = gamma(normed), effective_rank(Spectrum.of(normed.covariance).eigenvalues) / len(normed.mean)
        looked.append({"point": point, "gamma": severe, "rank": rank})
        past.append(max(severe / SEVERE_GAMMA, LOW_RANK / rank))
    least = max([1.0, *sorted(past, reverse=True)[zoo.most :]])
    return [{**row, "chosen": far > least} for row, far in zip(looked, past, strict=True)]


def load(zoo: Zoo) -> Network:
    """The network with its real weights."""
    return load_network(zoo.preset)
