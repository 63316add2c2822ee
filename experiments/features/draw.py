"""The pictures of docs/features.md, from the rows of one seed in `results/concepts.json`.

python -m experiments.features.draw [--seed 0]
"""

import argparse
from functools import partial
from pathlib import Path

from experiments.features.table import Row, read_rows

from autopsae.report.concept_plots import Drawn, draw_concepts
from autopsae.report.plots import write_figure

FIGURES = Path(__file__).parent / "figures"


def summary(row: Row) -> Drawn:
    curve, chance = ({float(limit): n for limit, n in row[name].items()} for name in ("curve", "curve_by_chance"))
    return Drawn(live=row["live"], curve=curve, chance=chance, best=row["best"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    FIGURES.mkdir(exist_ok=True)
    rows = [row for row in read_rows() if row["seed"] == seed]
    for layer, training in dict.fromkeys((row["layer"], row["training"]) for row in rows):
        saes = {row["sae"]: summary(row) for row in rows if (row["layer"], row["training"]) == (layer, training)}
        suffix = "" if training == "all tokens" else f"-{training.replace(' ', '-')}"
        write_figure(FIGURES / f"{layer}{suffix}.png", partial(draw_concepts, saes))


if __name__ == "__main__":
    main()
