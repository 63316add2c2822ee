"""Figure S16 on real layers: distributions of monosemanticity scores, with raw neurons and random rows.

    python -m experiments.trained.figS16 --scale quick|full

The scores are under embeddings of an independent model of the same inputs, less their mean: the score of a latent
that fires at random is about 0.
"""

from typing import Any

import numpy as np
from experiments.outliers_2605_31518.frame import Claim, Data, Scale, at_least, at_most
from experiments.outliers_2605_31518.style import legend_below, sheet
from experiments.trained.measure import EDGES
from experiments.trained.pictures import (
    COLOURS,
    about,
    at_own_size,
    caption,
    entitle,
    figure,
    label,
    spread,
    steps_of,
)
from experiments.trained.reproduce import main
from experiments.trained.rows import TRAINED, Row, rows_at

from autopsae.arrays import InputError

SAES = ("baseline", "auxk", "centered", "prescribed")
SHOWN = (*SAES, "random rows", "neurons")
HIGH = 0.2
"""A score over it counts as high: the paper's own limit is lost."""


def compute(scale: Scale) -> Data:
    rows = {
        name: of for name, of in rows_at(steps_of(scale), SAES).items() if all(row["monosemanticity"] for row in of)
    }
    if not rows:
        raise InputError(f"{TRAINED}: expected a layer with embeddings of an independent model, got none")
    controls = rows_at(steps_of(scale), ("neurons", "random rows"))
    ends: dict[str, Any] = {
        name: {arm: scores(at_own_size([*of, *controls.get(name, [])], arm)) for arm in SHOWN}
        for name, of in rows.items()
    }
    models = {name: of[0]["monosemanticity"]["model"] for name, of in rows.items()}
    return {**about(rows), "ends": ends, "models": models}


def scores(rows: list[Row]) -> Row:
    """Over seeds: means, and the share of all latents, dead ones among them, with a score over each of EDGES."""
    every = [row["monosemanticity"] for row in rows]
    if not every:
        return {}
    over = np.mean([np.cumsum(one["counts"][::-1])[::-1] / one["d_sae"] for one in every], axis=0)
    high = EDGES.index(HIGH)
    return {
        "over": [float(f"{share:.4g}") for share in over],
        "high": spread([sum(one["counts"][high:]) / one["d_sae"] for one in every]),
        **{key: spread([one[key] for one in every]) for key in ("mean", "mean_with_dead_as_zero", "by_chance")},
    }


def draw(data: Data) -> Any:
    layers = data["layers"]
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    picture, axes = sheet(rows, columns, width=max(9.0, 4.2 * columns), height=1.2 + 3.6 * rows, sharey=True)
    for axis in axes.flat[len(layers) :]:
        axis.set_visible(False)
    for axis, (name, layer) in zip(axes.flat, layers.items(), strict=False):
        for arm in SHOWN:
            if end := data["ends"][name][arm]:
                axis.plot(EDGES[:-1], end["over"], color=COLOURS[arm], lw=1.8, label=label(arm))
        axis.set_xlabel("monosemanticity score")
        axis.set_title(f"{layer['title']}\nunder {data['models'][name]}", fontsize=9, loc="left")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of all latents with a higher score")
    axes[0, 0].set_ylim(-0.02, 1.02)
    legend_below(picture, axes[0, 0], 3)
    entitle(picture, caption(data))
    return picture


def claims(data: Data) -> list[Claim]:
    ends = data["ends"]
    made = []
    for arm, paper in (("centered", 2.0), ("prescribed", "-")):
        ratios = [of[arm]["high"][0] / max(of["baseline"]["high"][0], 1e-9) for of in ends.values()]
        words = f"latents with a score over {HIGH:g}, {arm} / baseline, least over layers"
        made.append(at_least("figS16", words, paper=paper, ours=min(ratios), limit=1.0))
    neurons = [of["neurons"]["mean"][0] for of in ends.values() if of["neurons"] and of["neurons"]["mean"]]
    if neurons:
        words = "raw neurons: mean score, most over layers"
        made.append(at_most("figS16", words, paper="near 0", ours=max(neurons), limit=0.1))
    chance = [of["centered"]["mean"][0] - of["random rows"]["mean"][0] for of in ends.values() if of["random rows"]]
    if chance:
        words = "mean score of live latents, centered minus random rows, least over layers"
        made.append(at_least("figS16", words, paper="-", ours=min(chance), limit=0.02))
    return made


FIGURE = figure("figS16", compute, draw, claims)

if __name__ == "__main__":
    main(FIGURE)
