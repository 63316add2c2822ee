"""The rows of trained SAEs: their keys, and the files that keep them.

`experiments/features/results` has `trained.json` (a row per SAE), `concepts.json` (under "trained": what its
latents know of concepts) and `compared.json` (a row per layer and seed, paired). A row has a `key`, is written when
it is complete, and takes the place of an earlier one with its key.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from experiments.outliers_2605_31518.frame import locked
from experiments.trained.arms import CONTROLS, LR
from experiments.trained.layers import layer_of

import autopsae
from autopsae.arrays import InputError
from autopsae.files import write_text

FOLDER = Path(__file__).parents[1] / "features" / "results"
TRAINED, CONCEPTS, COMPARED = "trained.json", "concepts.json", "compared.json"
AGAIN = "python -m experiments.trained.run FOLDER WORK"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """An SAE of the table: all that tells it from the others."""

    layer: str
    arm: str
    d_sae: int
    seed: int
    steps: int
    lr: float = LR

    @property
    def key(self) -> str:
        """The same for ever, such as "unirep baseline 2048 seed0 steps5000 lr0.001"."""
        return f"{self.layer} {self.arm} {self.d_sae} seed{self.seed} steps{self.steps} lr{self.lr:g}"

    @property
    def file(self) -> str:
        """The key as the name of a file, without dots: what follows one would be taken for a suffix."""
        return self.key.replace(" ", "_").replace(".", "-")

    @property
    def is_control(self) -> bool:
        """Whether nothing is trained."""
        return self.arm in CONTROLS

    def about(self) -> Row:
        """What a row says of it."""
        return {"key": self.key, **asdict(self), "k": layer_of(self.layer).k}


def read_rows(file: str = TRAINED) -> list[Row]:
    """The rows of a file; none where it is not there."""
    path, part = FOLDER / file, _part(file)
    rows: list[Row] = json.loads(path.read_text()).get(part, []) if path.exists() else []
    return rows


def _part(file: str) -> str:
    """Under which name the rows stand in a file: concepts.json has rows of `experiments.features.concepts` too."""
    return "trained" if file == CONCEPTS else "rows"


def keep(row: Row, file: str = TRAINED) -> None:
    """Add a row, or put it in the place of the one with its key. Other processes may do the same meanwhile."""
    path, part = FOLDER / file, _part(file)
    with locked(path.parent):
        content = json.loads(path.read_text()) if path.exists() else {}
        kept = {one["key"]: one for one in content.get(part, [])} | {row["key"]: row}
        written_by = {"autopsae": autopsae.__version__, "torch": torch.__version__}
        content = {**written_by, **content, part: [*kept.values()]}
        entries = ",\n".join(map(_lines, content.items()))
        write_text(path, f"{{\n{entries}\n}}\n")


def _lines(entry: tuple[str, Any]) -> str:
    """An entry of the file: a line for each row of a list."""
    name, value = entry
    if not isinstance(value, list):
        return f"{json.dumps(name)}: {json.dumps(value)}"
    rows = ",\n".join(json.dumps(one, allow_nan=False) for one in value)
    return f"{json.dumps(name)}: [\n{rows}\n]"


def keys_of_finished() -> set[str]:
    """The keys of the SAEs whose rows are there."""
    return {row["key"] for row in read_rows()}


def rows_at(steps: int, arms: Sequence[str]) -> dict[str, list[Row]]:
    """{layer: its rows of these arms after so many steps at the usual rate}, for the layers and seeds that have all
    of them at their own size; with them the rows of these arms at other sizes.

    Raises InputError where no layer has all, and says which are missing.
    """
    mine = [row for row in read_rows() if (row["steps"], row["lr"]) == (steps, LR) and row["arm"] in arms]
    chosen: dict[str, list[Row]] = {}
    missing: set[str] = set()
    for layer in dict.fromkeys(row["layer"] for row in mine):
        own = [row for row in mine if row["layer"] == layer]
        for seed in sorted({row["seed"] for row in own}):
            of_seed = [row for row in own if row["seed"] == seed]
            there = {row["arm"] for row in of_seed if row["d_sae"] == layer_of(layer).d_sae}
            if {*arms} <= there:
                chosen.setdefault(layer, []).extend(of_seed)
            missing |= {f"{layer} seed {seed}: {arm}" for arm in arms if arm not in there}
    if not chosen:
        named = "; ".join(sorted(missing)[:5]) or f"no row of {', '.join(arms)} at {steps:,} steps"
        raise InputError(f"{TRAINED}: expected a layer with all of {', '.join(arms)}, missing: {named}; {AGAIN}")
    return chosen
