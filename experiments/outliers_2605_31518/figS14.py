"""Figure S14: centering before training on 14 models: dead at birth and at the end, baseline, AuxK and centered.

    python -m experiments.outliers_2605_31518.figS14

The SAEs are the authors' (authors/trained_results.csv); gamma of their layers is from authors/init_stats.csv. The
centered run of DINOv3-B is left out: the two tables contradict each other on it (authors/README.md).
"""

from typing import Any

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
from experiments.outliers_2605_31518.released import LAYERS, TRAININGS, UNTRUSTED, Row, layers, spearman, trainings
from experiments.outliers_2605_31518.style import BLACK, BLUE, ORANGE, death_axis, gamma_axis, sheet
from matplotlib.figure import Figure

CONDITIONS = {"baseline": (BLACK, "o"), "auxk": (ORANGE, "s"), "centered": (BLUE, "D")}
LABELS = {"baseline": "baseline", "auxk": "AuxK", "centered": "centered"}
LOW, HIGH = ("GPT-2", "Pythia-410M"), ("ESM3", "AlphaFold3", "ESM2-3B")
"""The models of which the paper says that centering changes them least, and most."""
LOW_RANK = "Evo1"
"""The paper's exception."""


def compute(scale: Scale) -> Data:
    """A row per model by rising gamma, with death on the same layer in the other table."""
    other = {(row["model"], row["layer"]): row for row in layers()}
    rows = [
        {
            **row,
            "gamma": other[row["model"], row["layer"]]["gamma"],
            "table": {"baseline": other[row["model"], row["layer"]]["dead"]},
        }
        for row in trainings()
    ]
    for row in rows:
        row["table"]["centered"] = other[row["model"], row["layer"]]["centered"]
    return {"draws": scale.draws, "rows": sorted(rows, key=lambda row: row["gamma"])}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=13, height=5.2, width_ratios=(1.5, 1))
    course, reductions = axes[0]
    rows = data["rows"]
    for place, row in enumerate(rows):
        for shift, (name, (colour, marker)) in zip((-0.22, 0, 0.22), CONDITIONS.items(), strict=True):
            if (row["model"], name) != (UNTRUSTED, "centered"):
                birth, end, at = row["birth"][name], row["end"][name], place + shift
                course.plot((at, at), (birth, end), color=colour, linewidth=1.2, alpha=0.6)
                course.plot(at, birth, marker, color=colour, ms=5, fillstyle="none")
                course.plot(at, end, marker, color=colour, ms=5, label=LABELS[name] if place == 1 else None)
    names = [f"{row['model']}\nγ {row['gamma']:.2g}" for row in rows]
    course.set_xticks(range(len(rows)), names, fontsize=8, rotation=40)
    death_axis(course, "dead, fraction of latents")
    course.set_title("outlined: at birth; filled: after training", fontsize=10, loc="left")
    some = _trusted(rows)
    for when, fill in (("birth", "none"), ("end", BLUE)):
        gains = [row[f"gain_{when}"] for row in some]
        gammas = [row["gamma"] for row in some]
        reductions.scatter(gammas, gains, s=34, facecolor=fill, edgecolor=BLUE, label=f"at {when}")
    for row in some:
        if row["model"] in (*HIGH, LOW_RANK):
            reductions.annotate(row["model"], (row["gamma"], row["gain_end"]), fontsize=8, va="bottom")
    gamma_axis(reductions)
    death_axis(reductions, "dead of the baseline minus dead when centered")
    reductions.legend(frameon=False, fontsize=9, loc="upper left")
    handles, labels = course.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _trusted(rows: list[Row]) -> list[Row]:
    """The rows with a centered run to trust, and what centering gains at birth and at the end."""
    return [
        {**row, **{f"gain_{when}": row[when]["baseline"] - row[when]["centered"] for when in ("birth", "end")}}
        for row in rows
        if row["model"] != UNTRUSTED
    ]


def claims(data: Data) -> list[Claim]:
    rows = {row["model"]: row for row in _trusted(data["rows"])}
    return [*_end_claims(rows), *_gain_claims(rows), *_agreement(data["rows"])]


def _end_claims(rows: dict[str, Row]) -> list[Claim]:
    ends = {model: row["end"] for model, row in rows.items()}
    others = [end["centered"] for model, end in ends.items() if model != LOW_RANK]
    return [
        near(
            "figS14",
            f"centered, all but Evo1 ({len(others)} models): dead at the end, most",
            paper=0.0,
            ours=max(others),
            by=0.005,
        ),
        near(
            "figS14",
            "Evo1, centered: dead at birth",
            paper=0.73,
            ours=rows[LOW_RANK]["birth"]["centered"],
            # The paper has 0.73 here and in Table S8, and 0.71 in Figure S19.
            by=0.02,
        ),
        near("figS14", "Evo1, centered: dead at the end", paper=0.58, ours=ends[LOW_RANK]["centered"], by=0.005),
        near("figS14", "ESM3, baseline: dead at the end", paper=0.75, ours=ends["ESM3"]["baseline"], by=0.1),
        near("figS14", "ESM3, AuxK: dead at the end", paper=0.25, ours=ends["ESM3"]["auxk"], by=0.01),
        near("figS14", "ESM3, centered: dead at the end", paper=0.0, ours=ends["ESM3"]["centered"], by=0.005),
    ]


def _gain_claims(rows: dict[str, Row]) -> list[Claim]:
    made = []
    for when in ("birth", "end"):
        gain = {model: row[f"gain_{when}"] for model, row in rows.items() if model != LOW_RANK}
        others = max(value for model, value in gain.items() if model not in HIGH)
        ranked: list[dict[str, Any]] = [{"gamma": rows[model]["gamma"], "gain": gain[model]} for model in gain]
        made += [
            at_most(
                "figS14",
                f"GPT-2 and Pythia-410M: gain of centering, at {when}, most",
                paper="minimal change",
                ours=max(gain[model] for model in LOW),
                limit=0.05,
            ),
            at_least(
                "figS14",
                f"ESM3, AlphaFold3 and ESM2-3B: least gain of centering, at {when}, minus the most of the others",
                paper="the largest reductions",
                ours=min(gain[model] for model in HIGH) - others,
                limit=0.0,
            ),
            at_least(
                "figS14",
                f"Spearman(gamma, gain of centering at {when}), {len(gain)} models, without Evo1",
                paper="proportional to gamma",
                ours=spearman(ranked, "gamma", "gain") or 0.0,
                limit=0.8,
            ),
        ]
    return made


def _agreement(rows: list[Row]) -> list[Claim]:
    """Whether the two tables say the same of birth."""
    off = {
        (row["model"], name): abs(row["birth"][name] - row["table"][name])
        for row in rows
        for name in ("baseline", "centered")
    }
    worst, largest = max(off.items(), key=lambda item: item[1])
    off.pop((UNTRUSTED, "centered"))
    rest = max(off.values())
    return [
        at_most(
            "figS14",
            f"largest difference of death at birth between the authors' two tables ({worst[0]}, {worst[1]})",
            paper="-",
            ours=largest,
            limit=0.05,
            key="largest difference of death at birth between the authors' two tables",
        ),
        at_most("figS14", "the same without DINOv3-B centered", paper="-", ours=rest, limit=0.05),
    ]


FIGURE = Reproduction(
    name="figS14", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=(LAYERS, TRAININGS)
)

if __name__ == "__main__":
    main(FIGURE)
