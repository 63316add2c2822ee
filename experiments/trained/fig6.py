"""Figure 6, bottom, on real layers: dead latents while training, then concepts and error at the end, by arm.

python -m experiments.trained.fig6 --scale quick|full
"""

from math import ceil
from typing import Any

from experiments.outliers_2605_31518.frame import Claim, Data, Scale, at_least, at_most
from experiments.outliers_2605_31518.style import death_axis, legend_below, sheet
from experiments.trained.fig2a import SEVERE, summary
from experiments.trained.pictures import (
    COLOURS,
    STYLES,
    at_own_size,
    caption_of_courses,
    concepts_at,
    entitle,
    figure,
    label,
    log_axis,
    spread,
    steps_of,
    strips,
)
from experiments.trained.reproduce import main
from experiments.trained.rows import Row, rows_at

SHOWN = ("baseline", "auxk", "layer norm", "centered", "prescribed")
COLUMNS = 4


def compute(scale: Scale) -> Data:
    rows, known = rows_at(steps_of(scale), SHOWN), concepts_at(steps_of(scale))
    data = summary(rows, SHOWN)
    for name, of in rows.items():
        for arm in SHOWN:
            mine = at_own_size(of, arm)
            end = data["ends"][name][arm]
            measured = [known.get(row["key"]) for row in mine]
            end["covered"] = spread([None if row is None else row["covered"] for row in measured])
            end["share covered"] = spread(
                [None if row is None else row["covered"] / row["concepts"] for row in measured]
            )
            end["curve"] = dead_curve(mine)
    return data


def dead_curve(rows: list[Row]) -> dict[str, list[Any]]:
    """Steps at which all seeds were looked at, and dead latents: mean, least and largest over seeds."""
    curves = [row["curve"] for row in rows]
    steps = sorted(set.intersection(*({*curve["step"]} for curve in curves)))

    def dead(curve: Row, step: int) -> float:
        n = curve["step"].index(step)
        return float(curve["relu"][n] + curve["topk"][n])

    return {"step": steps, "dead": [spread([dead(curve, step) for curve in curves]) for step in steps]}


def draw(data: Data) -> Any:
    layers = data["layers"]
    rows = ceil((len(layers) + 2) / COLUMNS)
    picture, axes = sheet(rows, COLUMNS, width=13, height=3.1 * rows + 0.6)
    places = list(axes.flat)
    for axis, (name, layer) in zip(places, layers.items(), strict=False):
        for arm in SHOWN:
            curve = data["ends"][name][arm]["curve"]
            mean, low, high = zip(*curve["dead"], strict=True)
            style = STYLES.get(arm, "-")
            axis.plot(curve["step"], mean, color=COLOURS[arm], ls=style, lw=1.8, label=label(arm))
            axis.fill_between(curve["step"], low, high, color=COLOURS[arm], alpha=0.18, linewidth=0)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(0, data["steps"])
        axis.set_xlabel("training steps")
        axis.set_title(f"{layer['title']}, γ = {layer['gamma']:.2g}", fontsize=9, loc="left")
        death_axis(axis, "dead, fraction of latents")
    concepts, errors = places[len(layers) : len(layers) + 2]
    strips(concepts, data, SHOWN, "share covered")
    concepts.set_ylabel("concepts covered, share")
    concepts.set_ylim(-0.03, 1.03)
    strips(errors, data, SHOWN, "fvu_raw")
    errors.set_ylabel("raw FVU at the end")
    log_axis(errors)
    for axis in (concepts, errors):
        axis.set_xticks(range(len(layers)), [layer["title"] for layer in layers.values()], fontsize=6, rotation=60)
    for axis in places[len(layers) + 2 :]:
        axis.remove()
    legend_below(picture, places[0], len(SHOWN))
    entitle(picture, caption_of_courses(data))
    return picture


def claims(data: Data) -> list[Claim]:
    ends, layers = data["ends"], data["layers"]
    worst = max(ends, key=lambda name: layers[name]["gamma"])
    named = f"the layer of the largest gamma ({layers[worst]['title']})"

    def claim(make: Any, words: str, **numbers: Any) -> Claim:
        made: Claim = make("fig6", f"{named}: {words}", key=f"the layer of the largest gamma: {words}", **numbers)
        return made

    end = {arm: ends[worst][arm]["end dead"][0] for arm in SHOWN}
    peak = max(mean for mean, _, _ in ends[worst]["centered"]["curve"]["dead"])
    made = [
        claim(at_least, "dead at the end, baseline", paper=0.75, ours=end["baseline"], limit=0.5),
        claim(
            at_least,
            "AuxK's place between centered (0) and baseline (1), dead at the end",
            paper="plateaus between",
            ours=(end["auxk"] - end["centered"]) / ((end["baseline"] - end["centered"]) or 1.0),
            limit=0.1,
        ),
        claim(at_most, "dead when centered, most over training", paper="near 0", ours=peak, limit=0.05),
        claim(
            at_least,
            "raw FVU at the end, LayerNorm / centered",
            paper="does not match centering",
            ours=ends[worst]["layer norm"]["fvu_raw"][0] / ends[worst]["centered"]["fvu_raw"][0],
            limit=1.02,
        ),
    ]
    severe = [
        name
        for name in ends
        if ends[name]["baseline"]["born dead"][0] > SEVERE and ends[name]["baseline"]["covered"] is not None
    ]
    for arm, paper in (("centered", "recovers more concepts"), ("prescribed", "-")):
        more = [ends[name][arm]["covered"][0] - ends[name]["baseline"]["covered"][0] for name in severe]
        if more:
            words = f"layers with over {SEVERE:.0%} born dead: concepts covered, {arm} minus baseline, least"
            made.append(at_least("fig6", words, paper=paper, ours=min(more), limit=1.0))
    return made


FIGURE = figure("fig6", compute, draw, claims)

if __name__ == "__main__":
    main(FIGURE)
