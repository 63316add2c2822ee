"""Judge all kept results again, without measuring: the fields of results/claims.json from the code as it is.

    python -m experiments.outliers_2605_31518.rejudge [--out DIR]

Written to give the rows their `id`, `draws` and `own`, and of use whenever a claim gains a field. A row that was
there keeps what it says: where the paper's value, ours, the tolerance or the verdict would change, or a row would
go, nothing is written. A new verdict is made by `--redraw` of its figure, where it is meant.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from experiments.outliers_2605_31518.frame import HERE, judge, merge, read_claims
from experiments.outliers_2605_31518.reproduce import figure
from experiments.outliers_2605_31518.table import write_table

from autopsae.arrays import InputError

KEPT = ("figure", "scale", "claim", "paper", "ours", "tolerance", "holds", "minutes")


def rejudge(out: Path = HERE) -> int:
    """How many rows were written again.

    Raises InputError if a row would change or go; then no row is written.
    """
    before = read_claims(out)
    kept = dict.fromkeys((entry["figure"], entry["scale"]) for entry in before)
    again = {(name, scale): _judged(name, scale, out) for name, scale in kept}
    after = [_kept(entry) for entries in again.values() for entry in entries]
    for entry in before:
        if _kept(entry) not in after:
            raise InputError(
                f"{entry['figure']} at scale {entry['scale']}: expected the kept row {entry['claim']!r} with the "
                "same values, got others; run the figure with --redraw if they are meant to change"
            )
    for (name, scale), entries in again.items():
        merge(entries, name, scale, out)
    return len(after)


def _judged(name: str, scale: str, out: Path) -> list[dict[str, Any]]:
    content = json.loads((out / "results" / scale / f"{name}.json").read_text(encoding="utf-8"))
    return judge(figure(name), content)


def _kept(entry: dict[str, Any]) -> list[Any]:
    return [entry[field] for field in KEPT]


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge all kept results again, without measuring.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results/")
    asked = parser.parse_args()
    print(f"{rejudge(asked.out)} rows")
    write_table(asked.out)


if __name__ == "__main__":
    main()
