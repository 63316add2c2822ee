"""Figure S18 and App. D.4 on real layers: what revives latents, or spares them, where nothing is centered.

    python -m experiments.trained.figS18 --scale quick|full

Ghost gradients, resampling, SparseAdam and the target-rate encoder bias of the paper's Section 7 from b = 0, beside
baseline and AuxK; and SparseAdam centered, beside centered.
"""

from typing import Any

from experiments.outliers_2605_31518.frame import Claim, Data, Scale, at_least, at_most
from experiments.outliers_2605_31518.style import death_axis, legend_below, sheet
from experiments.trained.fig2a import SEVERE, summary
from experiments.trained.pictures import caption, entitle, figure, log_axis, steps_of, strips
from experiments.trained.reproduce import main
from experiments.trained.rows import rows_at

SHOWN = (
    *("baseline", "auxk", "ghost", "resampling", "sparse adam"),
    *("rate bias", "centered", "sparse adam centered"),
)
HARDLY = 0.01
"""Fractions of dead latents that differ by less are the same."""


def compute(scale: Scale) -> Data:
    return summary(rows_at(steps_of(scale), SHOWN), SHOWN)


def draw(data: Data) -> Any:
    picture, axes = sheet(1, 3, width=15, height=5)
    for axis, (key, named) in zip(
        axes[0],
        {"born dead": "dead at birth", "end dead": "dead after training", "fvu_raw": "raw FVU"}.items(),
        strict=True,
    ):
        strips(axis, data, SHOWN, key)
        if key == "fvu_raw":
            axis.set_ylabel(named)
            log_axis(axis)
        else:
            death_axis(axis, f"{named}, fraction of latents")
    legend_below(picture, axes[0, 0], 4)
    entitle(picture, caption(data))
    return picture


def claims(data: Data) -> list[Claim]:
    ends, made = data["ends"], []
    severe = [of for of in ends.values() if of["baseline"]["born dead"][0] > SEVERE]
    if severe:
        words = f"layers with over {SEVERE:.0%} born dead"
        gains = [of["baseline"]["end dead"][0] - of["ghost"]["end dead"][0] for of in severe]
        left = max(of["ghost"]["end dead"][0] - of["centered"]["end dead"][0] for of in severe)
        made += [
            at_least(
                "figS18",
                f"{words}: gain of ghost gradients at the end, most",
                paper="partially help on some models",
                ours=max(gains),
                limit=HARDLY,
            ),
            at_least(
                "figS18",
                f"{words}: dead at the end, ghost gradients minus centered, most",
                paper="do not fix it",
                ours=left,
                limit=0.1,
            ),
        ]
    sparse = [of["sparse adam centered"]["end dead"][0] - of["centered"]["end dead"][0] for of in ends.values()]
    rate = [of["rate bias"]["end dead"][0] - of["centered"]["end dead"][0] for of in ends.values()]
    error = [of["rate bias"]["fvu_raw"][0] / of["centered"]["fvu_raw"][0] for of in ends.values()]
    resampled = [of["resampling"]["end dead"][0] - of["centered"]["end dead"][0] for of in ends.values()]
    return [
        *made,
        at_most(
            "figS18",
            "dead at the end, SparseAdam centered minus centered, most over layers",
            paper="complementary",
            ours=max(sparse),
            limit=HARDLY,
        ),
        at_most(
            "figS18",
            "dead at birth, target-rate encoder bias, most over layers",
            paper="implicitly accounts for the mean",
            ours=max(of["rate bias"]["born dead"][0] for of in ends.values()),
            limit=0.05,
        ),
        at_most(
            "figS18",
            "dead at the end, target-rate encoder bias minus centered, most over layers",
            paper="-",
            ours=max(rate),
            limit=HARDLY,
        ),
        at_most(
            "figS18",
            "raw FVU, target-rate encoder bias / centered, most over layers",
            paper="-",
            ours=max(error),
            limit=1.02,
        ),
        at_most(
            "figS18",
            "dead at the end, resampling minus centered, most over layers",
            paper="-",
            ours=max(resampled),
            limit=HARDLY,
        ),
    ]


FIGURE = figure("figS18", compute, draw, claims)

if __name__ == "__main__":
    main(FIGURE)
