"""Draw and judge the figures of trained SAEs from their rows: pictures, `results/claims.json`, the README's table.

    python -m experiments.trained.reproduce --scale quick|full [--out DIR] [--rows FOLDER]

A figure whose rows are missing is named with what it lacks, and the others are made; then it exits with 1.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from experiments.outliers_2605_31518.frame import Reproduction, make, said
from experiments.outliers_2605_31518.table import write_table
from experiments.trained import rows as kept
from experiments.trained.pictures import FRAME_SCALES, HERE

from autopsae.arrays import InputError

FIGURES = ("fig2a", "fig6", "figS7", "figS15", "figS16", "figS18", "table1", "four_times")


def figure_of(name: str) -> Reproduction:
    """The figure of a module in this folder."""
    made: Reproduction = import_module(f"experiments.trained.{name}").FIGURE
    return made


def make_all(names: tuple[str, ...], scale: str, out: Path) -> list[str]:
    """Make each figure; the names of those whose rows are missing."""
    lacking = []
    for name in names:
        try:
            print(f"{name}: {said(make(figure_of(name), FRAME_SCALES[scale], out))}", flush=True)
        except InputError as missing:
            lacking.append(name)
            print(f"{name}: {missing}", flush=True)
    write_table(out)
    return lacking


def main(figure: Reproduction | None = None) -> None:
    """The command line, of all figures or of one."""
    parser = argparse.ArgumentParser(description="Figures of trained SAEs, from their rows.")
    parser.add_argument("--scale", choices=FRAME_SCALES, default="quick")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results/ and figures/")
    parser.add_argument("--rows", type=Path, default=kept.FOLDER, help="folder of the rows")
    asked = parser.parse_args()
    kept.FOLDER = asked.rows
    if lacking := make_all((figure.name,) if figure else FIGURES, asked.scale, asked.out):
        sys.exit(f"rows are missing for {', '.join(lacking)}")


if __name__ == "__main__":
    main()
