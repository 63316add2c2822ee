"""Table 1 on real layers: concepts covered by number of latents, with random rows, raw neurons and shuffled labels.

python -m experiments.trained.table1 --scale quick|full
"""

from typing import Any

from experiments.outliers_2605_31518.frame import Claim, Data, Scale, at_least
from experiments.outliers_2605_31518.style import legend_below, sheet
from experiments.trained.arms import SIZED
from experiments.trained.layers import LAYERS
from experiments.trained.pictures import (
    COLOURS,
    about,
    caption,
    concepts_at,
    entitle,
    figure,
    label,
    spread,
    steps_of,
)
from experiments.trained.reproduce import main
from experiments.trained.rows import CONCEPTS, Row, rows_at

from autopsae.arrays import InputError

SHOWN = (*SIZED, "random rows")


def compute(scale: Scale) -> Data:
    known, ends, missing = concepts_at(steps_of(scale)), dict[str, Any](), list[str]()
    rows = {name: of for name, of in rows_at(steps_of(scale), SIZED).items() if LAYERS[name].sizes}
    for name in rows:
        mine = [row for row in known.values() if row["layer"] == name]
        of_arms = {arm: by_size([row for row in mine if row["arm"] == arm]) for arm in SHOWN}
        if lacking := [f"{arm} {n}" for arm in SIZED for n in LAYERS[name].sizes if str(n) not in of_arms[arm]]:
            missing.append(f"{', '.join(lacking)} of {name}")
            continue  # a layer whose trainings go on
        ends[name] = {**of_arms, "neurons": spread([row["covered"] for row in mine if row["arm"] == "neurons"])}
    if not ends:
        layers = ", ".join(name for name, layer in LAYERS.items() if layer.sizes)
        lack = f"missing {'; '.join(missing)}" if missing else "got none"
        steps = f"{steps_of(scale):,} steps"
        raise InputError(f"{CONCEPTS}: expected all sizes of Table 1 on {layers} at {steps}, {lack}")
    concepts = {name: next(row["concepts"] for row in known.values() if row["layer"] == name) for name in ends}
    return {**about({name: rows[name] for name in ends}), "ends": ends, "concepts": concepts}


def by_size(rows: list[Row]) -> dict[str, Any]:
    """{number of latents: concepts covered, on shuffled labels, mean F1 and live latents, over seeds}."""
    keys = ("covered", "covered_by_chance", "covered_by_probe", "mean_f1", "live")
    return {
        str(size): {key: spread([row[key] for row in rows if row["d_sae"] == size]) for key in keys}
        for size in sorted({row["d_sae"] for row in rows})
    }


def draw(data: Data) -> Any:
    layers = data["layers"]
    picture, axes = sheet(1, len(layers), width=max(7.0, 5.5 * len(layers)), height=4.6)
    for axis, (name, layer) in zip(axes[0], layers.items(), strict=True):
        for arm in SHOWN:
            of = data["ends"][name][arm]
            sizes = [int(size) for size in of]
            for key, style in (("covered", "-"), ("covered_by_chance", ":")):
                mean, low, high = (
                    zip(*(numbers[key] for numbers in of.values()), strict=True) if of else ((), (), ())
                )
                said = label(arm) if key == "covered" else None
                axis.plot(sizes, mean, style, marker="o", ms=4, color=COLOURS[arm], label=said)
                axis.fill_between(sizes, low, high, color=COLOURS[arm], alpha=0.15, linewidth=0)
        if neurons := data["ends"][name]["neurons"]:
            axis.axhline(neurons[0], color=COLOURS["neurons"], lw=1, ls="--", label=label("neurons"))
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_xlabel("latents")
        axis.set_ylabel(f"concepts covered, of {data['concepts'][name]}")
        axis.set_ylim(bottom=0)
        axis.set_title(f"{layer['title']}, γ = {layer['gamma']:.2g}", fontsize=10, loc="left")
    legend_below(picture, axes[0, 0], 3)
    entitle(picture, f"{caption(data)}\ndotted: on labels of other documents")
    return picture


def claims(data: Data) -> list[Claim]:
    made = []
    for arm, paper in (("centered", "100 against 73"), ("prescribed", "-")):
        more, same = [], []
        for name, of in data["ends"].items():
            own, sizes = data["layers"][name]["d_sae"], LAYERS[name].sizes
            four = 4 * LAYERS[name].d_sae
            assert four in sizes, (own, sizes)
            covered = of[arm][str(LAYERS[name].d_sae)]["covered"][0]
            more.append(covered - of["baseline"][str(four)]["covered"][0])
            same += [of[arm][str(n)]["covered"][0] - of["baseline"][str(n)]["covered"][0] for n in sizes]
        words = f"concepts covered, {arm} at 2,048 latents minus baseline at 8,192, least over layers"
        made.append(at_least("table1", words, paper=paper, ours=min(more), limit=0.0))
        words = f"concepts covered, {arm} minus baseline of the same size, least over sizes and layers"
        said = "39, 52 and 54" if arm == "centered" else "-"
        made.append(at_least("table1", words, paper=said, ours=min(same), limit=1.0))
    return made


FIGURE = figure("table1", compute, draw, claims)

if __name__ == "__main__":
    main(FIGURE)
