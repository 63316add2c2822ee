"""SpliceAI on stretches of human genes with their exons (package emboss-test): the layers of its Keras file.

A document is a stretch of 1,024 bases; the network reads 5,000 more on each side. Every third gene is measured on.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from experiments.survival.layers import DNA, FLANK, spliceai_graph
from experiments.trained.layers import Layer, save_rows
from numpy.typing import NDArray

from autopsae.features import Annotations, flat_file_annotations
from autopsae.features.token_table import TokenTable
from autopsae.models import sequences_in

EDGE = 2
GENES = "usr/share/EMBOSS/test/embl/hum1.dat"


def fill_windows(name: str, layer: Layer, data: Path, folder: Path) -> None:
    """Write the tokens, the table and the annotations."""
    genes = [str(document.content) for document in sequences_in(data / GENES)]
    sides = {"test": [n for n in range(len(genes)) if n % 3 == 0], "train": [n for n in range(len(genes)) if n % 3]}
    for side, most in (("test", layer.test), ("train", layer.train)):
        chosen = [place for n in sides[side] for place in _starts(n, genes[n])]
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0)).tolist()
        chosen = [chosen[n] for n in order[: most // DNA]]
        if side == "test":
            _table(chosen, genes).save(folder / f"{name}-table.parquet")
            spans = flat_file_annotations(data / GENES, notes=False)
            label(spans, chosen, genes).save(folder / f"{name}-annotations.parquet")
        save_rows(folder / f"{name}-{side}.npy", np.concatenate([*_rows(chosen, genes, layer.point)]))
        print(name, side, f"{len(chosen):,} stretches of DNA", flush=True)


def _starts(gene: int, bases: str) -> list[tuple[int, int]]:
    """(gene, first base) of each stretch that has its surroundings."""
    return [(gene, start) for start in range(FLANK, len(bases) - DNA - FLANK + 1, DNA)]


def _rows(chosen: list[tuple[int, int]], genes: list[str], point: str) -> Iterator[NDArray[np.float32]]:
    run = spliceai_graph()
    for gene, start in chosen:
        around = genes[gene][start - FLANK : start + DNA + FLANK]
        bases = np.frombuffer(around.encode("ascii"), np.uint8)
        one_hot = np.stack([bases == ord(letter) for letter in "ACGT"]).astype(np.float32)
        with torch.inference_mode():
            yield run(torch.from_numpy(one_hot)[None])[point][0, :, FLANK : FLANK + DNA].T.numpy()


def _table(chosen: list[tuple[int, int]], genes: list[str]) -> TokenTable:
    starts = np.tile(np.arange(DNA), len(chosen))
    texts = "".join(genes[gene][start : start + DNA] for gene, start in chosen)
    documents = np.repeat(np.arange(len(chosen)), DNA)
    return TokenTable(documents=documents, starts=starts, ends=starts + 1, texts=tuple(texts))


def label(spans: Annotations, chosen: list[tuple[int, int]], genes: list[str]) -> Annotations:
    """The labels of the stretches, counted from their first base: the features that a stretch has a part of, the
    edges of exons (two bases on each side), and what the sequence itself says, each base and each pair of bases.
    """
    every = spans.rows()
    every += [
        (gene, max(edge - EDGE, 0), edge + EDGE, "exon edge")
        for gene, start, end, concept in every
        if concept == "exon"
        for edge in (start, end)
    ]
    rows = []
    for number, (gene, first) in enumerate(chosen):
        for owner, start, end, concept in every:
            start, end = max(start - first, 0), min(end - first, DNA)
            if owner == gene and start < end:
                rows.append((number, start, end, concept))
        bases = genes[gene][first : first + DNA]
        rows += [
            (number, n, n + length, bases[n : n + length]) for length in (1, 2) for n in range(DNA - length + 1)
        ]
    return Annotations.of(rows, domains={*spans.domains, "exon edge"} & {row[3] for row in rows})
