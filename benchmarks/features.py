"""Counts of latents against concepts: time for a million tokens and memory, against a dense loop over thresholds.

10 million tokens, 8,192 latents of which 64 fire per token, 100 concepts of which a token has 3 on average, 10 of
them counted by domain. The codes are drawn once for a pool of tokens that is read again and again, so that the time
is that of the counting alone: nothing is encoded. The dense loop multiplies, for each threshold, the matrix of
latents that fire by that of the labels; it is timed on as many tokens as fit into 1 GiB, in turn with ours. Where
other processes are busy, the processor's time says more than the clock.

    python -m benchmarks.features [--tokens 10000000] [--threads 2]
"""

import argparse
from collections.abc import Iterator
from functools import partial
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autopsae.features.codes import CodeBlock, Codes
from autopsae.features.counts import THRESHOLDS, count_concepts
from autopsae.features.labels import Labels
from autopsae.features.split import split_documents
from benchmarks.harness import interleaved, save

D_SAE, K, CONCEPTS, DOMAINS, ROUNDS = 8192, 64, 100, 10, 3
BLOCK, POOL, LENGTH = 2048, 8, 256
DENSE = 2**30 // (4 * D_SAE)
"""Tokens whose dense codes in float32 fit into 1 GiB."""


def pool(seed: int = 0) -> list[CodeBlock]:
    """Blocks of codes; latents differ in how often they fire, as those of a trained SAE do."""
    chance = np.random.default_rng(seed)
    rates = 1 / (10 + np.arange(D_SAE))
    blocks = []
    for _ in range(POOL):
        # The K largest of Gumbel-perturbed logits: K different latents, drawn by their rates.
        drawn = np.log(rates).astype(np.float32) + chance.gumbel(size=(BLOCK, D_SAE)).astype(np.float32)
        latents = np.sort(np.argpartition(-drawn, K, axis=1)[:, :K], axis=1)
        values = chance.gamma(2.0, 1.0, latents.size).astype(np.float32)
        blocks.append(
            CodeBlock(
                start=0, ends=K * np.arange(BLOCK + 1), latents=latents.ravel().astype(np.int32), values=values
            )
        )
    return blocks


class Repeated:
    """The blocks of a pool, one after the other and again from the first, up to so many tokens."""

    def __init__(self, blocks: list[CodeBlock], tokens: int) -> None:
        self._blocks, self._tokens = blocks, tokens

    def __iter__(self) -> Iterator[CodeBlock]:
        for start in range(0, self._tokens, BLOCK):
            of = self._blocks[start // BLOCK % len(self._blocks)]
            some = min(BLOCK, self._tokens - start)
            pairs = slice(0, int(of.ends[some]))
            yield CodeBlock(
                start=start, ends=of.ends[: some + 1], latents=of.latents[pairs], values=of.values[pairs]
            )


def labels_of(tokens: int, seed: int = 0) -> Labels:
    """Spans of 8 tokens on average, so many that each token has 3 concepts on average."""
    chance = np.random.default_rng(seed)
    spans = 3 * tokens // 8
    firsts = np.sort(chance.integers(0, tokens, spans))
    document = firsts // LENGTH
    lasts = np.minimum(firsts + chance.integers(1, 16, spans), np.minimum((document + 1) * LENGTH, tokens))
    return Labels(
        concepts=tuple(f"concept {n}" for n in range(CONCEPTS)),
        by_domain=np.arange(CONCEPTS) < DOMAINS,
        documents=np.arange(tokens) // LENGTH,
        is_counted=np.ones(tokens, bool),
        firsts=firsts,
        lasts=lasts,
        numbers=chance.integers(0, CONCEPTS, spans).astype(np.int32),
    )


def size_of(labels: Labels, splits: NDArray[np.int8]) -> int:
    """Bytes of the labels and the split."""
    arrays = [labels.documents, labels.is_counted, labels.firsts, labels.lasts, labels.numbers, labels.ends, splits]
    return sum(array.nbytes for array in (*arrays, *labels.pairs))


def dense_loop(dense: torch.Tensor, has: torch.Tensor, splits: NDArray[np.int8]) -> list[torch.Tensor]:
    """True positives and firings of every latent, threshold and concept, from dense matrices; no domains."""
    largest = dense.max(dim=0).values
    counts = []
    for side in (0, 1):
        mine = torch.from_numpy(splits == side)
        for threshold in THRESHOLDS:
            fires = (dense[mine] > threshold * largest).float()
            counts += [fires.T @ has[mine], fires.sum(dim=0)]
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    blocks = pool()
    alone = whole(blocks, options.tokens)  # first, as memory that was freed may stay with the process
    save("features", {**against_dense(blocks, options.threads), **alone})


def against_dense(blocks: list[CodeBlock], threads: int) -> dict[str, Any]:
    """Ours and the dense loop in turn, on as many tokens as the dense one can hold."""
    labels, codes = labels_of(DENSE), Codes(blocks=Repeated(blocks, DENSE), d_sae=D_SAE)
    splits = split_documents(labels.documents)
    dense = torch.zeros(DENSE, D_SAE)
    for block in codes:
        dense[torch.from_numpy(block.tokens), torch.from_numpy(block.latents).long()] = torch.from_numpy(
            block.values
        )
    has = torch.zeros(DENSE, CONCEPTS)
    has[torch.from_numpy(labels.pairs[0]), torch.from_numpy(labels.pairs[1]).long()] = 1
    counts = count_concepts(codes, labels, splits)
    both = dense_loop(dense, has, splits)[0].numpy()
    assert np.array_equal(both, counts.both[0, :, 0])  # threshold 0, where no quotient is rounded
    seconds = interleaved(
        {"ours": partial(count_concepts, codes, labels, splits), "dense": partial(dense_loop, dense, has, splits)},
        ROUNDS,
    )
    ratio = seconds["dense"] / seconds["ours"]
    print(f"{DENSE:,} tokens: {seconds}, {ratio:.1f} times", flush=True)
    return {
        "d_sae": D_SAE,
        "k": K,
        "concepts": CONCEPTS,
        "by_domain": DOMAINS,
        "threads": threads,
        "dense_tokens": DENSE,
        "seconds_on_dense_tokens": {name: round(value, 3) for name, value in seconds.items()},
        "times_as_fast_as_dense": round(ratio, 1),
    }


def whole(blocks: list[CodeBlock], tokens: int) -> dict[str, Any]:
    """Ours alone on all tokens, with the memory that it takes."""
    labels = labels_of(tokens)
    splits = split_documents(labels.documents)
    assert labels.pairs is not None
    began, worked = perf_counter(), process_time()
    count_concepts(Codes(blocks=Repeated(blocks, tokens), d_sae=D_SAE), labels, splits)
    seconds, cpu = perf_counter() - began, process_time() - worked
    print(f"{tokens:,} tokens: {seconds:.1f} s", flush=True)
    return {
        "tokens": tokens,
        "seconds": round(seconds, 1),
        "seconds_per_million": round(1e6 * seconds / tokens, 2),
        "processor_seconds_per_million": round(1e6 * cpu / tokens, 2),
        "labels_per_token": round(len(labels.pairs[0]) / tokens, 2),
        "counts_mib": (1 + 2 * CONCEPTS) * 2 * D_SAE * len(THRESHOLDS) * 4 // 2**20,
        "labels_mib": size_of(labels, splits) // 2**20,
    }


if __name__ == "__main__":
    main()
