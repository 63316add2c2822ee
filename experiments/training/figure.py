"""Death over training: `python experiments/training/figure.py FIGURE.png RESULTS.json [RESULTS.json ...]`.

A column per layer; above without AuxK, below with it. Solid: dead latents, dashed: those that are dead-by-ReLU, on
held-out tokens.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

COLOURS = {
    "none": "#7f7f7f",
    "mean": "#d95f02",
    "median": "#1f78b4",
    "whiten_0.15": "#a6dba0",
    "whiten_0.3": "#5aae61",
    "whiten_0.5": "#1b7837",
    "whiten": "#762a83",
}


def draw(axes: Any, rows: list[dict[str, Any]]) -> None:
    """One panel."""
    for row in rows:
        steps = [point["step"] for point in row["curve"]]
        colour = COLOURS[row["remedy"]]
        axes.plot(steps, [100 * point["dead"] for point in row["curve"]], color=colour, label=row["remedy"])
        axes.plot(steps, [100 * point["relu"] for point in row["curve"]], color=colour, linestyle="--", linewidth=1)
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    target, *paths = sys.argv[1:]
    results = [json.loads(Path(path).read_text()) for path in paths]
    figure, grid = plt.subplots(2, len(results), figsize=(4.6 * len(results) + 1.4, 6), sharex=True, sharey=True)
    for column, (path, result) in enumerate(zip(paths, results, strict=True)):
        for line, auxk in enumerate((False, True)):
            draw(grid[line][column], [row for row in result["rows"] if row["auxk"] == auxk])
            grid[line][0].set_ylabel(f"dead latents, %\n({'with' if auxk else 'without'} AuxK)")
        grid[0][column].set_title(Path(path).stem.replace("_", " "))
        grid[1][column].set_xlabel("step")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center right", frameon=False, title="solid: dead\ndashed: by ReLU")
    figure.tight_layout(rect=(0, 0, 0.86, 1))
    figure.savefig(target, dpi=140)


if __name__ == "__main__":
    main()
