r"""Tokens with labels of two layers: SmolLM2 on Python source, UniRep on proteins.

    python -m experiments.features.harvest DATA OUT [--layers smollm2,unirep]

DATA holds the contents of the Debian packages emboss-test and mmseqs2-examples (unpacked). For each layer, OUT gets

    LAYER-train.npy                 tokens to train on, of other documents than those below
    LAYER-test.npy                  tokens to measure on
    LAYER-table.parquet             which letters each of the latter covers
    LAYER-annotations.parquet       the labels, in letters
"""

import argparse
import gzip
import random
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autopsae.features.annotations import Annotations
from autopsae.features.flat_files import flat_file_annotations
from autopsae.features.network_source import NetworkSource
from autopsae.features.python_source import python_annotations
from autopsae.models import load_network, sequences_in

SHORT, LONG = 1500, 8000
"""Characters of a program."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    train: Sequence[Any]
    test: Sequence[Any]
    annotations: Annotations


def programs(_data: Path) -> Documents:
    """Programs of the standard library, each whole, in random order; every third is one to measure on."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    files = [file for file in files if not {"site-packages", "lib2to3", "test"} & {*file.parts}]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    texts = sorted({text for text in texts if SHORT <= len(text) <= LONG})
    random.Random(0).shuffle(texts)
    test = texts[::3]
    return Documents(train=[t for t in texts if t not in test], test=test, annotations=python_annotations(test))


def proteins(data: Path) -> Documents:
    """To train on: UniProt; to measure on: the Swiss-Prot entries of EMBOSS."""
    entries = data / "usr/share/EMBOSS/test/swiss/seq.dat"
    with gzip.open(data / "usr/share/doc/mmseqs2/example-data/DB.fasta.gz", "rt") as fasta:
        sequences = ["".join(entry.split("\n")[1:])[:254].upper() for entry in fasta.read().split("\n>")]
    random.Random(0).shuffle(sequences)
    test = [document.content for document in sequences_in(entries)]
    known = {sequence[:254] for sequence in test}
    train = [s for s in sequences if s.isalpha() and s not in known]
    return Documents(train=train, test=test, annotations=flat_file_annotations(entries))


LAYERS = {
    "smollm2": ("smollm2", "hs12", programs, 60_000, 50_000),
    "unirep": ("unirep256", "layers.3", proteins, 200_000, 200_000),
}
"""Network, point, documents, tokens to train on, tokens to measure on at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", default=",".join(LAYERS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for layer in options.layers.split(","):
        name, point, documents_of, train, test = LAYERS[layer]
        network, documents = load_network(name), documents_of(options.data)
        if name == "smollm2":
            # What comes after the point is not run; hs13 would be normalised as the last one.
            decoder: Any = network.model.model
            decoder.layers = decoder.layers[:13]
        print(layer, network.points, len(documents.train), len(documents.test), documents.annotations, flush=True)
        documents.annotations.save(options.out / f"{layer}-annotations.parquet")
        for side, some, tokens in (("test", documents.test, test), ("train", documents.train, train)):
            place = options.out / f"{layer}-{side}.npy"
            source = NetworkSource(network, some, point=point, tokens=tokens, batch_size=16)
            if side == "test":
                source.table.save(options.out / f"{layer}-table.parquet")
            if not place.exists():
                np.save(place, np.concatenate([batch.numpy() for batch in source]))
            print(layer, side, source.table, flush=True)


if __name__ == "__main__":
    main()
