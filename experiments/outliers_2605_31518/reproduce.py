"""All figures, one after the other, then the table of claims in the README.

    python -m experiments.outliers_2605_31518.reproduce --scale quick|full|real [--out DIR] [--resume]

A new figure is a module in this folder and its name in FIGURES, or in REAL_FIGURES if it is made from real layers.
"""

import argparse
from importlib import import_module

from experiments.outliers_2605_31518.frame import (
    HERE,
    REAL,
    SCALES,
    Reproduction,
    add_arguments,
    make,
    resume,
    said,
)
from experiments.outliers_2605_31518.summary import write_summary
from experiments.outliers_2605_31518.table import write_table

FIGURES = (
    "fig1", "fig3", "fig4a", "figS2", "figS3", "figS4",
    "dynamics", "fig5a", "fig5b", "fig5cd", "figS6", "figS8", "figS9", "figS10", "figS11", "figS12",
    "fig6", "figS13", "figS13b", "figS15", "figS17", "figS20", "four_times",
)  # fmt: skip
REAL_FIGURES = (
    "fig2a", "fig2b", "fig4b", "figS2real", "figS5", "figS14", "figS19", "figS20real",
    "tableS6", "tableS7", "tableS8", "centering", "verdicts",
)  # fmt: skip
"""Made from tables of real layers, without any network."""


def figure(name: str) -> Reproduction:
    """The figure of a module in this folder."""
    found: Reproduction = import_module(f"experiments.outliers_2605_31518.{name}").FIGURE
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Reproduce arXiv:2605.31518.")
    add_arguments(parser, [*SCALES])
    parser.add_argument("--resume", action="store_true", help="measure only what is missing or has other inputs")
    asked = parser.parse_args()
    step = resume if asked.resume else make
    for name in REAL_FIGURES if asked.scale in REAL else FIGURES:
        print(f"{name}: {said(step(figure(name), SCALES[asked.scale], asked.out))}", flush=True)
    write_table(asked.out)
    if asked.scale in REAL and asked.out == HERE:
        write_summary()


if __name__ == "__main__":
    main()
