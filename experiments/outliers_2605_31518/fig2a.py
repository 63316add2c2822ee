"""Figure 2a: dead latents of trained TopK SAEs over models of four modalities, with and without AuxK.

    python -m experiments.outliers_2605_31518.fig2a

The SAEs are the authors' (authors/trained_results.csv), one layer of each of 14 models. Nothing is trained here.
"""

from statistics import median

from experiments.outliers_2605_31518.frame import (
    REAL,
    Claim,
    Data,
    Reproduction,
    Scale,
    at_least,
    at_most,
    main,
    near,
)
from experiments.outliers_2605_31518.released import MODALITIES, TRAININGS, trainings
from experiments.outliers_2605_31518.style import death_axis, sheet
from matplotlib.figure import Figure
from matplotlib.patches import Patch

WORST = 0.9
"""Ours: with more dead at the end of the baseline a model is one of the paper's "worst cases"."""


def compute(scale: Scale) -> Data:
    """A row per model, the fewest dead first."""
    rows = sorted(trainings(), key=lambda row: row["end"]["baseline"])
    return {"draws": scale.draws, "rows": rows}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 1, width=10, height=4.8)
    axis, rows = axes[0, 0], data["rows"]
    for place, row in enumerate(rows):
        colour = MODALITIES[row["modality"]]
        axis.bar(place - 0.2, row["end"]["baseline"], width=0.38, color=colour)
        axis.bar(place + 0.2, row["end"]["auxk"], width=0.38, facecolor="white", edgecolor=colour, hatch="////")
        axis.plot(place - 0.2, row["birth"]["baseline"], "_", color="black", ms=11)
    axis.set_xticks(
        range(len(rows)), [f"{row['model']}\nlayer {row['layer']}" for row in rows], fontsize=8, rotation=40
    )
    death_axis(axis, "dead after training, fraction of latents")
    handles = [Patch(color=colour, label=modality) for modality, colour in MODALITIES.items()]
    handles.append(Patch(facecolor="white", edgecolor="0.3", hatch="////", label="with AuxK"))
    axis.legend(handles=handles, frameon=False, fontsize=9, loc="upper left")
    axis.set_title("the authors' SAEs; black lines: dead at birth, without AuxK", fontsize=10, loc="left")
    return figure


def claims(data: Data) -> list[Claim]:
    rows = data["rows"]
    ends = [row["end"]["baseline"] for row in rows]
    language = [row["end"] for row in rows if row["modality"] == "language"]
    others = [row["end"] for row in rows if row["modality"] != "language"]
    worst = [row for row in rows if row["end"]["baseline"] > WORST]
    named = ", ".join(row["model"] for row in worst)
    return [
        at_most("fig2a", "dead at the end, least of 14 models", paper="under 0.05", ours=min(ends), limit=0.05),
        at_least("fig2a", "dead at the end, most of 14 models", paper="over 0.95", ours=max(ends), limit=0.95),
        at_least(
            "fig2a",
            "median dead at the end of the models of other modalities minus that of language models",
            paper="tend toward higher death",
            ours=median([end["baseline"] for end in others]) - median([end["baseline"] for end in language]),
            limit=0.0,
        ),
        near(
            "fig2a",
            f"language models ({len(language)}): dead at the end of the better of baseline and AuxK, most of any",
            paper=0.0,
            ours=max(min(end["baseline"], end["auxk"]) for end in language),
            by=0,
        ),
        at_least(
            "fig2a",
            f"vision, protein and genomic models ({len(others)}) with the majority dead at the end of the baseline",
            paper="many",
            ours=float(sum(end["baseline"] > 0.5 for end in others)),
            limit=3,
        ),
        at_least(
            "fig2a",
            "models of which AuxK leaves at least 0.1 fewer dead at the end",
            paper="some",
            ours=float(sum(row["end"]["baseline"] - row["end"]["auxk"] >= 0.1 for row in rows)),
            limit=3,
        ),
        at_least(
            "fig2a",
            f"worst cases ({named}): dead at the end with AuxK, least",
            paper=0.75,
            ours=min(row["end"]["auxk"] for row in worst),
            limit=0.75,
        ),
    ]


FIGURE = Reproduction(name="fig2a", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=(TRAININGS,))

if __name__ == "__main__":
    main(FIGURE)
