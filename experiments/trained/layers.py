"""The layers that SAEs are trained on: where each is from, what is known of its tokens, and how it is read.

`experiments.trained.harvest` writes, for each layer, into a folder:

    LAYER-train.npy                 tokens to train on, of other documents than those below
    LAYER-test.npy                  tokens that everything is measured on
    LAYER-table.parquet             which letters of which document each test token covers
    LAYER-annotations.parquet       concepts, in letters (layers that have them)
    LAYER-documents.npy             the document of each test token (layers without a table)
    LAYER-embeddings.npy            a row of another model for each test token that is a letter
    LAYER-classes.json              {class: numbers of the test documents that have it}
    LAYER-tasks/NAME.npz            tasks of texts: rows, documents, is_letter, has
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.diagnosis.severity import gamma
from autopsae.features import align_annotations, read_annotations, read_token_table
from autopsae.features.labels import Labels
from autopsae.files import write_whole
from autopsae.statistics import collect
from autopsae.statistics.collect import Statistics

NO_MODEL = "no independent model of these inputs is at hand"
NO_TASKS = "the layer has no tasks"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer, and the SAEs that are trained on it."""

    title: str
    """In pictures and tables."""
    modality: str
    """language, protein, vision or genomic."""
    network: str
    """What `load_network` knows it by."""
    point: str
    """Of the network."""
    train: int = 160_000
    """Tokens to train on."""
    test: int = 100_000
    """Tokens to measure on at most."""
    d_sae: int = 2048
    """Latents of the SAEs; the baseline is also trained with four times as many."""
    k: int = 32
    """Latents per token."""
    sizes: tuple[int, ...] = ()
    """Numbers of latents of Table 1, for two layers."""
    embedding: str = ""
    """The independent model of the monosemanticity scores; "" for none."""


_SIZES = (512, 2048, 8192)

LAYERS = {
    "unirep64": Layer(
        title="UniRep-64 hs4", modality="protein", network="unirep64", point="layers.3", d_sae=512, k=16,
        embedding="antiberty hs8",
    ),
    "unirep": Layer(
        title="UniRep-256 hs4", modality="protein", network="unirep256", point="layers.3", sizes=_SIZES,
        embedding="antiberty hs8",
    ),
    "antiberty": Layer(
        title="AntiBERTy hs7", modality="protein", network="antiberty", point="hs7", embedding="unirep256 layers.3",
    ),
    "spliceai": Layer(
        title="SpliceAI add_20", modality="genomic", network="spliceai", point="add_20", d_sae=256, k=8,
    ),
    "dinov2": Layer(
        title="DINOv2-S hs12", modality="vision", network="dinov2-small", point="hs12",
    ),
    "smollm2": Layer(
        title="SmolLM2 hs12, Python", modality="language", network="smollm2", point="hs12",
        embedding="minilm hs6 of the line",
    ),
    "smollm2-english": Layer(
        title="SmolLM2 hs12, English", modality="language", network="smollm2", point="hs12",
    ),
    "gemma3-hs2": Layer(
        title="Gemma 3 hs2, Python", modality="language", network="gemma3", point="hs2",
        embedding="minilm hs6 of the line",
    ),
    "gemma3-hs11": Layer(
        title="Gemma 3 hs11, Python", modality="language", network="gemma3", point="hs11", sizes=_SIZES,
        embedding="minilm hs6 of the line",
    ),
    "qwen-hs4": Layer(
        title="Qwen2.5 hs4, Python", modality="language", network="qwen", point="hs4",
        embedding="minilm hs6 of the line",
    ),
}  # fmt: skip
"""By the name of their files. `sizes` are on a protein layer, as in the paper's Table 1, and on a severe language
layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Documents, and which of them have which label, for probes."""

    x: Float[Tensor, "tokens d_in"]
    documents: Int[np.ndarray, "tokens"]
    is_letter: Bool[np.ndarray, "tokens"]
    values: Mapping[str, Bool[np.ndarray, "documents"]]
    """{label: whether each document has it}."""
    pool: Literal["last", "max"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """A layer's tokens, and what is known of those to measure on."""

    name: str
    folder: Path
    train: Float[Tensor, "train d_in"]
    test: Float[Tensor, "test d_in"]
    documents: Int[np.ndarray, "test"]
    """The document of each token to measure on."""
    is_letter: Bool[np.ndarray, "test"]
    """Tokens to measure on that are no special ones."""
    labels: Labels | None

    @staticmethod
    def read(folder: Path, name: str) -> "Data":
        """Raises InputError, naming the file, where the layer was not harvested."""
        train, test = (torch.from_numpy(np.load(_file(folder, f"{name}-{side}.npy"))) for side in ("train", "test"))
        labels: Labels | None = None
        table = folder / f"{name}-table.parquet"
        if table.exists():
            tokens = read_token_table(table)
            documents, is_letter = tokens.documents, tokens.is_letter
            annotations = read_annotations(_file(folder, f"{name}-annotations.parquet"))
            labels = align_annotations(annotations.within(documents), documents, tokens)
        else:
            documents = np.load(_file(folder, f"{name}-documents.npy")).astype(np.int64)
            is_letter = np.ones(len(documents), bool)
        return Data(
            name=name,
            folder=folder,
            train=train,
            test=test,
            documents=documents,
            is_letter=is_letter,
            labels=labels,
        )

    @property
    def d_in(self) -> int:
        return self.train.shape[1]

    @cached_property
    def statistics(self) -> Statistics:
        """Of the tokens to train on."""
        return collect(self.train)

    @cached_property
    def gamma(self) -> float:
        """Severity of the tokens to train on."""
        return gamma(self.statistics.normed)

    @cached_property
    def embeddings(self) -> Float[Tensor, "letters d_embedding"] | None:
        """Of the test tokens that are letters, less their mean: what all inputs share tells none apart."""
        path = self.folder / f"{self.name}-embeddings.npy"
        if not path.exists():
            return None
        rows = torch.from_numpy(np.load(path)).double()
        return rows - rows.mean(dim=0)

    def tasks(self) -> Iterator[Task]:
        """One by one: the activations of a task of texts are read when it is its turn."""
        classes = self.folder / f"{self.name}-classes.json"
        if classes.exists():
            order = np.sort(np.unique(self.documents, return_index=True)[1])
            present = self.documents[order]
            values = {name: np.isin(present, members) for name, members in json.loads(classes.read_text()).items()}
            yield Task(x=self.test, documents=self.documents, is_letter=self.is_letter, values=values, pool="max")
        for path in sorted((self.folder / f"{self.name}-tasks").glob("*.npz")):
            with np.load(path) as kept:
                yield Task(
                    x=torch.from_numpy(kept["rows"]),
                    documents=kept["documents"],
                    is_letter=kept["is_letter"],
                    values={path.stem: kept["has"]},
                    pool="last",
                )


def layer_of(name: str) -> Layer:
    """Raises InputError for a name that is not in the table."""
    if name not in LAYERS:
        raise InputError(f"layers: expected some of {', '.join(LAYERS)}, got {name!r}")
    return LAYERS[name]


def save_rows(path: Path, rows: NDArray[Any]) -> None:
    """Write an array as .npy, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, rows)

    write_whole(path, write)


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        raise InputError(f"{folder}: expected {name}; run python -m experiments.trained.harvest DATA {folder}")
    return folder / name
