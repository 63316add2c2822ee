"""diagnose_model(model, ...): all layers of a network, from its inputs, in one run of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopsae.activations.harvest import harvest
from autopsae.activations.hooks import select_points
from autopsae.activations.presets import LanguageModel
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.defaults import ACCEPTABLE, AT_TOKENS, LR, STEPS
from autopsae.diagnosis.births import estimate_births
from autopsae.diagnosis.judge import judge
from autopsae.diagnosis.parameters import Asked
from autopsae.diagnosis.plan import Planner
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.room import SampleSize, bytes_asked, fit_sample
from autopsae.diagnosis.survey import Survey
from autopsae.models.choose import choose_pieces, documents_for
from autopsae.models.named import load_network
from autopsae.models.network import Network
from autopsae.models.stream import (
    NetworkBatches,
    bytes_of_layers,
    collect_layers,
    layer_widths,
    run_network,
)
from autopsae.models.text import TextNetwork
from autopsae.progress import Progress
from autopsae.sae.sparsity import Sparsity, topk_unless
from autopsae.statistics.collect import Statistics
from autopsae.statistics.wide import WIDE
from autopsae.threads import side_by_side
from autopsae.training.config import TrainConfig


@whole_arguments("tokens", "context", "batch_size", "d_sae", "k", "at_tokens", "steps", "seed", "sample_tokens")
def diagnose_model(
    model: str | Network | LanguageModel,
    documents: Iterable[Any] | None = None,
    *,
    layers: Sequence[str] | None = None,
    tokens: int = 100_000,
    context: int | None = None,
    batch_size: int = 8,
    d_sae: int = 8192,
    k: int | None = None,
    sparsity: Sparsity | None = None,
    at_tokens: int = AT_TOKENS,
    alphas: Sequence[float] = (),
    ranks: Sequence[int] = (),
    acceptable: float = ACCEPTABLE,
    lr: float = LR,
    steps: int = STEPS,
    seed: int = 0,
    sample_tokens: int | None = None,
    keep: str | Path | None = None,
    plan: TrainConfig | None = None,
    device: torch.device | str | None = None,
    announce: Callable[[str], None] | None = None,
    judged: Callable[[Diagnosis], None] | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Diagnose layers of a network: what `survey` says of them, from one run of the network, with nothing written.

    The network reads pieces of documents, spread over all of them (`models.choose_pieces`), until it has made
    `tokens` tokens. Every layer keeps statistics of all of these and a uniform sample of 4,096 in memory. Death at
    birth is not counted on all tokens but estimated from the sample (`Birth.dead_interval`). Of a layer of over
    2,048 dimensions, the effective rank and the whitening are from a sample too, of 4 d_in tokens
    (`statistics.collect`).

    model: a name for `models.load_network`, or a network; documents: what it reads, by default the Python
    reference for a network that reads texts; layers: points (`activations.hooked`), by default all hidden states;
    context: tokens of a piece at most (for images, pixels of a side); batch_size: pieces for each run;
    sample_tokens: tokens of the sample (default: 4,096, or half or a quarter of it where the memory is too small
    for that); keep: a folder that the activations are written to as well, for training (`harvest`); plan: a
    training of which is measured what it would take (`Survey.plans`); device: where the network runs; announce:
    told in a line what will be read, and how much memory it takes, before it starts (the network has read one
    piece by then, which tells the widths of the layers); judged: told each diagnosis once it is made, so that those
    before a layer that fails are not lost; progress: told the tokens read as "reading", and then
    each layer; all other arguments are those of `diagnose`.

    Raises InputError for a network that has no hidden states where no layers are named, for documents that it
    cannot read, for layers that would not fit in memory together, and as `load_network`, `harvest` and `diagnose`.
    """
    asked = Asked(
        d_sae=d_sae,
        sparsity=topk_unless(sparsity, k),
        at_tokens=at_tokens,
        alphas=alphas,
        ranks=ranks,
        acceptable=acceptable,
        lr=lr,
        steps=steps,
        seed=seed,
        sample_tokens=sample_tokens,
    )
    network = as_network(model, device)
    batches = read_batches(
        network, documents, layers=layers, tokens=tokens, context=context, batch_size=batch_size, seed=seed
    )
    total = min(tokens, sum(piece.tokens for piece in batches.pieces))
    # A plan measures how long a step takes, and a GPU works on one layer at a time.
    alone = plan is not None or any(weight.device.type != "cpu" for weight in network.model.parameters())
    size = _fit_sample([*layer_widths(batches).values()], asked, threads=1 if alone else torch.get_num_threads())
    if announce:
        announce(_plan_line(batches, total, size, keep))
    columns = _run_once(batches, total, keep, seed, progress)
    statistics = collect_layers(
        columns, seed=seed, sample_tokens=size.tokens, wide=WIDE, total=total, progress=progress
    )
    pieces = batches.pieces
    of_tokens = np.repeat([piece.document for piece in pieces], [piece.tokens for piece in pieces])[:total]
    planner = Planner(plan, device) if plan else None
    diagnoses = []
    judging = _judge_each(statistics, len(batches.points), asked, of_tokens, size.at_once, progress)
    for diagnosis, of in judging:
        if planner:
            planner.show(diagnosis.prescription, of.sample)
        diagnoses.append(diagnosis)
        if judged:
            judged(diagnosis)
    return Survey(tuple(diagnoses), plans=planner.plans if planner else ())


def as_network(model: str | Network | LanguageModel, device: torch.device | str | None = None) -> Network:
    """The network of a name, of a language model, or itself; on the device where one is given."""
    if isinstance(model, str):
        return load_network(model, device=device or "cpu")
    network = TextNetwork(model) if isinstance(model, LanguageModel) else model
    if device is not None:
        network.model.to(device)
    return network


def read_batches(
    network: Network,
    documents: Iterable[Any] | None,
    *,
    layers: Sequence[str] | None,
    tokens: int,
    context: int | None,
    batch_size: int,
    seed: int,
) -> NetworkBatches:
    """What the network will read for `diagnose_model`."""
    if tokens < 1 or batch_size < 1:
        raise InputError(f"expected tokens and batch_size of at least 1, got {tokens} and {batch_size}")
    documents = documents_for(network, documents)
    wanted = network.points if layers is None else [*layers]
    if not wanted:
        raise InputError(
            f"{network.name}: expected a model with hidden states, got none; name layers, as points of its modules"
        )
    context = context or network.default_context
    return NetworkBatches(
        network=network,
        pieces=choose_pieces(network, documents, tokens=tokens, context=context, seed=seed),
        points=select_points(network.model, wanted),
        context=context,
        batch_size=batch_size,
    )


def _run_once(
    batches: NetworkBatches, total: int, keep: str | Path | None, seed: int, progress: Progress | None
) -> Iterable[dict[str, Tensor]]:
    """What each point gives, batch by batch: {point: [tokens, d_in]}. keep: a folder for it, written first."""
    if keep is None:
        return run_network(batches, tokens=total)
    network = batches.network
    kept = harvest(
        network.model,
        batches,
        keep,
        points=batches.points,
        end_early=True,
        request={"model": network.name, "context": batches.context, "seed": seed},
        tokens=total,
        progress=progress,
    )
    return (dict(zip(kept, parts, strict=True)) for parts in zip(*kept.values(), strict=True))


def _fit_sample(widths: Sequence[int], asked: Asked, *, threads: int) -> SampleSize:
    """The sample with which all layers are collected at once, and then judged, as many at once as there are threads
    and memory for.
    """

    def to_judge(size: int) -> int:
        return max(bytes_asked(asked, d_in, size) for d_in in widths)

    def needs(size: int) -> int:
        return bytes_of_layers(widths, sample_tokens=size, wide=WIDE) + to_judge(size)

    what = f"to diagnose {len(widths)} layers of d_in = {max(widths):,}"
    size = fit_sample(needs, asked.sample_tokens, what=what, otherwise="name fewer layers", widest=max(widths))
    return size.at_most(min(len(widths), threads), to_judge(size.tokens))


def _plan_line(batches: NetworkBatches, total: int, size: SampleSize, keep: str | Path | None) -> str:
    layers, documents = len(batches.points), len({piece.document for piece in batches.pieces})
    written = "no activations are written" if keep is None else f"the activations are written to {keep}"
    return (
        f"{batches.network.name}: {layers} layer{'s' * (layers > 1)}, {total:,} tokens from {documents:,} "
        f"document{'s' * (documents > 1)}, in one run; {size}; {written}"
    )


def _judge_each(
    statistics: Iterable[tuple[str, Statistics]],
    layers: int,
    asked: Asked,
    documents: NDArray[np.int64],
    at_once: int,
    progress: Progress | None,
) -> Iterator[tuple[Diagnosis, Statistics]]:
    """(diagnosis, statistics) of each layer. layers: how many there are; documents: the document of each token;
    at_once: how many layers are judged side by side.
    """
    done = 0

    def begin_each() -> Iterator[tuple[str, Statistics]]:
        for number, (name, of) in enumerate(statistics, 1):
            if progress:
                progress(f"layer {number} of {layers}: {name}", done * of.tokens, layers * of.tokens)
            yield name, of

    def judge_layer(layer: tuple[str, Statistics]) -> tuple[Diagnosis, Statistics]:
        name, of = layer
        # A point that gives several tokens for one of the network's, or fewer, has documents that are unknown.
        known = documents if len(documents) == of.tokens else None
        try:
            return judge(of, asked, estimate_births, layer=name, documents=known), of
        except InputError as error:
            raise InputError(f"layer {name!r}: {error}") from error

    # Each layer is let go once it is judged.
    for diagnosis, of in side_by_side(judge_layer, begin_each(), at_once):
        done += 1
        yield diagnosis, of
        if progress and done == layers:
            progress(f"layer {done} of {layers}: {diagnosis.layer}", done * of.tokens, layers * of.tokens)
