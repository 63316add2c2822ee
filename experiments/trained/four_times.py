"""Does a cured SAE equal a baseline of four times its size? On concepts, probes and monosemanticity, by layer.

    python -m experiments.trained.four_times --scale quick|full

Concepts: the rows of `experiments.trained.compare`, with intervals over concepts and over documents; beside them
the baseline of the same size, random rows and raw neurons. Probes: the mean difference of AUC over labels, with an
interval over labels drawn anew. Monosemanticity: the difference of the mean scores of live latents, with an
interval from their spread. Intervals hold in 9 cases of 10.
"""

from typing import Any

import numpy as np
from experiments.outliers_2605_31518.frame import Claim, Data, Scale, at_least
from experiments.outliers_2605_31518.style import BLACK, legend_below, sheet
from experiments.trained.compare import CURED, NEAR, SMALL, read_compared, verdict
from experiments.trained.layers import layer_of
from experiments.trained.measure import KS
from experiments.trained.pictures import COLOURS, about, caption, entitle, figure, label, steps_of
from experiments.trained.reproduce import main
from experiments.trained.rows import COMPARED, Row, rows_at

from autopsae.arrays import InputError

SHOWN = (*CURED, SMALL, "random rows", "neurons")
LEAST = 10
"""Concepts under which a layer tells too little to be counted in a claim."""
SCORES = {
    "mean": "mean monosemanticity of live latents",
    "mean_with_dead_as_zero": "mean monosemanticity, dead latents as 0",
}
Interval = list[float]


def compute(scale: Scale) -> Data:
    compared = read_compared(steps_of(scale))
    if not compared:
        raise InputError(f"{COMPARED}: expected rows at {steps_of(scale):,} steps, got none; run the trainings")
    every = rows_at(steps_of(scale), (SMALL, *CURED))
    rows = {name: of for name, of in every.items() if any(row["layer"] == name for row in compared)}
    ends = {name: concepts_of([row for row in compared if row["layer"] == name]) for name in rows}
    scores = {
        name: {
            arm: {"probes": auc_gain(of, arm), **{key: score_gain(of, arm, key) for key in SCORES}} for arm in CURED
        }
        for name, of in every.items()
    }
    return {**about(rows), "ends": ends, "scores": scores}


def concepts_of(rows: list[Row]) -> dict[str, Any]:
    """Of a layer: what the larger baseline covers, and for each other the gains and the verdicts, seed by seed."""
    known = [arm for arm in SHOWN if any(arm in row["gains"] for row in rows)]
    return {
        "concepts": rows[0]["concepts"],
        "documents": rows[0]["documents"],
        "covered": [row["covered"] for row in rows],
        "gains": {
            arm: [
                {
                    key: row["gains"][arm][key]
                    for key in (
                        *("more_covered", "more_covered_by_documents", "more_covered_by_concepts", "more_f1"),
                        *("equal_live", "covered_by_equal_live", "baseline_by_equal_live"),
                    )
                }
                | {"verdict": verdict(row["gains"][arm], row["covered"])}
                for row in rows
                if arm in row["gains"]
            ]
            for arm in known
        },
    }


def pairs(rows: list[Row], arm: str) -> list[tuple[Row, Row]]:
    """(the arm at the layer's size, the baseline of four times the size), seed by seed."""
    size = layer_of(rows[0]["layer"]).d_sae
    at = {(row["arm"], row["d_sae"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    wanted = [(at.get((arm, size, seed)), at.get((SMALL, 4 * size, seed))) for seed in seeds]
    return [(own, large) for own, large in wanted if own is not None and large is not None]


def auc_gain(rows: list[Row], arm: str) -> Interval | None:
    """[mean, low, high] of the AUC at 16 latents minus the larger baseline's, over labels; None without probes."""
    both = [(own["probes"], large["probes"]) for own, large in pairs(rows, arm)]
    if not both or not all(own and large for own, large in both):
        return None
    place = KS.index(16)
    differences = np.array(
        [
            [
                own["labels"][name]["latents"][place] - large["labels"][name]["latents"][place]
                for name in own["labels"]
            ]
            for own, large in both
        ]
    ).mean(axis=0)
    chance = np.random.default_rng(0)
    drawn = differences[chance.integers(0, len(differences), (1000, len(differences)))].mean(axis=1)
    return [float(value) for value in (differences.mean(), *np.percentile(drawn, (5, 95)))]


def score_gain(rows: list[Row], arm: str, key: str) -> Interval | None:
    """[mean, low, high] of a mean score minus the larger baseline's; None without scores. key: of SCORES."""
    both = [(own["monosemanticity"], large["monosemanticity"]) for own, large in pairs(rows, arm)]
    if not both or not all(one and one["mean"] is not None for pair in both for one in pair):
        return None
    difference = float(np.mean([own[key] - large[key] for own, large in both]))
    variances = [sum(variance(one, key) for one in pair) for pair in both]
    off = 1.645 * float(np.sqrt(np.sum(variances))) / len(both)
    return [difference, difference - off, difference + off]


def variance(score: Row, key: str) -> float:
    """Of a mean score, over latents."""
    n, square = score["scored"], score["std"] ** 2
    if key == "mean":
        return float(square / n)
    # n scores of this mean and spread, and zeros for the other latents.
    whole = n * (square + score["mean"] ** 2) / score["d_sae"] - score[key] ** 2
    return float(whole / score["d_sae"])


def draw(data: Data) -> Any:
    ends, scores = data["ends"], data["scores"]
    panels = {"probes": "AUC of probes on 16 latents", **SCORES}
    panels = {key: named for key, named in panels.items() if _layers_with(scores, key)}
    height = max(4.5, 0.9 * len(ends) + 2.2)
    picture, axes = sheet(1, 1 + len(panels), width=6.5 + 4 * len(panels), height=height)
    for place, of in enumerate(ends.values()):
        for n, (arm, gains) in enumerate(of["gains"].items()):
            colour = COLOURS[arm]
            for seed, gain in enumerate(gains):
                at = place + 0.8 * ((n + (seed + 0.5) / len(gains)) / len(of["gains"]) - 0.5)
                axes[0, 0].plot(gain["more_covered_by_concepts"], (at, at), color=colour, lw=0.8)
                axes[0, 0].plot(gain["more_covered_by_documents"], (at, at), color=colour, lw=2.4)
                said = label(arm) if place == seed == 0 else None
                axes[0, 0].plot(gain["more_covered"], at, "o", color=colour, ms=4, label=said)
    _rows(axes[0, 0], list(ends), "concepts covered, minus those\nof a baseline of 4 times the size")
    for axis, (key, named) in zip(axes[0, 1:], panels.items(), strict=True):
        names = _layers_with(scores, key)
        for place, name in enumerate(names):
            for n, (arm, of) in enumerate(scores[name].items()):
                if of[key]:
                    at = place + 0.5 * ((n + 0.5) / len(CURED) - 0.5)
                    axis.plot(of[key][1:], (at, at), color=COLOURS[arm], lw=2.4)
                    axis.plot(of[key][0], at, "o", color=COLOURS[arm], ms=4)
        _rows(axis, names, f"{named},\nminus that of the larger baseline")
    legend_below(picture, axes[0, 0], 3)
    said = "thick: interval over documents; thin: over concepts; a line per seed"
    entitle(picture, f"{caption(data)}\n{said}")
    return picture


def _layers_with(scores: Row, key: str) -> list[str]:
    """The layers with numbers."""
    return [name for name in scores if any(of[key] for of in scores[name].values())]


def _rows(axis: Any, names: list[str], named: str) -> None:
    axis.axvline(0, color=BLACK, lw=0.8)
    axis.locator_params(axis="x", nbins=5)
    axis.set_yticks(range(len(names)), [layer_of(name).title for name in names], fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel(named)


def claims(data: Data) -> list[Claim]:
    made = []
    for arm, paper in (("centered", "match a 4 times larger baseline"), ("prescribed", "-")):
        enough = [of for of in data["ends"].values() if of["concepts"] >= LEAST]
        every = [gain["verdict"] for of in enough for gain in of["gains"].get(arm, [])]
        good = sum(said in ("more", "within a tenth") for said in every) / max(len(every), 1)
        words = f"layers and seeds on which {arm} covers at most {NEAR:.0%} fewer concepts than the larger baseline"
        made.append(at_least("four_times", words, paper=paper, ours=good, limit=0.9))
        for key, named in {"probes": "AUC of probes on 16 latents", **SCORES}.items():
            known = [of[arm][key] for of in data["scores"].values() if of[arm][key]]
            if known:
                words = f"{named}, {arm} minus the larger baseline: highest end of its interval, least over layers"
                more = "more monosemantic" if arm == "centered" and key in SCORES else "-"
                made.append(
                    at_least("four_times", words, paper=more, ours=min(high for _, _, high in known), limit=0.0)
                )
    return made


FIGURE = figure("four_times", compute, draw, claims)

if __name__ == "__main__":
    main(FIGURE)
