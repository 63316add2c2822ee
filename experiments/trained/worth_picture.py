"""The picture of docs/worth.md: by layer, who is dead, how large the error is, and how many concepts are known.

Dots are means over seeds, lines go from the lowest to the highest. The layers on which most of the baseline dies
come first. All is taken from the rows that the tables of the page show (`experiments.trained.worth` writes both).
"""

from typing import Any

from experiments.outliers_2605_31518.style import BLUE, GREEN, RED, SKY, legend_below, sheet
from experiments.trained.arms import LR
from experiments.trained.compare import CURED, SMALL, read_compared
from experiments.trained.layers import LAYERS
from experiments.trained.pictures import spread
from experiments.trained.rows import CONCEPTS, TRAINED, Row, read_rows, rows_at

LOOKS = {
    (SMALL, 4): ("baseline (b = 0), four times the size", RED, "D", "full"),
    (SMALL, 1): ("baseline (b = 0)", RED, "o", "none"),
    ("centered", 1): ("centered (geometric median)", BLUE, "o", "full"),
    ("prescribed", 1): ("prescribed", GREEN, "o", "full"),
    ("random rows", 1): ("random rows", SKY, "s", "full"),
}
"""{(arm, times the layer's own size): label, colour, marker, filling}."""
PANELS = (
    "dead at the end,\nfraction of latents",
    "raw FVU / that of a baseline\nof four times the size",
    "concepts covered,\nfraction of all",
)
Spread = list[float] | None
Panel = dict[tuple[str, int], Spread]
"""{SAE, as in `LOOKS`: mean, lowest and highest over seeds}."""


def numbers(steps: int) -> dict[str, list[Panel]]:
    """{layer: its numbers in each panel}, most of the baseline dead first."""
    compared = {row["layer"] for row in read_compared(steps)}
    ends, concepts = (
        [row for row in read_rows(file) if (row["steps"], row["lr"]) == (steps, LR)] for file in (TRAINED, CONCEPTS)
    )
    of_layers = {}
    for name in rows_at(steps, (SMALL, *CURED)):
        if name in compared:
            rows, known = ([row for row in some if row["layer"] == name] for some in (ends, concepts))
            of_layers[name] = [
                {sae: spread([row["end"]["dead"] for row in _of(rows, name, sae)]) for sae in LOOKS},
                {sae: spread(_errors(rows, name, sae)) for sae in LOOKS if sae[0] != "random rows"},
                {sae: spread([row["covered"] / row["concepts"] for row in _of(known, name, sae)]) for sae in LOOKS},
            ]
    return dict(sorted(of_layers.items(), key=lambda item: _mean(item[1][0][SMALL, 1]), reverse=True))


def _of(rows: list[Row], layer: str, sae: tuple[str, int]) -> list[Row]:
    """Those of an arm at this multiple of the layer's size, by seed."""
    mine = [row for row in rows if (row["arm"], row["d_sae"]) == (sae[0], sae[1] * LAYERS[layer].d_sae)]
    return sorted(mine, key=lambda row: row["seed"])


def _errors(rows: list[Row], layer: str, sae: tuple[str, int]) -> list[float]:
    """The error over that of the larger baseline of the same seed, for seeds that have both."""
    larger = {row["seed"]: row["end"]["fvu_raw"] for row in _of(rows, layer, (SMALL, 4))}
    own = {row["seed"]: row["end"]["fvu_raw"] for row in _of(rows, layer, sae)}
    return [own[seed] / larger[seed] for seed in own if seed in larger]


def _mean(of: Spread) -> float:
    return of[0] if of else 0.0


def draw(of_layers: dict[str, list[Panel]]) -> Any:
    picture, axes = sheet(1, len(PANELS), width=11, height=1.6 + 0.42 * len(of_layers), sharey=True)
    for panel, (axis, words) in enumerate(zip(axes[0], PANELS, strict=True)):
        for place, of in enumerate(of_layers.values()):
            for n, (sae, ends) in enumerate(of[panel].items()):
                if ends:
                    _, colour, marker, filling = LOOKS[sae]
                    height = place + 0.1 * (n - 2)
                    axis.plot(ends[1:], (height, height), color=colour, lw=1.5)
                    axis.plot(ends[0], height, marker, color=colour, ms=6, fillstyle=filling)
        axis.set_xlabel(words)
    for label, colour, marker, filling in LOOKS.values():
        axes[0, 0].plot([], [], marker, color=colour, ms=6, fillstyle=filling, label=label)
    first = axes[0, 0]
    first.set_yticks(range(len(of_layers)), [LAYERS[name].title for name in of_layers], fontsize=9)
    first.set_ylim(len(of_layers) - 0.5, -0.5)
    axes[0, 1].axvline(1.0, color=RED, lw=1, ls=":")
    legend_below(picture, first, 3)
    return picture
