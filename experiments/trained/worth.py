"""What an SAE is worth beside one of four times its size: picture and tables of docs/worth.md, from the rows.

    python -m experiments.trained.worth [--steps 5000]

A layer is shown once its baselines of both sizes and its cured SAEs have rows. Numbers are means over seeds, with
the lowest and the highest in brackets where they differ as shown.
"""

import argparse
from pathlib import Path

from experiments.outliers_2605_31518.table import mean_and_range, write_between
from experiments.trained.arms import ARMS, CONTROLS, LR
from experiments.trained.compare import CURED, SMALL, read_compared, verdict
from experiments.trained.layers import LAYERS, Layer
from experiments.trained.measure import KS
from experiments.trained.plan import SCALES
from experiments.trained.rows import COMPARED, Row, read_rows
from experiments.trained.worth_picture import draw, numbers

from autopsae.arrays import InputError
from autopsae.files import write_whole

PAGE = Path(__file__).parents[2] / "docs" / "worth.md"
BEGIN, END = "<!-- the layers: written by experiments.trained.worth -->", "<!-- end of the layers -->"
SHOWN = (SMALL, *CURED, "random rows", "neurons")
"""The arms at the layer's own size; the baseline of four times as many latents comes first."""
HEADS = ("SAE", "latents", "alive at the end", "raw FVU", "concepts", "AUC", "monosemanticity", "is it as good?")


def tables(steps: int) -> str:
    """All layers that can be shown."""
    compared = read_compared(steps)
    every = [row for row in read_rows() if (row["steps"], row["lr"]) == (steps, LR)]
    made = []
    for name, of in LAYERS.items():
        rows, pairs = ([row for row in some if row["layer"] == name] for some in (every, compared))
        if pairs:
            made.append(table(of, rows, pairs))
    if not made:
        raise InputError(f"{COMPARED}: expected rows at {steps:,} steps, got none; run the trainings")
    return "\n\n".join(made)


def table(of: Layer, rows: list[Row], compared: list[Row]) -> str:
    """A line per SAE. rows, compared: of the layer."""
    first = rows[0]
    said = f"### {of.title}\n\nd_in {first['d_in']:,}, gamma {first['gamma']:.3g}, k {of.k}, "
    said += f"{first['steps']:,} steps, {first['test_tokens']:,} test tokens"
    if compared[0]["concepts"]:
        said += f" of {compared[0]['documents']:,} documents, {compared[0]['concepts']:,} concepts"
    lines = [f"{said}.", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for arm, size in [(SMALL, 4 * of.d_sae), *((arm, of.d_sae) for arm in SHOWN)]:
        own = [row for row in rows if (row["arm"], row["d_sae"]) == (arm, size)]
        if own:
            lines.append(f"| {' | '.join(_cells(arm, own, compared, large=size != of.d_sae))} |")
    return "\n".join(lines)


def _cells(arm: str, rows: list[Row], compared: list[Row], *, large: bool) -> list[str]:
    name = CONTROLS[arm] if arm in CONTROLS else ARMS[arm].label
    gains = [] if large else [(row["gains"][arm], row["covered"]) for row in compared if arm in row["gains"]]
    covered = [row["covered"] for row in compared] if large else [whole + of["more_covered"] for of, whole in gains]
    n = compared[0]["concepts"]
    probes = [_auc(row["probes"]) for row in rows if row["probes"]]
    scores = [row["monosemanticity"]["mean"] for row in rows if row["monosemanticity"]]
    return [
        f"**{name}, four times the size**" if large else name,
        f"{rows[0]['latents']:,}",
        mean_and_range([1 - row["end"]["dead"] for row in rows], lambda value: f"{value:.0%}"),
        ""
        if arm == "neurons"
        else mean_and_range([row["end"]["fvu_raw"] for row in rows], lambda value: f"{value:.3g}"),
        mean_and_range(covered, lambda value: f"{value:.3g}") + (f" of {n}" if covered else ""),
        mean_and_range(probes, lambda value: f"{value:.3f}"),
        mean_and_range([score for score in scores if score is not None], lambda value: f"{value:.3f}"),
        ", ".join(verdict(of, whole) for of, whole in gains),
    ]


def _auc(probes: Row) -> float:
    """The mean over labels of a probe on 16 latents."""
    values = [of["latents"][KS.index(16)] for of in probes["labels"].values()]
    return float(sum(values) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=SCALES["full"].steps)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args()
    write_between(asked.page, BEGIN, END, tables(asked.steps))
    picture = draw(numbers(asked.steps))
    write_whole(asked.page.with_suffix(".png"), lambda temporary: picture.savefig(temporary, format="png", dpi=140))


if __name__ == "__main__":
    main()
