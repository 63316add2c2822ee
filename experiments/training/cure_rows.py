"""The rows of `experiments.training.cures`: kept, and compared with the best constant of `survival.policies`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.rows import Row, read_rows, write_rows
from experiments.survival import policy_rows

from autopsae.defaults import ACCEPTABLE
from autopsae.trial.choose import NEAR

RESULTS = Path(__file__).parent / "results" / "cures.json"
CONSTANTS = ("none", "median", "median_slow", "whiten_0.05", "whiten_0.15", "whiten_0.3")
NUMBERS = ("dead", "fvu_raw", "fvu_typical")


def read() -> list[Row]:
    """The rows that are kept."""
    return read_rows(RESULTS)


def keep(row: Row) -> None:
    """Add a row to the file, in place of one that says the same of other numbers."""
    about = {name: value for name, value in row.items() if name not in NUMBERS}
    rows = [one for one in read() if not about.items() <= one.items()]
    write_rows(RESULTS, [*rows, row])


def constants(rows: Sequence[Row], like: Row) -> dict[str, Row]:
    """{constant: its row} at the layer, rate, steps and seed of a row; those of `survival.policies` where it has
    them, else those that were trained here.
    """
    shared = {name: like[name] for name in ("seed", "lr", "steps", "d_sae")}
    own = {row["cure"]: row for row in rows if (shared | {"layer": like["layer"]}).items() <= row.items()}
    model, _, layer = like["layer"].partition(".")
    about = {**shared, "k": 32, "model": model, "layer": layer, "chose": None}
    theirs = {row["policy"]: row for row in policy_rows.read() if about.items() <= row.items()}
    return {name: row for name, row in (own | theirs).items() if name in CONSTANTS}


def best(candidates: Mapping[str, Row]) -> tuple[str, Row]:
    """(name, row) of the best constant, as a trial chooses it: the lowest raw FVU of those that leave few dead, or
    the fewest dead where none does.
    """
    few = {name: row for name, row in candidates.items() if row["dead"] <= ACCEPTABLE}
    if few:
        return min(few.items(), key=lambda item: float(item[1]["fvu_raw"]))
    return min(candidates.items(), key=lambda item: float(item[1]["dead"]))


def helps(row: Row, constant: Row) -> bool:
    """Whether a cure beats the best constant: it leaves fewer dead at no more than 2 % more raw error, or as few
    dead (at most 1 %, where the constant has fewer) at an error that is at least 2 % lower.
    """
    fewer = row["dead"] < constant["dead"] and row["fvu_raw"] <= NEAR * constant["fvu_raw"]
    few = row["dead"] <= max(ACCEPTABLE, constant["dead"])
    return bool(fewer or (few and NEAR * row["fvu_raw"] <= constant["fvu_raw"]))


def tables(rows: Sequence[Row]) -> list[str]:
    """For each rate and number of steps, a table of the cures by layer; helps: on how many of the layers."""
    settings = sorted({(row["lr"], row["steps"]) for row in rows if row["cure"] not in CONSTANTS})
    return [_table([row for row in rows if (row["lr"], row["steps"]) == setting]) for setting in settings]


def _table(rows: Sequence[Row]) -> str:
    layers = [*dict.fromkeys(row["layer"] for row in rows if row["cure"] not in CONSTANTS)]
    first = {layer: next(row for row in rows if row["layer"] == layer) for layer in layers}
    known = {layer: constants(rows, first[layer]) for layer in layers}
    chosen = {layer: best(known[layer]) for layer in layers if known[layer]}
    lines = [f"| lr {rows[0]['lr']:g}, {rows[0]['steps']:,} steps | {' | '.join(layers)} | helps |"]
    lines.append("|---" * (2 + len(layers)) + "|")
    cells = [f"{chosen[layer][0]}: {_cell(chosen[layer][1])}" if layer in chosen else "" for layer in layers]
    lines.append(f"| best constant | {' | '.join(cells)} | |")
    for cure in dict.fromkeys(row["cure"] for row in rows if row["cure"] not in CONSTANTS):
        by = {row["layer"]: row for row in rows if row["cure"] == cure}
        judged = [helps(by[layer], chosen[layer][1]) for layer in layers if layer in by and layer in chosen]
        cells = [_cell(by[layer]) if layer in by else "" for layer in layers]
        lines.append(f"| {cure} | {' | '.join(cells)} | {sum(judged)} of {len(judged)} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    return f"{row['dead']:.1%}, {row['fvu_raw']:.4g}"
