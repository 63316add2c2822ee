"""The binary tasks of sae-probes (Kantamneni et al. 2025), read from the files of its package alone.

pip install --no-deps sae-probes==0.4.2, and zstandard (`autopsae[features]`). None of its code is imported.
"""

import csv
import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.reading import check_regular, input_errors
from autopsae.tables import Result
from autopsae.words import list_names, printable, show

PACKAGE = "sae-probes==0.4.2"
_MASTER = "probing_datasets_MASTER.csv.zst"
_BINARY = "Binary Classification"
_LONGEST = 2**24  # characters of a prompt


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ProbeTask(Result):
    """Texts with a binary label."""

    name: str
    """The name of its data set, such as "114_nyc_borough_Manhattan"."""
    texts: tuple[str, ...]
    """The prompts."""
    labels: Bool[np.ndarray, "texts"]
    """The label of each."""
    classes: tuple[str, str]
    """What the files call the labels False and True."""
    left_out: int
    """Texts of the file that were left out, as they repeat another one."""

    def __str__(self) -> str:
        share = f"{self.labels.mean():.0%} of them {show(self.classes[1], 40)}"
        return f"{printable(self.name)}: {len(self.texts):,} texts, {share}"


def probe_task_names(folder: str | Path | None = None) -> list[str]:
    """The names of the binary tasks, in the order of the package. folder: as `read_probe_task`."""
    root = _root(folder)
    rows = _rows(root / _MASTER, ("Data type", "Dataset save name"))
    return [Path(path).name.removesuffix(".csv") for kind, path in rows if kind == _BINARY]


@whole_arguments("most")
def read_probe_task(name: str, folder: str | Path | None = None, *, most: int | None = None) -> ProbeTask:
    """One binary task. The smaller of its two targets, in the order of text, is False.

    Up to two thirds of a file's texts are repeated in it. A text that is read again is left out, and so is one with
    both targets: else a probe would be tested on texts that it was fitted on.

    folder: the package's folder `data`; left out, that of the installed package, which is not imported. most: texts
    at most, the first ones (the files are in random order).

    Raises InputError for a package or zstandard that is missing, a name that there is not, a damaged file, one
    that has not exactly two targets, and a number of texts below 2.
    """
    if most is not None and most < 2:
        raise InputError(f"most: expected at least 2 texts, got {most}")
    root = _root(folder)
    path = root / "cleaned_data" / f"{name}.csv.zst"
    if name not in (names := probe_task_names(root)) or not path.is_file():
        raise InputError(
            f"task {show(name, 60)}: expected a binary one of sae-probes, such as {list_names(names, 3)}"
        )
    targets: dict[str, set[str]] = {}
    read = 0
    for prompt, target in _rows(path, ("prompt", "target")):
        targets.setdefault(prompt, set()).add(target)
        read += 1
    rows = [(prompt, min(its)) for prompt, its in targets.items() if len(its) == 1][:most]
    classes = sorted({target for _, target in rows})
    if len(classes) != 2:
        raise InputError(f"{path}: expected two targets, got {list_names(classes)}; read more texts")
    return ProbeTask(
        name=name,
        texts=tuple(prompt for prompt, _ in rows),
        labels=np.array([target == classes[1] for _, target in rows]),
        classes=(classes[0], classes[1]),
        left_out=read - sum(len(its) == 1 for its in targets.values()),
    )


def _root(folder: str | Path | None) -> Path:
    if folder is not None:
        return Path(folder)
    spec = find_spec("sae_probes")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"sae-probes is not installed; pip install --no-deps {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "data"


def _rows(path: Path, columns: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Two columns of a compressed table, row by row."""
    zstandard = _import_zstandard(path)
    with input_errors(path, "a zstd-compressed table of sae-probes", "install the package again"):
        check_regular(path)
        before = csv.field_size_limit(_LONGEST)
        try:
            with path.open("rb") as file:
                text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8", newline="")
                read = csv.DictReader(text)
                for row in read:
                    yield row[columns[0]], row[columns[1]]
        finally:
            csv.field_size_limit(before)


def _import_zstandard(path: Path) -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise package_error(str(path), "zstandard", error, install="autopsae[features]") from error
