"""Layers of our own, as `measure_layers` and `measure_details` wrote them, as rows like those of the authors.

Rows have the names of `released.layers()` (dead, relu, centered, whitened, rank, ...) and the whole measured row
beside them. Deaths are fractions, counted on the row's own number of tokens.
"""

import json
from typing import Any

from experiments.outliers_2605_31518.frame import HERE
from experiments.outliers_2605_31518.released import Row

LAYERS, DETAILS = HERE / "results" / "layers", HERE / "results" / "details"
LAYER_FILES, DETAIL_FILES = tuple(sorted(LAYERS.glob("*.json"))), tuple(sorted(DETAILS.glob("*.json")))
LOW_RANK = 0.04
"""Effective rank, as a fraction of d_in, over which centering is expected to suffice."""
_BRIEF = {
    "model.layers.": "",
    "encoder.layer.": "",
    ".self_attn": " attention",
    ".attention.output.dense": " attention",
    ".attention": " attention",
    ".output.dense": " MLP",
    ".mlp.activation_fn": " MLP inside",
    ".mlp": " MLP",
    "layers.": "layer ",
    "blocks.": "block ",
    "skips.": "skip ",
}


def own_layers() -> list[Row]:
    """A row per layer, network by network, in each network's order."""
    rows = []
    for path in LAYER_FILES:
        kept = json.loads(path.read_text(encoding="utf-8"))
        rows += [_row(kept, place, row) for place, row in enumerate(kept["rows"])]
    return rows


def looked_at() -> list[dict[str, Any]]:
    """Of each network: model, whether all its layers are measured, and blocks that had a first look."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in LAYER_FILES]
    return [{name: kept[name] for name in ("model", "complete", "blocks")} for kept in files]


def details() -> list[dict[str, Any]]:
    """The layers that were measured in detail, by rising gamma."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in DETAIL_FILES]
    return sorted(({**row, "point": brief(row["point"])} for row in kept), key=lambda row: float(row["gamma"]))


def brief(point: str) -> str:
    """A point's name for pictures and tables: "0 attention", "hs12"."""
    for long, short in _BRIEF.items():
        point = point.replace(long, short)
    return point


def numbers_of_tokens(rows: list[Row]) -> str:
    """On how many tokens layers were measured, for a title: "10,000 or 20,000"."""
    return " or ".join(f"{n:,}" for n in sorted({row["tokens"] for row in rows}))


def _row(kept: dict[str, Any], place: int, row: Row) -> Row:
    counted = row["counted"]
    return {
        **row,
        "model": kept["model"],
        "modality": kept["modality"],
        "layer": place,
        "point": brief(row["point"]),
        "rank": row["effective_rank_fraction"],
        "dead": counted["none"]["dead"],
        "relu": counted["none"]["relu"],
        "centered": counted["median"]["dead"],
        "whitened": counted["whiten"]["dead"],
        "mean": counted["mean"]["dead"],
    }
