"""Figure S13: dead, true features found and error at the end against the learning rate, baseline and centered.

    python -m experiments.outliers_2605_31518.figS13 --scale quick|full

Gamma 5 and 40; nine rates from 1e-4 to 1, the same steps for all, so that lr * steps grows with the rate: the
lowest have hardly moved at the end, the highest overshoot. Mean and spread over draws, on held-out tokens.
"""

from dataclasses import dataclass

from experiments.outliers_2605_31518 import learned
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, main
from experiments.outliers_2605_31518.learned import config, follow, last, layer, mean_spread, newborn
from experiments.outliers_2605_31518.style import BLUE, RED, death_axis, legend_below, sheet
from matplotlib.figure import Figure

from autopsae.training import Member

LOW = (0.05, 0.1)
"""Fractions under which death counts as low."""
STARTS = {"baseline": RED, "centered": BLUE}
GAMMAS = {5.0: ("o", "-"), 40.0: ("s", "--")}


@dataclass(frozen=True, kw_only=True)
class Size(learned.Size):
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


SIZES = {
    "quick": Size(steps=2500, draws=2, tokens=100_000, held_out=10_000),
    "full": Size(steps=8000, draws=3, tokens=200_000, held_out=20_000),
}


def compute(scale: Scale) -> Data:
    return measure(SIZES[scale.name])


def measure(size: Size) -> Data:
    """A row per gamma, start and rate."""
    seeds = range(size.draws)
    grid = [(gamma, start, lr, seed) for gamma in GAMMAS for start in STARTS for lr in size.rates for seed in seeds]
    layers = [layer(gamma, seed, tokens=size.tokens, held_out=size.held_out) for gamma, _, _, seed in grid]
    members = [
        Member(
            sae=newborn(start, of, seed),
            tokens=of.tokens,
            config=config(steps=size.steps, lr=lr, records=1),
        )
        for (_, start, lr, seed), of in zip(grid, layers, strict=True)
    ]
    # One that diverged ends at birth: its curve has one point, and the others two.
    ends = [{name: [value] for name, value in last(c).items()} for c in follow(members, layers)]
    by_cell = dict(zip(grid, ends, strict=True))
    rows = [
        {"gamma": gamma, "start": start, "lr": lr}
        | last(mean_spread([by_cell[gamma, start, lr, s] for s in seeds]))
        for gamma in GAMMAS
        for start in STARTS
        for lr in size.rates
    ]
    return {"steps": size.steps, "draws": size.draws, "rows": rows}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 3, width=11.5, height=4.1)
    labels = {"dead": "", "mmcs": "MMCS with the true features", "mse": "MSE per token and dimension, held out"}
    for axis, (name, label) in zip(axes[0], labels.items(), strict=True):
        for gamma, (marker, style) in GAMMAS.items():
            for start, colour in STARTS.items():
                rows = _rows(data, gamma, start)
                axis.errorbar(
                    [row["lr"] for row in rows],
                    [row[name] for row in rows],
                    yerr=_bars(rows, name),
                    color=colour,
                    marker=marker,
                    linestyle=style,
                    lw=1.4,
                    ms=4.5,
                    elinewidth=1,
                    capsize=2,
                    label=f"{start}, γ = {gamma:g}",
                )
        axis.set_xscale("log")
        axis.set_xlabel("learning rate")
        axis.set_ylabel(label)
    death_axis(axes[0, 0], "dead at the end, fraction of latents")
    axes[0, 2].set_yscale("log")
    axes[0, 0].set_title(f"{data['steps']:,} steps of 512 tokens, {data['draws']} draws", fontsize=10, loc="left")
    legend_below(figure, axes[0, 0], 4)
    return figure


def _bars(rows: list[dict[str, float]], name: str) -> list[list[float]]:
    """Standard deviations downwards and upwards; neither out of [0, 1] nor below half the mean of an error."""
    least, most = (0.0, 1.0) if name != "mse" else (0.5, float("inf"))
    below = [min(row[f"{name}_std"], row[name] * (1 - least)) for row in rows]
    return [below, [min(row[f"{name}_std"], most - row[name]) for row in rows]]


def claims(data: Data) -> list[Claim]:
    made = []
    for gamma in GAMMAS:
        for start in STARTS:
            worst = max(row["dead"] for row in _rows(data, gamma, start))
            said = f"dead at the worst rate, {start}, gamma {gamma:g}"
            made.append(at_least("figS13", said, paper="over 0.9", ours=worst, limit=0.9))
        for low in LOW:
            wider = _low(data, gamma, "centered", low) - _low(data, gamma, "baseline", low)
            said = f"rates with dead < {low:g}, more when centered than at b = 0, gamma {gamma:g}"
            made.append(at_least("figS13", said, paper="wider range", ours=wider, limit=1))
    return made


def _rows(data: Data, gamma: float, start: str) -> list[dict[str, float]]:
    return [row for row in data["rows"] if (row["gamma"], row["start"]) == (gamma, start)]


def _low(data: Data, gamma: float, start: str, low: float) -> int:
    return sum(row["dead"] < low for row in _rows(data, gamma, start))


FIGURE = Reproduction(name="figS13", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
