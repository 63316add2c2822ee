"""All figures, one after the other, then the table of claims in the README.

    python -m experiments.outliers_2605_31518.reproduce --scale quick|full [--out DIR]

A new figure is a module in this folder and its name in FIGURES.
"""

import argparse
from importlib import import_module

from experiments.outliers_2605_31518.frame import SCALES, Reproduction, add_arguments, make, said
from experiments.outliers_2605_31518.table import write_table

FIGURES = (
    "fig1", "fig3", "fig4a", "figS2", "figS3", "figS4",
    "dynamics", "fig5a", "fig5b", "fig5cd", "figS6", "figS8", "figS9", "figS10", "figS11", "figS12",
    "fig6", "figS13", "figS13b", "figS17", "figS20",
)  # fmt: skip


def figure(name: str) -> Reproduction:
    """The figure of a module in this folder."""
    found: Reproduction = import_module(f"experiments.outliers_2605_31518.{name}").FIGURE
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Reproduce the synthetic half of arXiv:2605.31518.")
    add_arguments(parser)
    asked = parser.parse_args()
    for name in FIGURES:
        print(f"{name}: {said(make(figure(name), SCALES[asked.scale], asked.out))}", flush=True)
    write_table(asked.out)


if __name__ == "__main__":
    main()
