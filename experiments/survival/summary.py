"""What the validation says, from its JSON alone: tables in Markdown on standard output, and a figure.

python -m experiments.survival.summary [results/validation.json] [--figure docs/forecast.png]
python -m experiments.survival.summary results/sizes.json       # by sample and latents followed
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from autopsae.files import write_whole

HERE = Path(__file__).parent
CHOSEN_ON = ("gemma3", "smollm2")
"""The networks on which the forecast's settings were chosen (on another text)."""
COLOURS = {
    "gemma3": "#D55E00",
    "smollm2": "#0072B2",
    "minilm": "#009E73",
    "dinov2": "#CC79A7",
    "antiberty": "#E69F00",
}

Row = dict[str, Any]
Said = Callable[[Row], float]


def estimators(row: Row) -> dict[str, Said]:
    """What is compared, the forecast first."""
    own: dict[str, Said] = {"forecast": lambda row: float(row["predicted"])}
    rivals: dict[str, Said] = {name: partial(_rival, name) for name in row["rivals"]}
    closed: dict[str, Said] = {"closed form (from gamma)": lambda row: float(row["closed_form"])}
    return {**own, **rivals, **closed}


def _rival(name: str, row: Row) -> float:
    return float(row["rivals"][name])


def errors(rows: list[Row], said: Said) -> tuple[float, float]:
    """(mean absolute error, worst), in points."""
    off = [100 * abs(said(row) - row["counted"]) for row in rows]
    return sum(off) / len(off), max(off)


def by_estimator(rows: list[Row]) -> str:
    """A row per estimator, for each number of tokens."""
    numbers = sorted({row["tokens"] for row in rows})
    head = "| estimator | " + " | ".join(f"mean error at {n:,} | worst" for n in numbers) + " |"
    lines = [head, "|---|" + "---|" * (2 * len(numbers))]
    for name, said in estimators(rows[0]).items():
        cells = []
        for number in numbers:
            mean, worst = errors([row for row in rows if row["tokens"] == number], said)
            cells += [f"{mean:.2f}", f"{worst:.1f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_network(rows: list[Row]) -> str:
    """A row per network and number of tokens: errors of the forecast, and how often its interval holds."""
    lines = ["| network | layers | tokens | mean error | worst | interval holds |", "|---|---|---|---|---|---|"]
    for model in dict.fromkeys(row["model"] for row in rows):
        for number in sorted({row["tokens"] for row in rows if row["model"] == model}):
            some = [row for row in rows if row["model"] == model and row["tokens"] == number]
            mean, worst = errors(some, lambda row: float(row["predicted"]))
            layers = len({row["layer"] for row in some})
            lines.append(f"| {model} | {layers} | {number:,} | {mean:.2f} | {worst:.2f} | {coverage(some):.0%} |")
    return "\n".join(lines)


def by_pathway(rows: list[Row]) -> str:
    """Errors of the forecast of dead-by-ReLU, and on how many rows this pathway matters (more than one latent)."""
    off = [100 * abs(row["predicted_relu"] - row["counted_relu"]) for row in rows]
    some = sum(max(row["counted_relu"], row["predicted_relu"]) > 1 / row["n"] for row in rows)
    return (
        f"dead-by-ReLU: off by {sum(off) / len(off):.2f} points on average, {max(off):.2f} at worst; more than one "
        f"latent is, or is expected to be, dead by it on {some} of {len(rows)} rows"
    )


def by_size(rows: list[Row]) -> str:
    """A row per size of the sample and number of latents followed."""
    lines = ["| sample | followed | rows | mean error | worst | mean width of the interval |", "|---" * 6 + "|"]
    for sample, followed in sorted({(row["sample"], row["followed"]) for row in rows}):
        some = [row for row in rows if (row["sample"], row["followed"]) == (sample, followed)]
        mean, worst = errors(some, lambda row: float(row["predicted"]))
        width = sum(100 * (row["high"] - row["low"]) for row in some) / len(some)
        lines.append(f"| {sample:,} | {followed:,} | {len(some)} | {mean:.2f} | {worst:.1f} | {width:.1f} |")
    return "\n".join(lines)


def misses(rows: list[Row]) -> str:
    """A row for each count outside the interval, with forecast less count."""
    lines = ["| network | layer | remedy | tokens | counted | forecast less count |", "|---" * 6 + "|"]
    for row in rows:
        if not coverage([row]):
            off = f"{100 * (row['predicted'] - row['counted']):+.1f}"
            cells = [row["model"], row["layer"], row["remedy"], f"{row['tokens']:,}", f"{row['counted']:.1%}", off]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def coverage(rows: list[Row]) -> float:
    """Share of the rows whose count lies in the interval; a latent more or less is no miss."""
    held: list[bool] = [row["low"] - 1 / row["n"] <= row["counted"] <= row["high"] + 1 / row["n"] for row in rows]
    return sum(held) / len(held)


def draw(rows: list[Row]) -> Figure:
    """Counted against said, on the largest number of tokens: the forecast, the plain count, the closed form."""
    most = max(row["tokens"] for row in rows)
    shown = [row for row in rows if row["tokens"] == most]
    panels: dict[str, Said] = {
        f"forecast from {shown[0]['sample']:,} tokens": lambda row: float(row["predicted"]),
        f"counted on {shown[0]['sample']:,} tokens": lambda row: float(row["rivals"]["plain count"]),
        "closed form, from gamma": lambda row: float(row["closed_form"]),
    }
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for axis, (title, said) in zip(axes, panels.items(), strict=True):
        for model in dict.fromkeys(row["model"] for row in shown):
            for remedy, marker in (("none", "o"), ("median", "^")):
                some = [row for row in shown if (row["model"], row["remedy"]) == (model, remedy)]
                axis.plot(
                    [100 * row["counted"] for row in some],
                    [100 * said(row) for row in some],
                    marker,
                    color=COLOURS.get(model),
                    markersize=4.5,
                    alpha=0.8,
                    label=f"{model}, {'raw' if remedy == 'none' else 'centered'}",
                )
        axis.plot([0, 100], [0, 100], color="0.6", linewidth=1)
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_xlabel(f"dead, counted on {most:,} tokens, %")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("dead, as said from the sample, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=HERE / "results" / "validation.json")
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    rows: list[Row] = json.loads(asked.results.read_text())
    if len({(row["sample"], row["followed"]) for row in rows}) > 1:
        print(by_size(rows))
        return
    others = [row for row in rows if row["model"] not in CHOSEN_ON]
    for title, some in ((f"All networks but {' and '.join(CHOSEN_ON)}", others), ("All networks", rows)):
        if some:
            print(f"{title} ({len(some)} rows; the interval holds {coverage(some):.0%})\n\n{by_estimator(some)}\n")
            print(by_pathway(some) + "\n")
    print(by_network(rows))
    print(f"\nOutside the interval:\n\n{misses(rows)}")
    if asked.figure:
        figure = draw(rows)
        write_whole(asked.figure, lambda temporary: figure.savefig(temporary, format="png", dpi=140))


if __name__ == "__main__":
    main()
