r"""The tokens of the layers, with their documents, labels, tasks and the embeddings of an independent model.

    python -m experiments.trained.harvest DATA FOLDER [--scale quick|full] [--layers unirep64,...]
        [--english TOKENS --tasks TASKS]

DATA holds the contents of Debian packages: emboss-test, mmseqs2-examples, tuxpaint-stamps-default and
mate-backgrounds (unpacked). FOLDER gets the files that `experiments.trained.layers` describes; what is there stays.
smollm2-english takes its tokens from TOKENS (`python -m experiments.survival.layers DATA TOKENS --networks smollm2
--tokens 160000`), and reads the texts of sae-probes into TASKS, or finds there what `experiments.features.probes`
read. The networks are wheels: `experiments.zoo` and `experiments.survival.layers` list them.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.features.harvest import Documents, programs, proteins
from experiments.features.probes import TASKS, Reader
from experiments.survival.policies import split
from experiments.trained.layers import Layer, layer_of, save_rows
from experiments.trained.plan import SCALES
from experiments.trained.stamps import stamp_classes, stamps
from experiments.trained.windows import fill_windows
from jaxtyping import Float, Int
from numpy.typing import NDArray

from autopsae.features.network_source import NetworkSource
from autopsae.features.token_table import TokenTable
from autopsae.files import write_text
from autopsae.models import Network, load_network

ENGLISH = "smollm2-english"
TEXTS = 400
"""Texts of a task."""


@cache
def documents_of(modality: str, data: Path) -> Documents:
    """What all layers of a modality read; the same documents are measured on for all of them."""
    if modality == "language":
        return programs(data)
    return proteins(data) if modality == "protein" else stamps(data)


def network_up_to(layer: Layer) -> Network:
    """The network, of a language model only the blocks up to the point."""
    network = load_network(layer.network)
    if layer.modality == "language":
        # One block more: the last hidden state would be normalised.
        decoder: Any = network.model.model
        decoder.layers = decoder.layers[: int(layer.point.removeprefix("hs")) + 1]
    return network


def rows_of(source: NetworkSource) -> Float[np.ndarray, "tokens d_in"]:
    """All tokens of a source, in memory."""
    with torch.inference_mode():
        return np.concatenate([batch.float().numpy() for batch in source])


def fill(name: str, data: Path, folder: Path) -> None:
    """Write the tokens, the table and the annotations of one layer."""
    layer, train = layer_of(name), folder / f"{name}-train.npy"
    if train.exists():
        return
    if layer.modality == "genomic":
        fill_windows(name, layer, data, folder)
        return
    documents, network = documents_of(layer.modality, data), network_up_to(layer)
    documents.annotations.save(folder / f"{name}-annotations.parquet")
    test = NetworkSource(network, documents.test, point=layer.point, tokens=layer.test, batch_size=16)
    test.table.save(folder / f"{name}-table.parquet")
    save_rows(folder / f"{name}-test.npy", rows_of(test))
    if layer.modality == "vision":
        write_text(folder / f"{name}-classes.json", stamp_classes(data))
    if layer.embedding:
        embedded = embed(layer.embedding, documents.test, test.table)
        save_rows(folder / f"{name}-embeddings.npy", embedded[test.table.is_letter])
    # Last: with this file the layer is there.
    source = NetworkSource(network, documents.train, point=layer.point, tokens=layer.train, batch_size=16)
    save_rows(train, rows_of(source))
    print(name, test.table, source.table, documents.annotations, sep="\n  ", flush=True)


def embed(model: str, documents: Sequence[Any], table: TokenTable) -> Float[np.ndarray, "tokens d_embedding"]:
    """A row of another model for each token of the table. model: "NAME POINT", for the row of the token that covers
    its first letter, or "NAME POINT of the line", for the mean over the line that it begins on.
    """
    name, point, *line = model.split()
    network, read = load_network(name), documents[: int(table.documents.max()) + 1]
    if line:
        return _of_lines(network, point, read, table)
    source = NetworkSource(network, read, point=point, batch_size=16)
    is_letter = source.table.is_letter
    here = rows_of(source)[is_letter]
    rows: NDArray[np.float32] = here[
        _cover(source.table.documents[is_letter], source.table.starts[is_letter], table)
    ]
    return rows


def _of_lines(
    network: Network, point: str, documents: Sequence[str], table: TokenTable
) -> Float[np.ndarray, "tokens d_embedding"]:
    lines, starts, owners = list[str](), list[int](), list[int]()
    for number, text in enumerate(documents):
        at = 0
        for line in text.splitlines(keepends=True):
            if line.strip():  # a token on an empty line is of the line before it
                lines.append(line.strip())
                starts.append(at)
                owners.append(number)
            at += len(line)
    source = NetworkSource(network, lines, point=point, batch_size=64)
    x, line_of = rows_of(source), torch.from_numpy(source.table.documents)
    sums = torch.zeros(len(lines), x.shape[1]).index_add_(0, line_of, torch.from_numpy(x))
    mean = (sums / torch.bincount(line_of, minlength=len(lines))[:, None]).numpy()
    rows: NDArray[np.float32] = mean[_cover(np.array(owners), np.array(starts), table)]
    return rows


def _cover(owners: NDArray[np.int64], starts: NDArray[np.int64], table: TokenTable) -> Int[np.ndarray, "tokens"]:
    """For each token of the table, the last of these places of its document that is not after its start; the first
    of the document where all are.
    """
    far = 1 + max(int(starts.max()), int(table.starts.max()))
    keys = owners * far + starts
    at = np.searchsorted(keys, table.documents * far + table.starts, side="right") - 1
    last: NDArray[np.int64] = np.maximum(at, np.searchsorted(owners, table.documents))
    return last


def fill_english(name: str, tokens: Path, tasks: Path, folder: Path) -> None:
    """smollm2-english: the tokens of chapters, and the tasks of sae-probes."""
    train, test = split(tokens, "smollm2.hs12")
    owners = np.load(tokens / "smollm2.documents.npy")
    order = np.random.default_rng(0).permutation(int(owners.max()) + 1)
    sizes = np.bincount(owners)[order].cumsum()
    held_out = owners[np.isin(owners, order[: int(np.searchsorted(sizes, len(test))) + 1])]
    assert len(held_out) == len(test)  # the documents of `split`
    reader = Reader(tasks, TEXTS)
    for task in TASKS:
        x, documents, is_letter, has = reader.read(task)
        place = folder / f"{name}-tasks" / f"{task}.npz"
        place.parent.mkdir(exist_ok=True)
        np.savez(place, rows=x.numpy(), documents=documents, is_letter=is_letter, has=has)
    save_rows(folder / f"{name}-test.npy", test.numpy())
    save_rows(folder / f"{name}-documents.npy", held_out)
    save_rows(folder / f"{name}-train.npy", train.numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--layers", default="", help="comma-separated; those of the scale if not given")
    parser.add_argument("--english", type=Path, help="tokens of smollm2-english, which is then made too")
    parser.add_argument("--tasks", type=Path, help="where the texts of its tasks are read to")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.english:
        fill_english(ENGLISH, asked.english, asked.tasks, asked.folder)
    for name in asked.layers.split(",") if asked.layers else SCALES[asked.scale].layers:
        if name != ENGLISH:
            fill(name, asked.data, asked.folder)


if __name__ == "__main__":
    main()
