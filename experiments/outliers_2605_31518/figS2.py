"""Figure S2: death at birth against the number of tokens on which it is measured, on synthetic data.

    python -m experiments.outliers_2605_31518.figS2 --scale quick|full

The paper's figure shows real layers; this is its synthetic counterpart. The first N tokens of each draw, for N from
100 up to all tokens of the scale. Dashed: the closed forms, which go on falling with C = Phi^-1(1 - 1/N).
"""

from typing import Any

from experiments.outliers_2605_31518.births import Setting, birth, draw_tokens, summary
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, main, near
from experiments.outliers_2605_31518.style import MARKERS, SERIES, death_axis, legend_below, sheet
from matplotlib.figure import Figure

GAMMAS = (1.0, 2.0, 5.0, 10.0, 40.0)
SEVERE = 10.0
SIZES = (100, 300, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
NAMES = {"dead": "dead-by-TopK", "relu": "dead-by-ReLU"}


def compute(scale: Scale) -> Data:
    """A row per gamma and number of tokens."""
    setting = Setting()
    sizes = sorted({*(size for size in SIZES if size < scale.tokens), scale.tokens // 10, scale.tokens})
    rows = []
    for gamma in GAMMAS:
        drawn = [draw_tokens(setting, gamma, scale.tokens, seed) for seed in range(scale.draws)]
        for size in sizes:
            measured = [birth(x[:size], setting, seed) for seed, x in enumerate(drawn)]
            rows.append({"tokens": size, **summary(measured, setting, gamma, size)})
    return {"tokens": scale.tokens, "draws": scale.draws, "rows": rows}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=9.5, height=4.4, sharey=True)
    for axis, pathway in zip(axes[0], NAMES, strict=True):
        for gamma, colour, marker in zip(GAMMAS, SERIES, MARKERS, strict=False):
            rows = [row for row in data["rows"] if row["gamma"] == gamma]
            sizes, dead, spread, theory = (
                [row[key] for row in rows] for key in ("tokens", pathway, f"{pathway}_std", f"{pathway}_theory")
            )
            axis.errorbar(
                sizes, dead, yerr=spread, color=colour, marker=marker, ms=4.5, lw=1.3, elinewidth=0.8, capsize=2,
                label=f"γ = {gamma:g}",
            )  # fmt: skip
            axis.plot(sizes, theory, color=colour, linestyle="--", linewidth=0.9, alpha=0.8)
        axis.plot([], [], color="0.4", linestyle="--", linewidth=0.9, label="closed form")
        axis.set_xscale("log")
        axis.set_xlabel("tokens on which death is measured, N")
        death_axis(axis)
        axis.set_title(NAMES[pathway], fontsize=10, loc="left")
    axes[0, 1].set_ylabel("")
    legend_below(figure, axes[0, 0], 6)
    return figure


def claims(data: Data) -> list[Claim]:
    rows, most = data["rows"], data["tokens"]
    least, severe = most // 10, [gamma for gamma in GAMMAS if gamma >= SEVERE]
    reached = f"from N = {least:,} to {most:,}"
    found = []
    for pathway, name in NAMES.items():
        change = {gamma: _change(rows, gamma, pathway, least, most) for gamma in GAMMAS}
        told = {gamma: _change(rows, gamma, f"{pathway}_theory", least, most) for gamma in GAMMAS}
        worst = max(GAMMAS, key=lambda gamma: change[gamma])
        for gammas, which in ((GAMMAS, "any gamma"), (severe, f"gamma >= {SEVERE:g}")):
            sentence = f"largest change of {name} {reached}, {which}"
            ours = max(change[gamma] for gamma in gammas)
            key = f"largest change of {name}, {which}"
            found.append(at_most("figS2", sentence, paper="plateaus", ours=ours, limit=0.05, key=key))
        sentence = f"change of {name} {reached} at gamma {worst:g}, beside the closed form's"
        key = f"change of {name} where it is largest, beside the closed form's"
        paper = round(told[worst], 4)
        found.append(near("figS2", sentence, paper=paper, ours=change[worst], by=0.05, key=key))
    return found


def _change(rows: list[dict[str, Any]], gamma: float, of: str, least: int, most: int) -> float:
    value = {row["tokens"]: row[of] for row in rows if row["gamma"] == gamma}
    return float(abs(value[most] - value[least]))


FIGURE = Reproduction(name="figS2", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
