"""survey(layers, ...): the diagnoses of several layers side by side."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopsae.arrays import InputError, Tokens
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.result import Diagnosis
from autopsae.files import write_text
from autopsae.provenance import PROVENANCE, provenance
from autopsae.tables import html_table

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "autopsae-diagnosis"

COMPARED = ("none", "mean", "median", "zscore", "whiten")
"""The remedies that every diagnosis measures."""


@dataclass(frozen=True)
class Survey:
    """Diagnoses in the model's order; iterate over them, or ask for one by its layer's name."""

    diagnoses: tuple[Diagnosis, ...]

    def __iter__(self) -> Iterator[Diagnosis]:
        return iter(self.diagnoses)

    def __len__(self) -> int:
        return len(self.diagnoses)

    def __getitem__(self, layer: str) -> Diagnosis:
        for diagnosis in self.diagnoses:
            if diagnosis.layer == layer:
                return diagnosis
        raise KeyError(layer)

    def to_dict(self) -> dict[str, Any]:
        """{"format", "version", "layers": [one dictionary per layer]}."""
        return {
            "format": FORMAT,
            "version": 1,
            "layers": [diagnosis.to_dict() for diagnosis in self.diagnoses],
        }

    def to_frame(self) -> "pd.DataFrame":
        """A pandas frame with a row per layer; nested names are joined by dots (`birth.median.dead`)."""
        import pandas as pd

        return pd.concat([diagnosis.to_frame() for diagnosis in self.diagnoses], ignore_index=True)

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, with what wrote it (`provenance`), whole or not at all."""
        content = {**self.to_dict(), PROVENANCE: provenance()}
        write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def _repr_html_(self) -> str:
        header = ["layer", "gamma", "rank", *(f"dead: {name}" for name in COMPARED), "prescription"]
        rows = [
            [
                d.layer,
                f"{d.severity.gamma:.2f}",
                f"{d.severity.effective_rank_fraction:.1%}",
                *(f"{d.birth[name].dead:.1%}" for name in COMPARED),
                d.prescription.remedy.name,
            ]
            for d in self.diagnoses
        ]
        notes = [f"{d.layer}: {finding}" for d in self.diagnoses for finding in d.findings]
        return html_table(header, rows, notes)


def survey(
    layers: Mapping[str, Tokens], *, progress: Callable[[str, str, int], None] | None = None, **options: Any
) -> Survey:
    """Diagnose each layer of a mapping name -> tokens.

    progress: told the layer, the pass and the tokens it has just handled; options: those of `diagnose`.

    Raises InputError as `diagnose`, naming the layer, and where there is no layer.
    """
    if not layers:
        raise InputError("survey: expected at least one layer, got none")
    diagnoses = []
    for layer, tokens in layers.items():
        told = partial(progress, layer) if progress else None
        try:
            diagnoses.append(diagnose(tokens, layer=layer, progress=told, **options))
        except InputError as error:
            raise InputError(f"layer {layer!r}: {error}") from error
    return Survey(tuple(diagnoses))
