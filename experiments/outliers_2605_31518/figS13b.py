"""Figure S13b, not in the paper: do the dynamics scale? Half the rate and twice the steps; batches of 512 and 4096.

    python -m experiments.outliers_2605_31518.figS13b --scale quick|full

Gamma 5, baseline and centered: three settings with one lr * steps at batch 512, and the first of them at batch
4096, the paper's. If the curves agree over lr * steps, few steps at a high rate stand for many at a low one.
Claims are on the range of the ends over the settings; of the bias on their ratio.
"""

from dataclasses import dataclass

from experiments.outliers_2605_31518 import learned
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, main
from experiments.outliers_2605_31518.learned import config, follow, last, layer, mean_spread, newborn
from experiments.outliers_2605_31518.style import MARKERS, SERIES, death_axis, legend_below, sheet
from matplotlib.figure import Figure

from autopsae.training import Member

GAMMA = 5.0
STARTS = {"baseline": "-", "centered": ":"}
LABELS = {"dead": "", "bias": "share of the mean in the bias", "mmcs": "MMCS with the true features"}
TOLERANCE = {"dead": 0.1, "mmcs": 0.05}
BIAS_RATIO = 1.25
"""A ratio, as the bias is still near 0 at the end: a difference would be small whatever happened."""


@dataclass(frozen=True, kw_only=True)
class Size(learned.Size):
    lr: float
    records: int
    batch: int = 512
    large_batch: int = 4096


SIZES = {
    "quick": Size(lr=1e-2, steps=2000, draws=2, tokens=100_000, held_out=4000, records=30),
    "full": Size(lr=1e-2, steps=5000, draws=3, tokens=400_000, held_out=20_000, records=60),
}


def compute(scale: Scale) -> Data:
    return measure(SIZES[scale.name])


def measure(size: Size) -> Data:
    """The curves of each setting and start."""
    settings = [(size.lr / halved, size.steps * halved, size.batch) for halved in (1, 2, 4)]
    settings.append((size.lr, size.steps, size.large_batch))
    rows = [
        {"lr": lr, "batch": batch, "start": start, "curve": curve}
        for lr, steps, batch in settings
        for start, curve in _trained(size, lr, steps, batch).items()
    ]
    return {"gamma": GAMMA, "draws": size.draws, "travel": size.lr * size.steps, "rows": rows}


def _trained(size: Size, lr: float, steps: int, batch: int) -> dict[str, dict[str, list[float]]]:
    """The mean curve of each start in one setting."""
    grid = [(start, seed) for start in STARTS for seed in range(size.draws)]
    layers = [layer(GAMMA, seed, tokens=size.tokens, held_out=size.held_out) for _, seed in grid]
    settings = config(steps=steps, lr=lr, batch=batch, records=size.records)
    members = [
        Member(sae=newborn(start, of, seed), tokens=of.tokens, config=settings)
        for (start, seed), of in zip(grid, layers, strict=True)
    ]
    curves = dict(zip(grid, follow(members, layers), strict=True))
    return {start: mean_spread([curves[start, seed] for seed in range(size.draws)]) for start in STARTS}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 3, width=11.5, height=4.3)
    for axis, (name, label) in zip(axes[0], LABELS.items(), strict=True):
        for place, row in enumerate(data["rows"]):
            setting, curve = place // len(STARTS), row["curve"]
            axis.plot(
                [step * row["lr"] for step in curve["step"]],
                curve[name],
                color=SERIES[setting],
                linestyle=STARTS[row["start"]],
                marker=MARKERS[setting],
                markevery=(setting, 6),
                ms=4,
                lw=1.4,
                label=f"{row['start']}, lr {row['lr']:g}, batch {row['batch']}",
            )
        axis.set_xlabel("learning rate × steps")
        axis.set_ylabel(label)
    death_axis(axes[0, 0], "dead on held-out tokens, fraction of latents")
    axes[0, 0].set_title(f"γ = {data['gamma']:g}, {data['draws']} draws", fontsize=10, loc="left")
    legend_below(figure, axes[0, 0], 4)
    return figure


def claims(data: Data) -> list[Claim]:
    made = []
    for start in STARTS:
        ends = [(row["batch"], last(row["curve"])) for row in data["rows"] if row["start"] == start]
        for name, tolerance in TOLERANCE.items():
            rates, batches = _compared(ends, name)
            said = f"{name} at the end, {start}: range over"
            made += [
                at_most("figS13b", f"{said} rates", paper="-", ours=max(rates) - min(rates), limit=tolerance),
                at_most("figS13b", f"{said} batches", paper="-", ours=max(batches) - min(batches), limit=tolerance),
            ]
        if start != "baseline":
            # A centered bias is at the mean from birth on, and agrees whatever the dynamics do.
            continue
        for compared, values in zip(("rates", "batches"), _compared(ends, "bias"), strict=True):
            said = f"bias at the end, {start}: largest / smallest over {compared}"
            ratio = max(values) / max(min(values), 1e-9)
            made.append(at_most("figS13b", said, paper="-", ours=ratio, limit=BIAS_RATIO))
    return made


def _compared(ends: list[tuple[int, dict[str, float]]], name: str) -> tuple[list[float], list[float]]:
    """Of the rates at one batch, and of two batches at the first rate; the large batch is the last."""
    values = [end[name] for _, end in ends]
    return values[:-1], [values[0], values[-1]]


FIGURE = Reproduction(name="figS13b", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
