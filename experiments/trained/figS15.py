"""Figure S15 on real layers: ReLU and JumpReLU at the published settings, from zero and centered, with their L0.

python -m experiments.trained.figS15 --scale quick|full
"""

from typing import Any

from experiments.outliers_2605_31518.frame import Claim, Data, Scale, at_least, at_most
from experiments.outliers_2605_31518.style import death_axis, legend_below, sheet
from experiments.trained.fig2a import summary
from experiments.trained.pictures import caption, entitle, figure, log_axis, steps_of, strips
from experiments.trained.reproduce import main
from experiments.trained.rows import rows_at

SHOWN = ("relu", "relu centered", "jumprelu", "jumprelu centered")
NOTABLE = 0.05
"""A baseline with more dead latents at the end has something to cure."""


def compute(scale: Scale) -> Data:
    return summary(rows_at(steps_of(scale), SHOWN), SHOWN)


def draw(data: Data) -> Any:
    picture, axes = sheet(1, 3, width=14, height=4.6)
    for axis, (key, named) in zip(
        axes[0],
        {"end dead": "dead after training, fraction of latents", "l0": "L0", "fvu_raw": "raw FVU"}.items(),
        strict=True,
    ):
        strips(axis, data, SHOWN, key)
        axis.set_ylabel(named)
    death_axis(axes[0, 0], "dead after training, fraction of latents")
    for axis in axes[0, 1:]:
        log_axis(axis)
    legend_below(picture, axes[0, 0], len(SHOWN))
    entitle(picture, caption(data))
    return picture


def claims(data: Data) -> list[Claim]:
    ends, layers, made = data["ends"], data["layers"], []
    for kind in ("relu", "jumprelu"):
        dead = {name: (of[kind]["end dead"][0], of[f"{kind} centered"]["end dead"][0]) for name, of in ends.items()}
        some = {name: pair for name, pair in dead.items() if pair[0] > NOTABLE}
        words = f"{kind}, layers whose baseline ends with over {NOTABLE:.0%} dead"
        if some:
            gain = min(before - after for before, after in some.values())
            said = f"{words}: gain of centering, least"
            made.append(at_least("figS15", said, paper="helps substantially", ours=gain, limit=0.0))
            left = max(after for _, after in some.values())
            made.append(at_most("figS15", f"{words}: dead when centered, most", paper=0.0, ours=left, limit=0.05))
    off = max(
        max(of[arm]["l0"][0] / layers[name]["k"], layers[name]["k"] / max(of[arm]["l0"][0], 1e-9))
        for name, of in ends.items()
        for arm in SHOWN
        if arm.startswith("jumprelu")
    )
    words = "jumprelu: L0 over the L0 that it aims at, or the other way round, most"
    made.append(at_most("figS15", words, paper="-", ours=off, limit=2.0))
    return made


FIGURE = figure("figS15", compute, draw, claims)

if __name__ == "__main__":
    main(FIGURE)
